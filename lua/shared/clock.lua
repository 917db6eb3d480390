-- clock.lua: included by every script that says how long it took.

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
