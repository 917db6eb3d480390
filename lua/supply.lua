-- supply.lua: adds names to a big target that two looks, some time apart, found it to lack.
--
-- KEYS  source, target
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3  the type of both: hash, set or zset
--       4..  the names: of fields or members
--
-- Answers a list: how many of the names have been looked at, fewer than given where the time was
-- spent; microseconds taken. Or 'vanished' where the target is not there (any more): it is not made
-- again.
--
-- Writes: what shared/adding.lua does, for names that the target still lacks and the source still has.

include "shared/pause.lua"
include "shared/adding.lua"
include "shared/taking.lua"

-- What a name weighs: its values are few and small, or the pair would not be filled but copied.
local LEAST_NAME = 512

local kind, done = ARGV[3], 0
if redis.call('EXISTS', KEYS[2]) == 0 then return 'vanished' end
for i = 4, #ARGV do
  if done > 0 and is_spent() then break end
  add_from(kind, KEYS[1], KEYS[2], ARGV[i])
  weight = weight + LEAST_NAME + #ARGV[i]
  done = done + 1
end
return { done, time_taken() }
