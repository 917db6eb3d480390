-- cross_slot/replace.lua: gives targets another value, or deletes them, only while they are what they were.
--
-- KEYS  targets
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3..  for each target in turn: the digest of the payload that it must have, and the expiry (see
--          lib/expiry.lua), in milliseconds since 1970, -1 for never; the payload that it gets, or '' to delete it;
--          the expiry that it gets; its weight in bytes
--
-- Answers for each target what lib/batch.lua says, or a string:
--   created         replaced: it has that payload now
--   created <digest>  the same, but it has a payload with this digest
--   vanished        deleted; or replaced, and expired at once
--   changed         it is not what it was, or not there: not touched
--
-- Writes: RESTORE with REPLACE or UNLINK, of a target with that digest and expiry.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local budget = include "lib/budget.lua"
local expiry = include "lib/expiry.lua"
local payload = include "lib/payload.lua"

local ARGV = request.arguments

return batch.each_key(function(target, i)
  local digest, moment, given, at, bytes = unpack(ARGV, 5 * i - 2, 5 * i + 2)
  budget.spend(tonumber(bytes))
  local present = request.call('DUMP', target)
  if not present or redis.sha1hex(present) ~= digest or expiry.differ(expiry.at(target), tonumber(moment)) then
    return 'changed'
  end
  if given == '' then
    request.call('UNLINK', target)
    return 'vanished'
  end
  return payload.restore(target, given, at, tonumber(bytes), true)
end)
