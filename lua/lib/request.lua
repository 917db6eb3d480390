-- lib/request.lua: what this call of the script was given, when it began, and how it calls commands of the server.
--
-- On a single server the keys are declared, in KEYS. In a cluster the keys of a batch belong to many slots, which
-- KEYS must not; so they stand in front of the other arguments: 'names', how many, the names. The server checks
-- each inner command by itself and lets no key through that lives on another node.
--
-- Where the keys lie in several databases, their numbers stand in front of the other arguments: 'databases', how
-- many, the numbers, by turns. What stands for a key is then what lib/databases.lua says, which only call and pcall
-- below take for it; `enter` selects its database, for commands about `names`.

local databases = include "lib/databases.lua"

local keys, arguments, call, try, enter = KEYS, ARGV, redis.call, redis.pcall, nil

-- Takes the list that stands in front of the other arguments.
local function take_list()
  local list, count = {}, tonumber(ARGV[2])
  for i = 1, count do list[i] = ARGV[i + 2] end
  arguments = {}
  for i = count + 3, #ARGV do arguments[i - count - 2] = ARGV[i] end
  return list
end

if ARGV[1] == 'names' then
  keys = take_list()
elseif ARGV[1] == 'databases' then
  keys, call, try, enter = databases.begin(KEYS, take_list())
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

return {
  keys = keys, names = KEYS, arguments = arguments, call = call, pcall = try, enter = enter, time_taken = time_taken,
}
