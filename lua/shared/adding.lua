-- adding.lua: included by the scripts that fill. Adds what a target lacks, and nothing else.

-- Each adds one name, with its value and the moment at which it expires (-1 for never), where the target
-- has no such name. Writes: HSETNX with HPEXPIREAT for fields that expire, SADD, ZADD NX.
local ADD = {
  hash = function(target, name, value, at)
    local moment = ('%d'):format(at)
    -- Asked first of a field that is not there: a server that refuses it must not leave a field without its expiry.
    if at > 0 then redis.call('HPEXPIREAT', target, moment, 'FIELDS', 1, name) end
    if redis.call('HSETNX', target, name, value) == 1 and at > 0 then
      redis.call('HPEXPIREAT', target, moment, 'FIELDS', 1, name)
    end
  end,
  set = function(target, name) redis.call('SADD', target, name) end,
  zset = function(target, name, score) redis.call('ZADD', target, 'NX', score, name) end,
}
