-- copy.lua: copies each source to its target where the target is absent, and compares the two.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3  the rule's type: hash, set, zset, list, string, stream or any
--       4  '1' to compare source and target, '0' to take COPY's word
--       5  '1' to take equal values with another expiry for the same
--       6  '1' to answer values too where they differ
--       7..  for each pair what its last look found: 'missing', or ''; absent in a first look
--
-- Answers for each pair, in the order of KEYS (see shared/each.lua: behind the last answer, the
-- microseconds taken; fewer answers where the time was spent), a string:
--   copied          the target was absent; it now equals the source (ARGV 4 '0': not compared)
--   same            the target was there and equals the source, expiry included
--   exists          the target was there; not compared (only with ARGV 4 '0')
--   missing         the target was there at the last look and is not now: not copied yet
--   gone            there is no source
--   ignored <type>  the source is of this type, which is not the rule's
--   big <type> <bytes>  source or target, which is this big, would take too long: not touched
--   failed <text>   the server refused, in its own words; the other pairs are not affected
-- or a list, of one of these words and what differs, name by name (see values.lua):
--   expiry          equal in value, but the key or a field expires more than a second apart
--   partial         the target was there, agrees in all it has, and lacks some of the source
--   differs         the target was there and contradicts the source or has another type
--
-- Writes: what shared/fresh.lua does, nothing else.

include "shared/sources.lua"
include "shared/fresh.lua"

local wanted_type = ARGV[3]
local validate, ignore_expiry, show_values = ARGV[4] == '1', ARGV[5] == '1', ARGV[6] == '1'
local looked = last_looks(7)

return answer_each_source(wanted_type, function(kind, source, target)
  return answer(copy_where_absent(kind, source, target, looked, validate, ignore_expiry, show_values))
end)
