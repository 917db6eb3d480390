-- pick.lua: reads what a big source holds of some names, for a target in another slot that lacks them. Reads
-- only; runs under EVALSHA_RO.
--
-- KEYS  source
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3  its type: hash, set or zset
--       4..  the names: of fields or members
--
-- Answers a list: how many of the names have been looked at, fewer than given where the time was spent;
-- microseconds taken; and for each that the source (still) has: the name, its value, and the moment at which it
-- expires in milliseconds since 1970, -1 for never.

include "shared/pause.lua"
include "shared/taking.lua"
include "shared/name_weight.lua"

local kind, done, answer = ARGV[3], 0, {}
for i = 4, #ARGV do
  if done > 0 and is_spent() then break end
  local value, at = TAKE[kind](KEYS[1], ARGV[i])
  if value then
    for _, part in ipairs({ ARGV[i], kind == 'set' and '' or value, at or -1 }) do answer[#answer + 1] = part end
  end
  weight = weight + LEAST_NAME + #ARGV[i]
  done = done + 1
end
return { done, time_taken(), unpack(answer) }
