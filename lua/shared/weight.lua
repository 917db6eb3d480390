-- weight.lua: included by the scripts that read keys whole. How much work is a key?

include "shared/pairs.lua"

-- Items of a list and entries of a stream can be much smaller than what it takes to compare them.
local LEAST_WEIGHT = { list = { 'LLEN', 48 }, stream = { 'XLEN', 100 } }

-- What a key weighs: its bytes in memory, by a sample of its elements, or the server's equivalent in
-- work; nil where there is no such key.
local function weigh(kind, key)
  local bytes = redis.call('MEMORY', 'USAGE', key)
  local least = bytes and LEAST_WEIGHT[kind]
  if not least then return bytes or nil end
  local length = redis.pcall(least[1], key)
  return type(length) == 'number' and math.max(bytes, length * least[2]) or bytes
end

-- Adds a key to what the script goes through; the answer for its pair is 'big' where the key alone
-- would be too much. Returns whether the key is there.
local function take_up(kind, key)
  local bytes = weigh(kind, key)
  if not bytes then return false end
  if bytes > CAPACITY then error({ decided = 'big ' .. kind .. ' ' .. bytes }) end
  spend(bytes)
  return true
end
