-- lib/budget.lua: for how long the script may keep the server from others.
--
-- A script stops when its time is spent, by a clock, or when the keys that it has gone through weigh as much as
-- takes that time by experience. Both are needed: on Redis 7.2 and Valkey 7.2 no clock moves in a script, and
-- elsewhere it may be processor time, which stands still while others have the machine.
--
-- ARGV  1  the time that the script may take, in microseconds
--       2  the weight, in bytes, that it may go through in that time; a key that weighs more is not touched

local request = include "lib/request.lua"
local contents = include "lib/contents.lua"

local TIME, CAPACITY = tonumber(request.arguments[1]), tonumber(request.arguments[2])

-- The clock is asked again once this much of the capacity has been gone through.
local BYTES_PER_CHECK = CAPACITY / 16

-- What a pair takes whatever its keys weigh.
local LEAST_PAIR = 64

-- Items of a list and entries of a stream can be much smaller than what it takes to compare them.
local LEAST_WEIGHT = { list = 48, stream = 100 }

-- As many elements as MEMORY USAGE samples, and what each takes beside its bytes.
local SAMPLED, LEAST_SAMPLED = 5, 64

-- The weight of what the script has gone through; and from which weight on the clock is to be asked.
local weight, next_check = 0, BYTES_PER_CHECK

-- Whether this server, or this user's permissions, keep MEMORY from scripts.
local memory_is_refused = false

-- Adds work to what the script has gone through.
local function spend(bytes) weight = weight + bytes end

-- Whether the script has to stop.
local function is_spent()
  if weight >= CAPACITY then return true end
  if weight < next_check then return false end
  next_check = weight + BYTES_PER_CHECK
  return request.time_taken() >= TIME
end

-- Whether there is time for the pair that begins with the i-th key, as there always is for the first; adds it then.
local function begin_pair(i)
  if weight >= next_check and i > 1 and is_spent() then return false end
  weight = weight + LEAST_PAIR
  return true
end

-- The bytes of some elements of a key, and how many elements those are.
local function sample(kind, key)
  local elements = {}
  if kind == 'stream' then
    for i, entry in ipairs(redis.call('XRANGE', key, '-', '+', 'COUNT', SAMPLED)) do
      elements[i] = table.concat(entry[2] or {}, (' '):rep(LEAST_SAMPLED))
    end
  else
    elements = select(2, contents.read(kind, key, '0', SAMPLED))
  end
  local bytes = 0
  for _, element in ipairs(elements) do bytes = bytes + #element + LEAST_SAMPLED end
  return bytes, #elements / (contents.WIDTH[kind] or 1)
end

-- How many entries wait for the consumers of a stream's groups, whether or not they are still in it.
local function pending_entries(key)
  local pending = 0
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    for i = 1, #group, 2 do
      if group[i] == 'pending' then pending = pending + group[i + 1] end
    end
  end
  return pending
end

-- The bytes that a key takes, by a few of its elements; false where it is not there. What a module's type takes
-- nobody can tell: more than one script may go through.
local function sampled_weight(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return false end
  if not contents.SIZE[kind] then return CAPACITY + 1 end
  if kind == 'string' then return redis.call('STRLEN', key) + LEAST_SAMPLED end
  local bytes, count = sample(kind, key)
  local pending = kind == 'stream' and pending_entries(key) or 0
  return LEAST_SAMPLED * (1 + pending) + math.floor(bytes * contents.size(kind, key) / math.max(1, count))
end

-- The weight of a key whose bytes MEMORY does not tell, or whose bytes are not all that it takes.
local function corrected_weight(kind, key, bytes)
  if not bytes then return false end
  if type(bytes) ~= 'number' then
    memory_is_refused = true
    bytes = sampled_weight(key)
  end
  local least = bytes and LEAST_WEIGHT[kind]
  local length = least and redis.pcall(contents.SIZE[kind], key)
  return type(length) == 'number' and math.max(bytes, length * least) or bytes
end

-- Adds a key to what the script goes through: its bytes in memory, by a sample of its elements, or the equivalent
-- in work. Returns that weight, false where the key is not there. A key that would be too much alone is not added:
-- false, and its weight.
local function spend_small(kind, key)
  local bytes = memory_is_refused or redis.pcall('MEMORY', 'USAGE', key)
  if type(bytes) ~= 'number' or LEAST_WEIGHT[kind] then bytes = corrected_weight(kind, key, bytes) end
  if not bytes or bytes > CAPACITY then return false, bytes end
  weight = weight + bytes
  return bytes
end

-- The same, but where the key alone would be too much, the decision under way ends with 'big' (see lib/batch.lua).
local function spend_key(kind, key)
  local bytes, too_many = spend_small(kind, key)
  if too_many then error({ decided = 'big ' .. kind .. ' ' .. too_many }) end
  return bytes
end

return { spend = spend, spend_small = spend_small, spend_key = spend_key, is_spent = is_spent, begin_pair = begin_pair }
