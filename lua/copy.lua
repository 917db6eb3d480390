-- copy.lua: copies each source to its target where the target is absent, and compares the two.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1  the rule's type: hash, set or zset
--       2  '1' to compare source and target, '0' to take COPY's word
--       3  '1' to take equal values with another expiry for the same
--
-- Answers one string per pair, in the order of KEYS:
--   copied          the target was absent; it now equals the source (ARGV 2 '0': not compared)
--   same            the target was there and equals the source, expiry included
--   exists          the target was there; not compared (only with ARGV 2 '0')
--   expiry          equal in value, but the key or a field expires more than a second apart
--   partial         the target was there, agrees in all it has, and lacks some of the source
--   differs         the target was there and contradicts the source or has another type
--   gone            there is no source
--   ignored <type>  the source is of this type, which is not the rule's
--   failed <text>   the server refused, in its own words; the other pairs are not affected
--
-- Writes: COPY without REPLACE, nothing else. COPY takes the key's expiry and its fields' along.

include "pairs.lua"
include "same.lua"

local wanted_type, validate, ignore_expiry = ARGV[1], ARGV[2] == '1', ARGV[3] == '1'

return answer_each_pair(function(source, target)
  local kind = redis.call('TYPE', source).ok
  if kind ~= wanted_type and kind ~= 'none' then return 'ignored ' .. kind end
  if is_gone(kind, source) then return 'gone' end
  local reply = redis.pcall('COPY', source, target)
  -- A server out of memory refuses COPY unseen, even where it would not have written.
  if type(reply) == 'table' and redis.call('TYPE', target).ok == 'none' then error(reply) end
  local copied = reply == 1
  if not validate then return copied and 'copied' or 'exists' end
  local word = compare(kind, source, target, ignore_expiry)
  if not copied then return word end
  return word == 'same' and 'copied' or 'failed the fresh copy is not the same: ' .. word
end)
