-- chunk/publish.lua: gives a finished staging key the name and the expiry of the target.
--
-- KEYS  staging key, target; source, unless that is in another slot; and, where a target that is there is to be
--       replaced, the lease, unless that is in another slot
-- ARGV  1  without a source among KEYS, when it expires: in milliseconds since 1970, -1 for never; else ''
--       2  where a target is to be replaced, what the caller knows of its lease: 'value' or 'until'
--       3  the value that the lease has while it is the caller's; or until when it is, in milliseconds since 1970
--
-- Answers
--   published  the target was absent, or is replaced; it now is what the staging key was, and expires as the source
--   vanished   there is no staging key (any more); nothing was done
--   exists     the target is there, and is not to be replaced; nothing was done
--   gone       there is no source (any more); nothing was done
--   unheld     the lease is not the caller's (any more); nothing was done
--
-- Called between MULTI and EXEC, with source and target watched: what was staged is what is there.
-- The lease is asked here, and not watched: that would fail whenever it is renewed.
-- Writes: UNLINK of a target that is to be replaced; RENAMENX of the staging key; PEXPIREAT or PERSIST of the target,
-- only where that renamed it.

local request = include "lib/request.lua"
local expiry = include "lib/expiry.lua"

local KEYS, ARGV = request.keys, request.arguments
local staging, target = KEYS[1], KEYS[2]
local moment, replaces, lease = tonumber(ARGV[1]), ARGV[2], ARGV[3]

if replaces == 'value' and request.call('GET', KEYS[#KEYS]) ~= lease then return 'unheld' end
if replaces == 'until' and expiry.now() >= tonumber(lease) then return 'unheld' end
local at = moment or expiry.at(KEYS[3])
if at == -2 then return 'gone' end
if request.call('EXISTS', staging) == 0 then return 'vanished' end
-- RENAME would free a big target at once, and hold the server meanwhile.
if replaces then request.call('UNLINK', target) end
if request.call('RENAMENX', staging, target) == 0 then return 'exists' end
if at == -1 then
  request.call('PERSIST', target)
else
  request.call('PEXPIREAT', target, ('%d'):format(at))
end
return 'published'
