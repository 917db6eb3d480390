-- replace.lua: gives targets another value, or deletes them, only while they are what they were.
--
-- KEYS  targets
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3..  for each target in turn: the digest of the payload that it must have; the payload that it gets, or
--          '' to delete it; its expiry in milliseconds since 1970, -1 for never; its weight in bytes
--
-- Answers for each target, in the order of KEYS (see shared/each.lua: behind the last answer, the
-- microseconds taken; fewer answers where the time was spent), a string:
--   created <digest>  replaced; this is the digest of the payload it has now
--   vanished        deleted; or replaced, and expired at once
--   changed         it is not what it was, or not there: not touched
--   moved           it lives on another node now, or is on its way there
--   failed <text>   the server refused, in its own words; the other targets are not affected
--
-- Writes: RESTORE with REPLACE or UNLINK, of a target with that digest.

include "shared/each.lua"
include "shared/restoring.lua"

return answer_each(1, function(i)
  local target = KEYS[i]
  local digest, payload, at, bytes = ARGV[4 * i - 1], ARGV[4 * i], ARGV[4 * i + 1], tonumber(ARGV[4 * i + 2])
  weight = weight + bytes
  local there = redis.call('DUMP', target)
  if not there or redis.sha1hex(there) ~= digest then return 'changed' end
  if payload == '' then
    redis.call('UNLINK', target)
    return 'vanished'
  end
  local made = restore(target, payload, at, bytes, true)
  return made and 'created ' .. made or 'vanished'
end)
