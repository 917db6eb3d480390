-- lib/payload.lua: keys as they travel to another slot: as the payload that DUMP gives and RESTORE takes.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local budget = include "lib/budget.lua"
local expiry = include "lib/expiry.lua"

local CAPACITY = tonumber(request.arguments[2])

-- Types that no module has, and of which the bytes in memory are the whole weight.
local PLAIN = { hash = true, set = true, zset = true, string = true }

-- How long a digest is: of what is longer or shorter no digest is needed to know a payload again.
local DIGEST = 40

-- The plain type of payloads by their first byte: each encoding of a type has one of its own.
local kind_of = {}

-- Whether a glance was enough for all keys so far: where one is refused, or met another type, more would be in vain.
local may_glance = true

local function plain_kind(key, payload)
  local first = payload:byte()
  if kind_of[first] == nil then
    local kind = request.call('TYPE', key).ok
    kind_of[first] = PLAIN[kind] and kind
  end
  return kind_of[first]
end

-- The type of a source of the wanted type, its weight in bytes and its payload, by as few commands as can tell; adds
-- that weight. Nil for whatever is not as usual: it has not been decided about.
local function glance(wanted, key)
  if not may_glance or expiry.fields_may_expire(key) then return nil end
  local bytes = request.pcall('MEMORY', 'USAGE', key)
  if type(bytes) ~= 'number' or bytes > CAPACITY then
    may_glance = type(bytes) ~= 'table'
    return nil
  end
  budget.spend(bytes)
  -- A key that has expired and not been reaped still has bytes.
  local payload = request.call('DUMP', key)
  local kind = payload and plain_kind(key, payload)
  if kind and (kind == wanted or wanted == 'any') then return kind, bytes, payload end
  may_glance = not payload
end

-- The type of a source of the wanted type, its weight in bytes and its payload. Of the others nil, and the answer.
local function source(wanted, key)
  local kind, bytes, payload = glance(wanted, key)
  if kind then return kind, bytes, payload end
  kind, bytes = batch.wanted_source(wanted, key)
  return kind, bytes, kind and request.call('DUMP', key)
end

local function expires_at(key) return expiry.keys_may_expire() and expiry.at(key) or -1 end

-- What can be said of a key with this type, weight and payload to somebody who has only the other key of its pair.
-- Where its payload is the `known` one, or has that digest: 'equal <expiry>'. Else a list of type, expiry
-- (milliseconds since 1970, -1 for never), digest of the payload and bytes; where the payload is `wanted`, that is
-- behind them, and no digest.
local function describe(key, kind, bytes, payload, known, wanted)
  local at = expires_at(key)
  local digest = (not wanted or known and #known == DIGEST) and redis.sha1hex(payload)
  if known == payload or digest and known == digest then return ('equal %d'):format(at) end
  return { kind, at, not wanted and digest or '', bytes, wanted and payload or nil }
end

-- The same of a key that may be of any type and size; 'missing' where it is not there.
local function describe_any(key, known)
  local kind = request.call('TYPE', key).ok
  local bytes = kind ~= 'none' and budget.spend_key(kind, key)
  return bytes and describe(key, kind, bytes, request.call('DUMP', key), known) or 'missing'
end

-- What came of a key that was given a payload: 'created' where it has that now; where it has another one, behind it
-- the digest of that; 'vanished' where it has expired already. Writes: UNLINK where it cannot be read.
local function judge(key, payload)
  batch.made = key
  local restored = request.call('DUMP', key)
  batch.made = false
  if restored == payload then return 'created' end
  return restored and 'created ' .. redis.sha1hex(restored) or 'vanished'
end

-- Makes the key, in the place of what is there only where `replace` says so, with its expiry: in milliseconds since
-- 1970, '-1' for never. Returns what came of it. Writes: RESTORE.
local function restore(key, payload, at, bytes, replace)
  budget.spend(bytes)
  if replace then
    request.call('RESTORE', key, at == '-1' and 0 or at, payload, 'ABSTTL', 'REPLACE')
  else
    request.call('RESTORE', key, at == '-1' and 0 or at, payload, 'ABSTTL')
  end
  return judge(key, payload)
end

-- The same, but nil where the server refuses, be it because the key is there: it has not been decided about.
local function try_to_restore(key, payload, at, bytes)
  if request.pcall('RESTORE', key, at == '-1' and 0 or at, payload, 'ABSTTL').err then return nil end
  budget.spend(bytes)
  return judge(key, payload)
end

return {
  source = source, describe = describe, describe_any = describe_any, restore = restore,
  try_to_restore = try_to_restore,
}
