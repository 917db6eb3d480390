-- pause.lua: included by every script that works through keys. How long may it hold the server?
--
-- A script stops when its time is spent, by a clock, or when the keys that it has gone through weigh
-- as much as takes that time by experience. Both are needed: on Redis 7.2 and Valkey 7.2 no clock moves
-- in a script, and elsewhere it may be processor time, which stands still while others have the machine.
--
-- ARGV  1  the time that the script may take, in microseconds
--       2  the weight, in bytes, that it may go through in that time; a key that weighs more is not
--          touched

include "shared/names.lua"
include "shared/clock.lua"

local BUDGET, CAPACITY = tonumber(ARGV[1]), tonumber(ARGV[2])

-- The clock is asked again once this part of the capacity has been gone through.
local BYTES_PER_LOOK = CAPACITY / 16

-- The weight of what the script has gone through, to which everybody adds; and from which weight on it
-- is time to ask is_spent().
local weight, next_look = 0, BYTES_PER_LOOK

-- Whether the script has to stop.
local function is_spent()
  if weight >= CAPACITY then return true end
  if weight < next_look then return false end
  next_look = weight + BYTES_PER_LOOK
  return microseconds() - began >= BUDGET
end
