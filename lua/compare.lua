-- compare.lua: says how each target stands to its source. Reads only; runs under EVALSHA_RO.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  the rule's type: hash, set, zset, list, string, stream or any
--       4  '1' to compare source and target, '0' to tell only whether the target is there
--       5  '1' to take equal values with another expiry for the same
--       6  '1' to answer values too where they differ
--       7  what is to be filled: '' for nothing, 'sets' for hashes and sets, 'queues' for sorted
--          sets too
--       8  '1' to answer sizes too: in fields, members, items, entries, or bytes of a string
--
-- Answers for each pair what lib/batch.lua says, or a string (with ARGV 8 '1', followed by the sizes of source and
-- target):
--   missing         there is no target
--   same            the target equals the source, expiry included
--   exists          the target is there; not compared (only with ARGV 4 '0')
-- or a list of one of these words and what differs (see lib/diff.lua; where fill.lua could fill the target, also
-- its digest):
--   expiry          equal in value, but the key or a field expires at another time, by more than a second
--   partial         the target agrees in all it has and lacks some of the source
--   differs         the target contradicts the source or has another type

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local compare = include "lib/compare.lua"
local contents = include "lib/contents.lua"
local diff = include "lib/diff.lua"
local fill = include "lib/fill.lua"
local shortcut = include "lib/shortcut.lua"

local ARGV = request.arguments
local wanted_type = ARGV[3]
local validate, ignore_expiry, show_values = ARGV[4] == '1', ARGV[5] == '1', ARGV[6] == '1'
local filling, sizes_wanted = ARGV[7], ARGV[8] == '1'
local answer, compare_any = batch.answer, compare.any

local function size(kind, key) return request.call('TYPE', key).ok == kind and contents.size(kind, key) or 0 end

local function stand(kind, source, target)
  if validate then return compare_any(kind, source, target, ignore_expiry, show_values) end
  return request.call('TYPE', target).ok == 'none' and 'missing' or 'exists'
end

local settle, expect, begin
if validate and not sizes_wanted then settle, expect, begin = shortcut.begin(false, ignore_expiry) end

return batch.each_source(wanted_type, function(kind, source, target)
  local word, notes, lacking = stand(kind, source, target)
  if lacking and fill.is_wanted(kind, lacking, filling) then diff.note(notes, 'digest', fill.digest(lacking)) end
  if not sizes_wanted then return answer(word, notes) end
  local source_size, target_size = size(kind, source), size(kind, target)
  if not notes then return word .. ' ' .. source_size .. ' ' .. target_size end
  diff.note(notes, 'source_size', source_size)
  diff.note(notes, 'target_size', target_size)
  return answer(word, notes)
end, settle, expect, begin)
