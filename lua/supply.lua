-- supply.lua: adds names to a big target that two looks, some time apart, found it to lack.
--
-- KEYS  target, source; no source where that is in another slot
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3  the type of both: hash, set or zset
--       4..  the names: of fields or members; without a source what pick.lua answers of them: name, value and
--          moment in turn
--
-- Answers a list: how many of the names have been looked at, fewer than given where the time was
-- spent; microseconds taken. Or 'vanished' where the target is not there (any more): it is not made
-- again.
--
-- Writes: what shared/adding.lua does, for names that the target still lacks and the source still has.

include "shared/pause.lua"
include "shared/from.lua"
include "shared/name_weight.lua"

local target, source, kind, done = KEYS[1], KEYS[2], ARGV[3], 0
if redis.call('EXISTS', target) == 0 then return 'vanished' end
for i = 4, #ARGV, source and 1 or 3 do
  if done > 0 and is_spent() then break end
  if source then
    add_from(kind, source, target, ARGV[i])
  else
    ADD[kind](target, ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]))
  end
  weight = weight + LEAST_NAME + #ARGV[i]
  done = done + 1
end
return { done, time_taken() }
