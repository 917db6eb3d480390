-- chunk/read_fields.lua: reads what a large source has of some names, for a target in another slot that lacks them.
-- Reads only; runs under EVALSHA_RO.
--
-- KEYS  source
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  its type: hash, set or zset
--       4..  the names: of fields or members
--
-- Answers a list: how many of the names have been asked for, fewer than given where the time was spent;
-- microseconds taken; and for each that the source (still) has: the name, its value, and the moment at which it
-- expires in milliseconds since 1970, -1 for never.

local request = include "lib/request.lua"
local budget = include "lib/budget.lua"
local fill = include "lib/fill.lua"

local KEYS, ARGV = request.keys, request.arguments
local kind, done, answer = ARGV[3], 0, {}
for i = 4, #ARGV do
  if done > 0 and budget.is_spent() then break end
  local value, at = fill.take(kind, KEYS[1], ARGV[i])
  if value then
    for _, text in ipairs({ ARGV[i], value, at }) do answer[#answer + 1] = text end
  end
  budget.spend(fill.LEAST_NAME + #ARGV[i])
  done = done + 1
end
return { done, request.time_taken(), unpack(answer) }
