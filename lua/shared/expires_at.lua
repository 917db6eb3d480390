-- expires_at.lua: included where an expiry is carried from one key to another.

-- When a key expires: in milliseconds since 1970, -1 for never, -2 where there is no such key.
local function expires_at(key)
  local at = redis.pcall('PEXPIRETIME', key)
  if type(at) == 'number' then return at end
  -- Redis 6.2. The time first: then an expiry is at most too early, by what passes between the two.
  local now = redis.call('TIME')
  local left = redis.call('PTTL', key)
  return left < 0 and left or now[1] * 1000 + math.floor(now[2] / 1000) + left
end
