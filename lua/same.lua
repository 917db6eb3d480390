-- same.lua: included by the scripts that compare. Do two keys hold the same value?

-- The server expires nothing while a script runs, yet on Redis 6.2 and 7.0 PTTL goes on counting;
-- and two writes of one EXPIRE are some milliseconds apart. Below this, two expiries are the same.
local EXPIRY_TOLERANCE_MS = 1000

local FIELDS_PER_CALL = 1000 -- unpack() gives up at 8,000 values

-- Whether any hash of this server may have fields with an expiry of their own (Redis 7.4+,
-- Valkey 9+). Asking each hash costs as much as comparing it; this asks once for the script.
local function fields_may_expire()
  local keyspace = redis.pcall('INFO', 'keyspace')
  if type(keyspace) == 'string' then
    return keyspace:find('subexpiry=[1-9]') ~= nil
      or keyspace:find('keys_with_volatile_items=[1-9]') ~= nil
  end
  -- A careful user may not call INFO. Then only a server without the command is without them.
  local answer = redis.pcall('HPEXPIRETIME', KEYS[1], 'FIELDS', 1, '')
  return not (answer.err and answer.err:find('Unknown'))
end

local hash_fields_may_expire

-- A hash whose fields have all expired keeps its name until it is reaped, and Valkey would copy it
-- as an empty hash: to its readers it is gone.
local function is_gone(kind, key)
  if kind == 'none' then return true end
  if kind ~= 'hash' then return false end
  if hash_fields_may_expire == nil then hash_fields_may_expire = fields_may_expire() end
  return hash_fields_may_expire and #redis.call('HGETALL', key) == 0
end

-- The elements of a key in one flat list, and how many entries of the list make one element.
local function read(kind, key)
  if kind == 'hash' then return redis.call('HGETALL', key), 2 end
  if kind == 'zset' then return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES'), 2 end
  return redis.call('SMEMBERS', key), 1
end

local function lists_equal(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

-- 'same', 'partial' (the target agrees in all it has and lacks some) or 'differs'.
local function compare_values(kind, source, target)
  local wanted, width = read(kind, source)
  local found = read(kind, target)
  -- A copy mostly keeps the order of its source; only where it does not is a map worth its price.
  if lists_equal(wanted, found) then return 'same' end
  local value_of = {}
  for i = 1, #wanted, width do value_of[wanted[i]] = wanted[i + width - 1] end
  for i = 1, #found, width do
    if value_of[found[i]] ~= found[i + width - 1] then return 'differs' end
  end
  return #found < #wanted and 'partial' or 'same'
end

-- Both in milliseconds, below zero for none.
local function expiries_differ(a, b)
  return (a < 0) ~= (b < 0) or math.abs(a - b) > EXPIRY_TOLERANCE_MS
end

local function field_expiries_differ(source, target)
  local elements, fields = read('hash', source), {}
  for i = 1, #elements, 2 do fields[#fields + 1] = elements[i] end
  for first = 1, #fields, FIELDS_PER_CALL do
    local last = math.min(first + FIELDS_PER_CALL - 1, #fields)
    local count = last - first + 1
    local a = redis.call('HPEXPIRETIME', source, 'FIELDS', count, unpack(fields, first, last))
    local b = redis.call('HPEXPIRETIME', target, 'FIELDS', count, unpack(fields, first, last))
    for i = 1, count do
      if expiries_differ(a[i], b[i]) then return true end
    end
  end
  return false
end

-- How a target stands to a source of the given type: 'same', 'expiry' (equal in value, but the key
-- or a field expires at another time), 'partial' or 'differs'. Call is_gone on the source first.
local function compare(kind, source, target, ignore_expiry)
  if redis.call('TYPE', target).ok ~= kind then return 'differs' end
  local word = compare_values(kind, source, target)
  if word ~= 'same' or ignore_expiry then return word end
  if expiries_differ(redis.call('PTTL', source), redis.call('PTTL', target)) then return 'expiry' end
  if kind == 'hash' and hash_fields_may_expire and field_expiries_differ(source, target) then
    return 'expiry'
  end
  return 'same'
end
