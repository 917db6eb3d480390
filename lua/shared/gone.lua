-- gone.lua: included where it matters whether a key is still there.

include "shared/expires.lua"

-- A hash whose fields have all expired keeps its name until it is reaped, and Valkey would copy it
-- as an empty hash: to its readers it is gone.
local function is_gone(kind, key)
  if kind == 'none' then return true end
  if kind ~= 'hash' or not anything_expires('fields') then return false end
  local cursor = '0'
  repeat
    local reply = redis.call('HSCAN', key, cursor)
    if #reply[2] > 0 then return false end
    cursor = reply[1]
  until cursor == '0'
  return true
end
