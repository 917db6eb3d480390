-- fill.lua: as copy.lua, but adds to a target what two looks, some time apart, found it to lack.
--
-- A field may be absent on purpose: deleted in the target first, a moment ago. So the first look
-- only answers a digest of the names that are missing; the second is given it back, compares again,
-- and adds them if they are still the same. If they are not, that was a new first look.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3  the rule's type: hash, set, zset, list, string, stream or any
--       4  '1' to take equal values with another expiry for the same
--       5  '1' to answer values too where they differ
--       6  'sets' to fill hashes and sets, 'queues' to fill sorted sets too
--       7..  for each pair what its last look found: the digest, 'missing', or ''; absent in a
--          first look
--
-- Answers as copy.lua does with validation, and for each pair further
--   filled   the target was partial; what it lacked was added, nothing else was changed, and it now
--            equals the source
--   partial  with the digest, if it could be filled: a target whose expiry, or that of a field,
--            is another is not touched (but with ARGV 4 '1')
--
-- Writes: what shared/fresh.lua and shared/adding.lua do.

include "shared/sources.lua"
include "shared/fresh.lua"
include "shared/lacking.lua"
include "shared/from.lua"

local wanted_type, ignore_expiry, show_values, filling = ARGV[3], ARGV[4] == '1', ARGV[5] == '1', ARGV[6]

local looked = last_looks(7)

return answer_each_source(wanted_type, function(kind, source, target)
  local word, notes, lacking =
    copy_where_absent(kind, source, target, looked, true, ignore_expiry, show_values)
  if not may_be_filled(kind, lacking, filling) then return answer(word, notes) end
  local found = digest(lacking)
  if not looked or found ~= looked[target] then
    note(notes, 'digest', found)
    return answer(word, notes)
  end
  for _, name in ipairs(lacking) do add_from(kind, source, target, name) end
  word, notes = compare_present(kind, source, target, ignore_expiry, show_values)
  return answer(word == 'same' and 'filled' or word, notes)
end)
