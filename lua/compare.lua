-- compare.lua: says how each target stands to its source. Reads only; runs under EVALSHA_RO.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1  the rule's type: hash, set or zset
--       2  '1' to compare source and target, '0' to look only whether the target is there
--       3  '1' to take equal values with another expiry for the same
--
-- Answers one string per pair, in the order of KEYS:
--   <word> <source size> <target size>  sizes in fields or members; the word is one of
--       missing   there is no target
--       same      the target equals the source, expiry included
--       exists    the target is there; not compared (only with ARGV 2 '0')
--       expiry    equal in value, but the key or a field expires more than a second apart
--       partial   the target agrees in all it has and lacks some of the source
--       differs   the target contradicts the source or has another type (then its size is 0)
--   gone            there is no source
--   ignored <type>  the source is of this type, which is not the rule's
--   failed <text>   the server refused, in its own words; the other pairs are not affected

include "pairs.lua"
include "same.lua"

local wanted_type, validate, ignore_expiry = ARGV[1], ARGV[2] == '1', ARGV[3] == '1'

local SIZE = { hash = 'HLEN', set = 'SCARD', zset = 'ZCARD' }

return answer_each_pair(function(source, target)
  local kind = redis.call('TYPE', source).ok
  if kind ~= wanted_type and kind ~= 'none' then return 'ignored ' .. kind end
  if is_gone(kind, source) then return 'gone' end
  local target_kind = redis.call('TYPE', target).ok
  local word = 'exists'
  if target_kind == 'none' then
    word = 'missing'
  elseif validate then
    word = compare(kind, source, target, ignore_expiry)
  end
  local source_size = redis.call(SIZE[kind], source)
  local target_size = target_kind == kind and redis.call(SIZE[kind], target) or 0
  return word .. ' ' .. source_size .. ' ' .. target_size
end)
