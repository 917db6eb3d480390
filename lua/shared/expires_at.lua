-- expires_at.lua: included where an expiry is carried from one key to another.

local READINGS = 1000 -- one or two are enough, unless the clock is being moved

local function milliseconds()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- When a key expires: in milliseconds since 1970, -1 for never, -2 where there is no such key.
local function expires_at(key)
  local at = redis.pcall('PEXPIRETIME', key)
  if type(at) == 'number' then return at end
  -- Redis 6.2, where the clock goes on in a script: what was read within one millisecond is exact.
  for _ = 1, READINGS do
    local before, left = milliseconds(), redis.call('PTTL', key)
    if left < 0 then return left end
    if milliseconds() == before then return before + left end
  end
  error('the clock of the server does not stand still for a moment')
end
