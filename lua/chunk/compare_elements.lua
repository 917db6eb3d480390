-- chunk/compare_elements.lua: compares what chunk/read.lua has read of one large key with another key of its type.
-- Reads only; runs under EVALSHA_RO.
--
-- KEYS  the key that it is compared with
-- ARGV  1  the type of both: hash, set, zset, list or string
--       2  the position at which the chunk began
--       3  'different' to note fields that expire at another time, by more than a second, 'exact' by a millisecond,
--          which then holds for the keys too; 'sooner' those that expire sooner in the first key than in this one, ''
--          for none
--       4  how many names to answer of each kind, at most
--       5  when the first key expires: in milliseconds since 1970, -1 for never, -2 where it is not there
--       6  the number of elements, and they; then the moments at which fields expire, if any does
--
-- Answers a list, names and values in turn: microseconds, length and exact as chunk/read.lua has them, of this
-- key; ttls, expiries_differ, outlives, and missing, contradicting, expiring_apart with their names as
-- chunk/compare.lua has them.

local request = include "lib/request.lua"
local chunk_diff = include "lib/chunk_diff.lua"
local contents = include "lib/contents.lua"
local expiry = include "lib/expiry.lua"

local ARGV = request.arguments
local other, kind, position, expiries, most = request.keys[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local at = tonumber(ARGV[5])

local elements, count = {}, tonumber(ARGV[6])
for i = 1, count do elements[i] = ARGV[6 + i] end

chunk_diff.begin(kind, other, expiries, most)
if count > 0 then chunk_diff.compare(elements, position) end
-- The first key's fields may expire where nothing does on this server.
local has_moments = #ARGV > 6 + count
if kind == 'hash' and expiries ~= '' and (has_moments or expiry.fields_may_expire(other)) then
  expiry.each_field(contents.every_second(elements, 1), other, other, function(field, other_at, _, i)
    chunk_diff.compare_expiries(field, tonumber(ARGV[6 + count + i] or -1), other_at)
  end)
end

-- The milliseconds left are for people: they are counted by this server's clock, whatever that of the other says.
return {
  'length', contents.size(kind, other), 'exact', (kind == 'hash' and expiry.fields_may_expire(other)) and 0 or 1,
  'ttls', { at < 0 and at or math.max(0, at - expiry.now()), request.call('PTTL', other) },
  'microseconds', request.time_taken(), unpack(chunk_diff.answer(at, expiry.at(other))),
}
