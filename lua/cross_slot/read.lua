-- cross_slot/read.lua: reads keys whose pair has its other key in another slot. Reads only; runs under EVALSHA_RO.
--
-- KEYS  sources, or targets
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  the type that is wanted: hash, set, zset, list, string, stream or any
--       4  what to answer beside: 'payload', 'idle' (that too), 'contents', 'size', or '' for nothing; or 'type' for
--          that alone
--       5..  for each key the payload that is known of it already, or the digest of that; absent where nothing is
--
-- Answers for each key what lib/batch.lua says, or a string:
--   equal <expiry>  it has that payload; it expires then, as below
--   type <type>     where that alone is asked for, which does not count as use
-- or a list: type; expiry, in milliseconds since 1970, -1 for never; digest of the payload, '' where that itself is
-- answered; bytes of memory; and, by ARGV 4, the payload; or contents, as lib/contents.lua has them, and for a hash in
-- which fields expire the moments at which they do, in their order; or the size, in elements or bytes of a string.
-- Behind the payload, for 'idle': the seconds for which nobody has touched the key, -1 where nobody knows.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local contents = include "lib/contents.lua"
local expiry = include "lib/expiry.lua"
local payload = include "lib/payload.lua"

local ARGV = request.arguments
local wanted_type, beside = ARGV[3], ARGV[4]

local function moments_of(kind, key, elements)
  local moments = {}
  if kind == 'hash' and expiry.fields_may_expire(key) then
    expiry.each_field(contents.every_second(elements, 1), key, key, function(_, at) moments[#moments + 1] = at end)
  end
  return moments
end

-- Asked first, because reading may count as use.
local function idle_of(key)
  local idle = request.pcall('OBJECT', 'IDLETIME', key)
  return type(idle) == 'number' and idle or -1
end

return batch.each_key(function(key, i)
  if beside == 'type' then
    local kind = request.call('TYPE', key).ok
    return (kind == 'none' or expiry.is_gone(kind, key)) and 'gone' or 'type ' .. kind
  end
  local idle = beside == 'idle' and idle_of(key)
  local kind, bytes, whole = payload.source(wanted_type, key)
  if not kind then return bytes end
  local found = payload.describe(key, kind, bytes, whole, ARGV[4 + i], idle or beside == 'payload')
  if type(found) == 'string' then return found end
  if idle then found[6] = idle end
  if beside == 'contents' then
    found[5] = contents.all(kind, key)
    found[6] = moments_of(kind, key, found[5])
  elseif beside == 'size' then
    found[5] = contents.size(kind, key)
  end
  return found
end)
