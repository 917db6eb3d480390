-- apart.lua: included where expiries are compared: the one place that says whether two of them are one.
--
-- An expiry is a moment in milliseconds since 1970, or milliseconds left: of one kind on both sides, by the server's
-- clock. Below zero is never. The server expires nothing while a script runs, yet on Redis 6.2 and 7.0 PTTL
-- goes on counting and stops at zero: which moment that was cannot be told any more.

-- Two writes of one EXPIRE are some milliseconds apart. Below this, two expiries are the same.
local EXPIRY_TOLERANCE_MS = 1000

-- Whether two things expire at different times.
local function apart(a, b)
  return a == 0 or b == 0 or (a < 0) ~= (b < 0) or math.abs(a - b) > EXPIRY_TOLERANCE_MS
end
