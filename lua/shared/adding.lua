-- adding.lua: included by the scripts that fill. Adds what a target lacks, and nothing else.

include "shared/expires.lua"

-- Each adds one name with what the source holds of it, where the target has no such name and the
-- source does. Writes: HSETNX with HPEXPIREAT for fields that expire, SADD, ZADD NX.
local ADD = {
  hash = function(source, target, name)
    local value = redis.call('HGET', source, name)
    if not value or redis.call('HSETNX', target, name, value) == 0 then return end
    if anything_expires('fields') then
      local at = redis.call('HPEXPIRETIME', source, 'FIELDS', 1, name)[1]
      if at > 0 then redis.call('HPEXPIREAT', target, at, 'FIELDS', 1, name) end
    end
  end,
  set = function(source, target, name)
    if redis.call('SISMEMBER', source, name) == 1 then redis.call('SADD', target, name) end
  end,
  zset = function(source, target, name)
    local score = redis.call('ZSCORE', source, name)
    if score then redis.call('ZADD', target, 'NX', score, name) end
  end,
}
