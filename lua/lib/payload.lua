-- lib/payload.lua: keys as they travel to another slot: as the payload that DUMP gives and RESTORE takes.

local batch = include "lib/batch.lua"
local budget = include "lib/budget.lua"
local expiry = include "lib/expiry.lua"

-- What can be said of a key, which is of the given kind and weighs so many bytes, to somebody who has only the other
-- key of its pair: a list of type, expiry (milliseconds since 1970, -1 for never), digest of the payload and bytes.
-- Also returns the payload.
local function describe(kind, key, bytes)
  local payload = redis.call('DUMP', key)
  return { kind, expiry.at(key), redis.sha1hex(payload), bytes }, payload
end

-- The same of a key that may be of any type and size; 'missing' where it is not there.
local function describe_any(key)
  local kind = redis.call('TYPE', key).ok
  local bytes = kind ~= 'none' and budget.spend_key(kind, key)
  return bytes and (describe(kind, key, bytes)) or 'missing'
end

-- Makes the key, in the place of what is there only where `replace` says so, with its expiry: in milliseconds since
-- 1970, '-1' for never. Returns the digest of the payload that it has now, which need not be the one it was given;
-- nil where it has expired already. Writes: RESTORE; UNLINK where it cannot be read then.
local function restore(key, payload, at, bytes, replace)
  budget.spend(bytes)
  local arguments = { key, at == '-1' and 0 or at, payload, 'ABSTTL' }
  if replace then arguments[5] = 'REPLACE' end
  redis.call('RESTORE', unpack(arguments))
  batch.made = key
  local restored = redis.call('DUMP', key)
  batch.made = false
  return restored and redis.sha1hex(restored) or nil
end

return { describe = describe, describe_any = describe_any, restore = restore }
