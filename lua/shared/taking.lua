-- taking.lua: included by the scripts that fill from a source in the same slot.

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

-- Adds a name that the source still has to a target that lacks it.
local function add_from(kind, source, target, name)
  local value, at = TAKE[kind](source, name)
  if value then ADD[kind](target, name, value, at) end
end
