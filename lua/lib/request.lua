-- lib/request.lua: what this call of the script was given, and when it began.
--
-- On a single server the keys are declared, in KEYS. In a cluster the keys of a batch belong to many slots, which
-- KEYS must not; so they stand in front of the other arguments: 'names', how many, the names. The server checks
-- each inner command by itself and lets no key through that lives on another node.

local keys, arguments = KEYS, ARGV
if ARGV[1] == 'names' then
  local count = tonumber(ARGV[2])
  keys, arguments = {}, {}
  for i = 1, count do keys[i] = ARGV[i + 2] end
  for i = count + 3, #ARGV do arguments[i - count - 2] = ARGV[i] end
end

local clock = rawget(_G, 'os') and os.clock

-- Processor time where the server lends its clock (Redis 7.4+, Valkey 8+), else the time of day.
local function microseconds()
  if clock then return clock() * 1e6 end
  local now = redis.pcall('TIME')
  return now.err and 0 or now[1] * 1e6 + now[2]
end

local began = microseconds()

-- The time taken so far, in whole microseconds; 0 where no clock moves.
local function time_taken() return math.floor(microseconds() - began) end

return { keys = keys, arguments = arguments, time_taken = time_taken }
