-- expiries.lua: included by same.lua. Do two keys, and the fields of two hashes, expire together?
--
-- The server expires nothing while a script runs, yet on Redis 6.2 and 7.0 PTTL goes on counting.

include "shared/gone.lua"
include "shared/values.lua"

-- Two writes of one EXPIRE are some milliseconds apart. Below this, two expiries are the same.
local EXPIRY_TOLERANCE_MS = 1000

local FIELDS_PER_CALL = 1000 -- unpack() gives up at 8,000 values

-- Calls visit(field, a, b) for each field of the source with the moments at which the source's and
-- the target's field expire: in milliseconds since 1970, -1 for never, -2 where there is no such
-- field.
local function each_field_expiry(source, target, visit)
  local fields = redis.call('HKEYS', source)
  for first = 1, #fields, FIELDS_PER_CALL do
    local last = math.min(first + FIELDS_PER_CALL - 1, #fields)
    local count = last - first + 1
    local a = redis.call('HPEXPIRETIME', source, 'FIELDS', count, unpack(fields, first, last))
    local b = redis.call('HPEXPIRETIME', target, 'FIELDS', count, unpack(fields, first, last))
    -- On a key that is not there, Redis answers with nothing instead of a list.
    for i = 1, count do visit(fields[first + i - 1], a[i], b and b[i] or -2) end
  end
end

-- Both in milliseconds, below zero for none. Zero is a moment that has passed while the script ran:
-- which one cannot be told any more.
local function apart(a, b)
  return a == 0 or b == 0 or (a < 0) ~= (b < 0) or math.abs(a - b) > EXPIRY_TOLERANCE_MS
end

local function keys_expire_apart(source, target)
  return anything_expires('keys') and apart(redis.call('PTTL', source), redis.call('PTTL', target))
end

-- In milliseconds, false for none.
local function note_ttls(notes, source, target)
  local a, b = redis.call('PTTL', source), redis.call('PTTL', target)
  note(notes, 'source_ttl_ms', a >= 0 and a)
  note(notes, 'target_ttl_ms', b >= 0 and b)
end

-- Adds to the notes how the expiries of two keys of one kind differ; returns whether they do.
local function note_expiries(notes, kind, source, target)
  local differ = false
  if keys_expire_apart(source, target) then
    differ = true
    note_ttls(notes, source, target)
  end
  if kind == 'hash' and anything_expires('fields') then
    local fields = {}
    each_field_expiry(source, target, function(field, a, b)
      if b ~= -2 and apart(a, b) then fields[#fields + 1] = field end
    end)
    if #fields > 0 then
      differ = true
      note_names(notes, 'expiring_apart', fields)
    end
  end
  return differ
end
