-- extra.lua: finds targets that have no source. Reads only; runs under EVALSHA_RO.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1  the rule's type: hash, set, zset, list, string, stream or any
--
-- Answers one string per pair, in the order of KEYS:
--   extra          the target is there, of the rule's type, and its source is not
--   paired         not so: the source is there, or the target is not
--   failed <text>  the server refused, in its own words; the other pairs are not affected

include "shared/pairs.lua"
include "shared/gone.lua"

local wanted_type = ARGV[1]

return answer_each_pair(function(source, target)
  local kind = redis.call('TYPE', target).ok
  if is_gone(kind, target) or (kind ~= wanted_type and wanted_type ~= 'any') then return 'paired' end
  return is_gone(redis.call('TYPE', source).ok, source) and 'extra' or 'paired'
end)
