-- state.lua: included by the scripts for pairs whose halves are in two slots. What is in one half?

include "shared/weight.lua"
include "shared/expires_at.lua"

-- What can be said of a key, which is of the given kind and weighs so many bytes, to somebody who has only
-- the other half: a list of type, expiry (milliseconds since 1970, -1 for never), digest of the payload and
-- bytes. Also returns the payload.
local function state(kind, key, bytes)
  local payload = redis.call('DUMP', key)
  return { kind, expires_at(key), redis.sha1hex(payload), bytes }, payload
end
