-- publish.lua: gives a finished staging key the name and the expiry of the target.
--
-- KEYS  source, staging key, target
-- ARGV  none
--
-- Answers
--   published  the target was absent; it now is what the staging key was, and expires as the source
--   vanished   there is no staging key (any more); nothing was done
--   exists     the target is there; nothing was done
--   gone       there is no source (any more); nothing was done
--
-- Called between MULTI and EXEC, with source and target watched: what was staged is what is there.
-- Writes: RENAMENX of the staging key; PEXPIREAT or PERSIST of the target, only where that renamed it.

local source, staging, target = KEYS[1], KEYS[2], KEYS[3]

-- In milliseconds since 1970, -1 for never, -2 where there is no source.
local function expiry()
  local at = redis.pcall('PEXPIRETIME', source)
  if type(at) == 'number' then return at end
  -- Redis 6.2. The time first: then an expiry is at most too early, by what passes between the two.
  local now = redis.pcall('TIME')
  if now.err then return now end
  local left = redis.call('PTTL', source)
  return left < 0 and left or now[1] * 1000 + math.floor(now[2] / 1000) + left
end

local at = expiry()
if at == -2 then return 'gone' end
if type(at) == 'table' then return at end
if redis.call('EXISTS', staging) == 0 then return 'vanished' end
if redis.call('RENAMENX', staging, target) == 0 then return 'exists' end
if at == -1 then
  redis.call('PERSIST', target)
else
  redis.call('PEXPIREAT', target, ('%d'):format(at))
end
return 'published'
