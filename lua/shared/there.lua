-- there.lua: included by the scripts that are given a source's half of a pair. What is in the other?

include "shared/state.lua"

-- The state of a key that may be of any type and size; 'missing' where it is not there.
local function state_of_any(key)
  local kind = redis.call('TYPE', key).ok
  local bytes = kind ~= 'none' and take_up(kind, key)
  if not bytes then return 'missing' end
  return (state(kind, key, bytes))
end
