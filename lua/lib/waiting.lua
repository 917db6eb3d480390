-- lib/waiting.lua: clients that wait for something, and would be handed it as soon as it is there.

local request = include "lib/request.lua"

local WAITED_ON = { list = true, zset = true, stream = true }

-- Whether a key of this type that is written may be taken from: more clients than `may_wait`, nil for any number, wait.
local function is_waited_on(kind, may_wait)
  if not may_wait or not WAITED_ON[kind] then return false end
  return tonumber(request.call('INFO', 'clients'):match('blocked_clients:(%d+)')) > may_wait
end

return { is_waited_on = is_waited_on }
