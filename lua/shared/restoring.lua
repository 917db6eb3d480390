-- restoring.lua: included by the scripts that make a key of a payload.

-- Makes the key, in the place of what is there only where `replace` says so, with its expiry: in milliseconds
-- since 1970, '-1' for never. Returns the digest of the payload that it has now, which need not be the
-- one it was given; nil where it has expired already. Writes: RESTORE; UNLINK where it cannot be read then.
local function restore(key, payload, at, bytes, replace)
  weight = weight + bytes
  local arguments = { key, at == '-1' and 0 or at, payload, 'ABSTTL' }
  if replace then arguments[5] = 'REPLACE' end
  redis.call('RESTORE', unpack(arguments))
  made = key
  local restored = redis.call('DUMP', key)
  made = nil
  return restored and redis.sha1hex(restored) or nil
end
