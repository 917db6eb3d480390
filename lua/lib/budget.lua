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
local sample = include "lib/sample.lua"

-- For names, which request.pcall would only pass on.
local ask = redis.pcall

local TIME, CAPACITY = tonumber(request.arguments[1]), tonumber(request.arguments[2])

-- The clock is asked again once this much of the capacity has been gone through.
local BYTES_PER_CHECK = CAPACITY / 16

-- What a pair takes whatever its keys weigh.
local LEAST_PAIR = 64

-- Items of a list and entries of a stream can be much smaller than what it takes to compare them.
local LEAST_WEIGHT = { list = 48, stream = 100 }

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

-- The weight of a key whose bytes MEMORY does not tell, or whose bytes are not all that it takes.
local function corrected_weight(kind, key, bytes)
  if not bytes then return false end
  if type(bytes) ~= 'number' then
    memory_is_refused = true
    bytes = sample.weight(key)
    -- More than one script may go through.
    if bytes == nil then bytes = CAPACITY + 1 end
  end
  local least = bytes and LEAST_WEIGHT[kind]
  local length = least and request.pcall(contents.SIZE[kind], key)
  return type(length) == 'number' and math.max(bytes, length * least) or bytes
end

-- Adds a key to what the script goes through: its bytes in memory, by a sample of its elements, or the equivalent
-- in work. Returns that weight, false where the key is not there. A key that would be too much alone is not added:
-- false, and its weight.
local function spend_small(kind, key)
  local bytes = memory_is_refused or (type(key) == 'string' and ask or request.pcall)('MEMORY', 'USAGE', key)
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
