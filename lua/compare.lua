-- compare.lua: says how each target stands to its source. Reads only; runs under EVALSHA_RO.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3  the rule's type: hash, set, zset, list, string, stream or any
--       4  '1' to compare source and target, '0' to look only whether the target is there
--       5  '1' to take equal values with another expiry for the same
--       6  '1' to answer values too where they differ
--       7  what is to be filled: '' for nothing, 'sets' for hashes and sets, 'queues' for sorted
--          sets too
--       8  '1' to answer sizes too: in fields, members, items, entries, or bytes of a string
--
-- Answers for each pair, in the order of KEYS (see shared/each.lua: behind the last answer, the
-- microseconds taken; fewer answers where the time was spent), a string (with ARGV 8 '1', the first three are
-- followed by the sizes of source and target):
--   missing         there is no target
--   same            the target equals the source, expiry included
--   exists          the target is there; not compared (only with ARGV 4 '0')
--   gone            there is no source
--   ignored <type>  the source is of this type, which is not the rule's
--   big <type> <bytes>  source or target, which is this big, would take too long: not touched
--   failed <text>   the server refused, in its own words; the other pairs are not affected
-- or a list, of one of these words and what differs, name by name (see values.lua; where fill.lua
-- could fill the target, also its digest):
--   expiry          equal in value, but the key or a field expires more than a second apart
--   partial         the target agrees in all it has and lacks some of the source
--   differs         the target contradicts the source or has another type

include "shared/sources.lua"
include "shared/same.lua"
include "shared/lacking.lua"
include "shared/sizes.lua"

local wanted_type = ARGV[3]
local validate, ignore_expiry, show_values = ARGV[4] == '1', ARGV[5] == '1', ARGV[6] == '1'
local filling, sizes_wanted = ARGV[7], ARGV[8] == '1'

local function size(kind, key) return redis.call('TYPE', key).ok == kind and size_of(kind, key) or 0 end

local function stand(kind, source, target)
  if validate then return compare(kind, source, target, ignore_expiry, show_values) end
  return redis.call('TYPE', target).ok == 'none' and 'missing' or 'exists'
end

return answer_each_source(wanted_type, function(kind, source, target)
  local word, notes, lacking = stand(kind, source, target)
  if may_be_filled(kind, lacking, filling) then note(notes, 'digest', digest(lacking)) end
  if not sizes_wanted then return answer(word, notes) end
  local source_size, target_size = size(kind, source), size(kind, target)
  if not notes then return word .. ' ' .. source_size .. ' ' .. target_size end
  note(notes, 'source_size', source_size)
  note(notes, 'target_size', target_size)
  return answer(word, notes)
end)
