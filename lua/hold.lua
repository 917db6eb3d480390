-- hold.lua: holds what fetch.lua has read of one big key against another key of its type. Reads only; runs under
-- EVALSHA_RO.
--
-- KEYS  the key that it is held against
-- ARGV  1  the type of both: hash, set, zset, list or string
--       2  the position at which the chunk began
--       3  'apart' to note fields that expire more than a second apart, 'sooner' those that expire
--          sooner in the first key than in this one, '' for neither
--       4  how many names to answer of each kind, at most
--       5  when the first key expires: in milliseconds since 1970, -1 for never, -2 where it is not there
--       6  the number of elements, and they; then the moments at which fields expire, if any does
--
-- Answers a list, names and values in turn: microseconds, length and exact as fetch.lua has them, of this key;
-- ttls, expire_apart, lasts, and missing, contradicting, expiring_apart with their names as contrast.lua has them.

include "shared/clock.lua"
include "shared/expires_at.lua"
include "shared/contrasting.lua"
include "shared/sizes.lua"

local other, kind, position, expiries, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local at = tonumber(ARGV[5])

local elements, count = {}, tonumber(ARGV[6])
for i = 1, count do elements[i] = ARGV[6 + i] end

begin_contrast(kind, other, expiries, most)
if kind == 'string' then
  contrast_piece(elements[1], position)
elseif count > 0 then
  CONTRAST[kind](elements, position)
end
-- The first key's fields may expire where nothing does on this server.
local has_moments = #ARGV > 6 + count
if kind == 'hash' and expiries ~= '' and (has_moments or anything_expires('fields')) then
  local next_field = 0
  each_expiry_of(every_second(elements, 1), other, other, function(field, other_at)
    next_field = next_field + 1
    contrast_moments(field, tonumber(ARGV[6 + count + next_field] or -1), other_at)
  end)
end

-- The milliseconds left are for people: they are counted by this server's clock, whatever that of the other says.
return {
  'length', size_of(kind, other), 'exact', (kind == 'hash' and anything_expires('fields')) and 0 or 1,
  'ttls', { at < 0 and at or math.max(0, at - milliseconds()), redis.call('PTTL', other) },
  'microseconds', time_taken(), unpack(found_by_contrast(at, expires_at(other))),
}
