-- fill.lua: as copy.lua, but adds to a target what two checks, some seconds between them, found it to lack.
--
-- A field may be absent on purpose: deleted in the target first, a moment ago. So the first check
-- only answers a digest of the names that are missing; the second is given it back, compares again,
-- and adds them if they are still the same. If they are not, that was a new first check.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  the rule's type: hash, set, zset, list, string, stream or any
--       4  '1' to take equal values with another expiry for the same
--       5  '1' to answer values too where they differ
--       6  'sets' to fill hashes and sets, 'queues' to fill sorted sets too
--       7..  for each pair what its last check found: the digest, 'missing', or ''; absent in a first check
--
-- Answers as copy.lua does with validation, and for each pair further
--   filled   the target was partial; what it lacked was added, nothing else was changed, and it now
--            equals the source
--   partial  with the digest, if it could be filled: a target whose expiry, or that of a field,
--            is another is not touched (but with ARGV 4 '1')
--
-- Writes: what lib/copy.lua and lib/fill.lua do.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local compare = include "lib/compare.lua"
local copy = include "lib/copy.lua"
local diff = include "lib/diff.lua"
local fill = include "lib/fill.lua"
local shortcut = include "lib/shortcut.lua"

local ARGV = request.arguments
local wanted_type, ignore_expiry, show_values, filling = ARGV[3], ARGV[4] == '1', ARGV[5] == '1', ARGV[6]
local checked = copy.last_checks(7)
local answer, copy_where_absent = batch.answer, copy.where_absent

local settle, expect, begin
if not checked then settle, expect, begin = shortcut.begin(true, ignore_expiry) end

return batch.each_source(wanted_type, function(kind, source, target)
  local word, notes, lacking = copy_where_absent(kind, source, target, checked, true, ignore_expiry, show_values)
  if not (lacking and fill.is_wanted(kind, lacking, filling)) then return answer(word, notes) end
  local found = fill.digest(lacking)
  if not checked or found ~= checked[target] then
    diff.note(notes, 'digest', found)
    return answer(word, notes)
  end
  for _, name in ipairs(lacking) do fill.add_from(kind, source, target, name) end
  word, notes = compare.present(kind, source, target, ignore_expiry, show_values)
  return answer(word == 'same' and 'filled' or word, notes)
end, settle, expect, begin)
