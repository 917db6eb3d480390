-- copy.lua: copies each source to its target where the target is absent, and compares the two.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  the rule's type: hash, set, zset, list, string, stream or any
--       4  '1' to compare source and target, '0' to take COPY's word
--       5  '1' to take equal values with another expiry for the same
--       6  '1' to answer values too where they differ
--       7..  for each pair what its last check found: 'missing', or ''; absent in a first check
--
-- Answers for each pair what lib/batch.lua says, or a string:
--   copied          the target was absent; it now equals the source (ARGV 4 '0': not compared)
--   same            the target was there and equals the source, expiry included
--   exists          the target was there; not compared (only with ARGV 4 '0')
--   missing         the target was there at the last check and is not now: not copied yet
-- or a list of one of these words and what differs (see lib/diff.lua):
--   expiry          equal in value, but the key or a field expires at another time, by more than a second
--   partial         the target was there, agrees in all it has, and lacks some of the source
--   differs         the target was there and contradicts the source or has another type
--
-- Writes: what lib/copy.lua does, nothing else.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local copy = include "lib/copy.lua"
local shortcut = include "lib/shortcut.lua"

local ARGV = request.arguments
local wanted_type = ARGV[3]
local validate, ignore_expiry, show_values = ARGV[4] == '1', ARGV[5] == '1', ARGV[6] == '1'
local checked = copy.last_checks(7)
local answer, copy_where_absent = batch.answer, copy.where_absent

local settle, expect, begin
if validate and not checked then settle, expect, begin = shortcut.begin(true, ignore_expiry) end

return batch.each_source(wanted_type, function(kind, source, target)
  return answer(copy_where_absent(kind, source, target, checked, validate, ignore_expiry, show_values))
end, settle, expect, begin)
