-- apart.lua: included where expiries are compared. Do two things expire together?
--
-- The server expires nothing while a script runs, yet on Redis 6.2 and 7.0 PTTL goes on counting.

-- Two writes of one EXPIRE are some milliseconds apart. Below this, two expiries are the same.
local EXPIRY_TOLERANCE_MS = 1000

-- Both in milliseconds, below zero for none. Zero is a moment that has passed while the script ran:
-- which one cannot be told any more.
local function apart(a, b)
  return a == 0 or b == 0 or (a < 0) ~= (b < 0) or math.abs(a - b) > EXPIRY_TOLERANCE_MS
end
