-- expires.lua: included where it matters whether anything expires at all.

local may_expire

-- Whether any key of this server (what = 'keys') or any field of a hash ('fields': Redis 7.4+,
-- Valkey 9+) expires at all. Asking each key costs a part of what comparing it costs; this asks
-- once for the script. A server that leaves a number out of INFO has not said that it is 0.
local function anything_expires(what)
  if not may_expire then
    local keyspace = redis.pcall('INFO', 'keyspace')
    -- A careful user may not call it.
    if type(keyspace) ~= 'string' then keyspace = '' end
    may_expire = {
      keys = not keyspace:find('expires=%d') or keyspace:find('expires=[1-9]') ~= nil,
      fields = keyspace:find('subexpiry=[1-9]') ~= nil
        or keyspace:find('keys_with_volatile_items=[1-9]') ~= nil,
    }
    if not (keyspace:find('subexpiry=%d') or keyspace:find('keys_with_volatile_items=%d')) then
      -- Then only a server without the command is without them.
      local answer = redis.pcall('HPEXPIRETIME', KEYS[1], 'FIELDS', 1, '')
      may_expire.fields = not (answer.err and answer.err:lower():find('unknown', 1, true))
    end
  end
  return may_expire[what]
end
