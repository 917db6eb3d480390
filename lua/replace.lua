-- replace.lua: gives targets another value, or deletes them, only while they are what they were.
--
-- KEYS  targets
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3..  for each target in turn: the digest of the payload that it must have, and the expiry (see
--          shared/apart.lua), in milliseconds since 1970, -1 for never; the payload that it gets, or '' to delete it;
--          the expiry that it gets; its weight in bytes
--
-- Answers for each target, in the order of KEYS (see shared/each.lua: behind the last answer, the
-- microseconds taken; fewer answers where the time was spent), a string:
--   created <digest>  replaced; this is the digest of the payload it has now
--   vanished        deleted; or replaced, and expired at once
--   changed         it is not what it was, or not there: not touched
--   moved           it lives on another node now, or is on its way there
--   failed <text>   the server refused, in its own words; the other targets are not affected
--
-- Writes: RESTORE with REPLACE or UNLINK, of a target with that digest and expiry.

include "shared/each.lua"
include "shared/apart.lua"
include "shared/expires_at.lua"
include "shared/restoring.lua"

return answer_each(1, function(i)
  local target = KEYS[i]
  local digest, expiry, payload, at, bytes = unpack(ARGV, 5 * i - 2, 5 * i + 2)
  weight = weight + tonumber(bytes)
  local there = redis.call('DUMP', target)
  if not there or redis.sha1hex(there) ~= digest or apart(expires_at(target), tonumber(expiry)) then
    return 'changed'
  end
  if payload == '' then
    redis.call('UNLINK', target)
    return 'vanished'
  end
  local restored = restore(target, payload, at, tonumber(bytes), true)
  return restored and 'created ' .. restored or 'vanished'
end)
