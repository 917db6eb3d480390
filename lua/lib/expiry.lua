-- lib/expiry.lua: when keys and fields expire, and all that is decided about it.
--
-- An expiry is a moment in milliseconds since 1970, or milliseconds left: of one kind on both sides, by the server's
-- clock. Below zero is never. The server expires nothing while a script runs, yet on Redis 6.2 and 7.0 PTTL
-- goes on counting and stops at zero: which moment that was cannot be told any more.

local request = include "lib/request.lua"

-- Between two writes of one EXPIRE some milliseconds pass. Below this, two expiries are the same.
local TOLERANCE_MS = 1000

local READINGS = 1000 -- one or two are enough, unless the clock is being moved
local FIELDS_PER_CALL = 1000 -- unpack() gives up at 8,000 values

local keyspace, keys_may, fields_may

-- What INFO tells of expiries; '' where a careful user may not call it.
local function keyspace_facts()
  if not keyspace then
    keyspace = request.pcall('INFO', 'keyspace')
    if type(keyspace) ~= 'string' then keyspace = '' end
  end
  return keyspace
end

-- Whether any key of this server expires at all. Asking each key costs a good deal of what comparing it costs; this
-- asks once for the script. A server that leaves a number out of INFO has not said that it is 0.
local function keys_may_expire()
  if keys_may == nil then
    local facts = keyspace_facts()
    keys_may = not facts:find('expires=%d') or facts:find('expires=[1-9]') ~= nil
  end
  return keys_may
end

-- Whether any field of a hash expires at all (Redis 7.4+, Valkey 9+), asked once for the script; of this key where
-- INFO does not tell: then only a server without the command is without them.
local function fields_may_expire(key)
  if fields_may == nil then
    local facts = keyspace_facts()
    if facts:find('subexpiry=%d') or facts:find('keys_with_volatile_items=%d') then
      fields_may = facts:find('subexpiry=[1-9]') ~= nil or facts:find('keys_with_volatile_items=[1-9]') ~= nil
    else
      local answer = request.pcall('HPEXPIRETIME', key, 'FIELDS', 1, '')
      fields_may = not (answer.err and answer.err:lower():find('unknown', 1, true))
    end
  end
  return fields_may
end

-- Whether a key of this type is there for nobody. A hash whose fields have all expired keeps its name until it is
-- reaped, and Valkey would copy it as an empty hash.
local function is_gone(kind, key)
  if kind == 'none' then return true end
  if kind ~= 'hash' or not fields_may_expire(key) then return false end
  local cursor = '0'
  repeat
    local reply = request.call('HSCAN', key, cursor)
    if #reply[2] > 0 then return false end
    cursor = reply[1]
  until cursor == '0'
  return true
end

-- The server's time, in milliseconds since 1970.
local function now()
  local time = request.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- When a key expires: in milliseconds since 1970, -1 for never, -2 where there is no such key.
local function at(key)
  local moment = request.pcall('PEXPIRETIME', key)
  if type(moment) == 'number' then return moment end
  -- Redis 6.2, where the clock goes on in a script: what was read within one millisecond is exact.
  for _ = 1, READINGS do
    local before, left = now(), request.call('PTTL', key)
    if left < 0 then return left end
    if now() == before then return before + left end
  end
  error('the clock of the server does not stand still for a moment')
end

-- Calls visit(field, a, b, i) for each of the fields with the moments at which it expires in two hashes: in
-- milliseconds since 1970, -1 for never, -2 where there is no such field.
local function each_field(fields, one, other, visit)
  for first = 1, #fields, FIELDS_PER_CALL do
    local last = math.min(first + FIELDS_PER_CALL - 1, #fields)
    local count = last - first + 1
    local a = request.call('HPEXPIRETIME', one, 'FIELDS', count, unpack(fields, first, last))
    local b = one == other and a or request.call('HPEXPIRETIME', other, 'FIELDS', count, unpack(fields, first, last))
    -- On a key that is not there, Redis answers with nothing instead of a list.
    for i = 1, count do visit(fields[first + i - 1], a and a[i] or -2, b and b[i] or -2, first + i - 1) end
  end
end

-- Whether two expiries are not the same.
local function differ(a, b)
  return a == 0 or b == 0 or (a < 0) ~= (b < 0) or math.abs(a - b) > TOLERANCE_MS
end

-- The same, by the millisecond: both are moments.
local function differ_at_all(a, b) return a ~= b end

-- Whether what expires at a is there at least until b.
local function outlives(a, b) return a < 0 or (b >= 0 and a > 0 and a >= b) end

return {
  keys_may_expire = keys_may_expire, fields_may_expire = fields_may_expire, is_gone = is_gone, now = now, at = at,
  each_field = each_field, differ = differ, differ_at_all = differ_at_all, outlives = outlives,
}
