-- cross_slot/create.lua: makes targets of the payloads of sources that live in other slots, where there is none.
--
-- KEYS  targets
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3..  for each target in turn: the payload, or '' to make none; its expiry in milliseconds since 1970,
--          -1 for never; its weight in bytes
--
-- Answers for each target what lib/batch.lua says, or a string:
--   created         the target was absent, and has that payload now
--   created <digest>  the same, but it has a payload with this digest
--   vanished        the same, but it has expired at once
--   missing         there is no target, and none was to be made
-- or, of a target that was there, what cross_slot/read.lua answers without ARGV 4: `equal` where it has that payload.
--
-- Writes: what restore() in lib/payload.lua does, without REPLACE.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local payload = include "lib/payload.lua"

local ARGV = request.arguments

-- Whether no target has been there so far: then it costs less to try than to ask.
local may_try = true

return batch.each_key(function(target, i)
  local given, at, bytes = ARGV[3 * i], ARGV[3 * i + 1], tonumber(ARGV[3 * i + 2])
  local made = may_try and given ~= '' and payload.try_to_restore(target, given, at, bytes)
  if made then return made end
  may_try = false
  -- A server out of memory refuses RESTORE unseen, even where it would not have written.
  local found = payload.describe_any(target, given)
  if found ~= 'missing' or given == '' then return found end
  return payload.restore(target, given, at, bytes)
end)
