-- chunk/publish.lua: gives a finished staging key the name and the expiry of the target.
--
-- KEYS  staging key, target, source; no source where that is in another slot
-- ARGV  1  without a source among KEYS, when it expires: in milliseconds since 1970, -1 for never
--
-- Answers
--   published  the target was absent; it now is what the staging key was, and expires as the source
--   vanished   there is no staging key (any more); nothing was done
--   exists     the target is there; nothing was done
--   gone       there is no source (any more); nothing was done
--
-- Called between MULTI and EXEC, with source and target watched: what was staged is what is there.
-- Writes: RENAMENX of the staging key; PEXPIREAT or PERSIST of the target, only where that renamed it.

local request = include "lib/request.lua"
local expiry = include "lib/expiry.lua"

local staging, target, source = unpack(request.keys)

local at = source and expiry.at(source) or tonumber(request.arguments[1])
if at == -2 then return 'gone' end
if request.call('EXISTS', staging) == 0 then return 'vanished' end
if request.call('RENAMENX', staging, target) == 0 then return 'exists' end
if at == -1 then
  request.call('PERSIST', target)
else
  request.call('PEXPIREAT', target, ('%d'):format(at))
end
return 'published'
