-- create.lua: makes targets of the payloads of sources that live in other slots, where there is none.
--
-- KEYS  targets
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3..  for each target in turn: the payload, or '' to make none; its expiry in milliseconds since 1970,
--          -1 for never; its weight in bytes
--
-- Answers for each target, in the order of KEYS (see shared/each.lua: behind the last answer, the
-- microseconds taken; fewer answers where the time was spent), a string:
--   created <digest>  the target was absent; this is the digest of the payload it has now
--   vanished        the same, but it has expired at once
--   missing         there is no target, and none was to be made
--   big <type> <bytes>  a target is there that would take too long: not touched
--   moved           it lives on another node now, or is on its way there
--   failed <text>   the server refused, in its own words; the other targets are not affected
-- or, of a target that was there, the list that read.lua answers.
--
-- Writes: what shared/restoring.lua does, without REPLACE.

include "shared/there.lua"
include "shared/restoring.lua"

return answer_each(1, function(i)
  local target, payload, at, bytes = KEYS[i], ARGV[3 * i], ARGV[3 * i + 1], tonumber(ARGV[3 * i + 2])
  -- A server out of memory refuses RESTORE unseen, even where it would not have written.
  local found = state_of_any(target)
  if found ~= 'missing' or payload == '' then return found end
  local digest = restore(target, payload, at, bytes)
  return digest and 'created ' .. digest or 'vanished'
end)
