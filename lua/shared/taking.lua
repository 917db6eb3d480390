-- taking.lua: included by the scripts that fill a target name by name.

include "shared/expires.lua"

-- What a source holds of a name: its value, and the moment at which it expires (-1 for never); no value
-- where it has no such name (any more).
local TAKE = {
  hash = function(source, name)
    local value, at = redis.call('HGET', source, name), -1
    if value and anything_expires('fields') then
      at = redis.call('HPEXPIRETIME', source, 'FIELDS', 1, name)[1]
    end
    return value, at
  end,
  set = function(source, name) return redis.call('SISMEMBER', source, name) == 1 end,
  zset = function(source, name) return redis.call('ZSCORE', source, name) end,
}
