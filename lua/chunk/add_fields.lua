-- chunk/add_fields.lua: adds names to a large target that two checks, some seconds between them, found it to lack.
--
-- KEYS  target, source; no source where that is in another slot
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  the type of both: hash, set or zset
--       4..  the names: of fields or members; without a source what chunk/read_fields.lua answers of them: name,
--          value and moment in turn
--
-- Answers a list: how many of the names have been tried, fewer than given where the time was spent;
-- microseconds taken. Or a string:
--   vanished  the target is not there (any more): it is not made again
--
-- Writes: what lib/fill.lua does, for names that the target still lacks and the source still has.

local request = include "lib/request.lua"
local budget = include "lib/budget.lua"
local fill = include "lib/fill.lua"

local KEYS, ARGV = request.keys, request.arguments
local target, source, kind, done = KEYS[1], KEYS[2], ARGV[3], 0
if request.call('EXISTS', target) == 0 then return 'vanished' end
for i = 4, #ARGV, source and 1 or 3 do
  if done > 0 and budget.is_spent() then break end
  if source then
    fill.add_from(kind, source, target, ARGV[i])
  else
    fill.add(kind, target, ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]))
  end
  budget.spend(fill.LEAST_NAME + #ARGV[i])
  done = done + 1
end
return { done, request.time_taken() }
