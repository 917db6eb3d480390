-- weight.lua: included by the scripts that read keys whole. How much work is a key?

include "shared/each.lua"
include "shared/sampling.lua"

-- Items of a list and entries of a stream can be much smaller than what it takes to compare them.
local LEAST_WEIGHT = { list = { 'LLEN', 48 }, stream = { 'XLEN', 100 } }

-- Whether this server, or this user's permissions, keep MEMORY from scripts.
local memory_is_refused = false

-- Adds a key to what the script goes through: its bytes in memory, by a sample of its elements, or the
-- equivalent in work. The answer for its pair is 'big' where the key alone would be too much. Returns
-- that weight, false where the key is not there.
local function take_up(kind, key)
  local bytes = memory_is_refused or redis.pcall('MEMORY', 'USAGE', key)
  if type(bytes) ~= 'number' then
    if not bytes then return false end
    memory_is_refused = true
    bytes = sampled_weight(key, CAPACITY)
    if not bytes then return false end
  end
  local least = LEAST_WEIGHT[kind]
  if least then
    local length = redis.pcall(least[1], key)
    bytes = type(length) == 'number' and math.max(bytes, length * least[2]) or bytes
  end
  if bytes > CAPACITY then error({ decided = 'big ' .. kind .. ' ' .. bytes }) end
  weight = weight + bytes
  return bytes
end
