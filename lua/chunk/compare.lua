-- chunk/compare.lua: compares a chunk of one large key with another key of its type. Reads only; runs under
-- EVALSHA_RO.
--
-- KEYS  the key that is gone through, the key that it is compared with
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  the type of both: hash, set, zset, list or string
--       4  the position to go on from, '0' for the beginning
--       5  how many elements, or bytes of a string, to read at once
--       6  'different' to note fields that expire at another time, by more than a second, 'exact' by a millisecond,
--          which then holds for the keys too; 'sooner' those that expire sooner in the first key than in the second,
--          '' for none
--       7  how many names to answer of each kind, at most
--
-- Answers a list, names and values in turn:
--   position  the next position; '0': this was the last chunk
--   visited   elements gone through, or bytes of a string
--   largest   bytes of the largest element, 0 for a string
--   microseconds  time taken
--   lengths   {of the first key, of the second}
--   exact     1 where the lengths count what readers see, 0 where fields that have expired may be
--             counted too
--   ttls      {of the first key, of the second}: milliseconds left, -1 for never, -2 for no such key
--   expiries_differ  1 where the keys expire at different times, else 0
--   outlives  1 where the first key is there at least as long as the second, else 0
--   missing, contradicting, expiring_apart   numbers of elements that the second key lacks, holds with
--             another value or score, or that expire at another time; of lists and strings, the
--             elements (steps) that are not the same contradict
--   missing_names, contradicting_names, expiring_apart_names   the first of them; of lists and strings
--             the index or the offset

local request = include "lib/request.lua"
local chunk = include "lib/chunk.lua"
local chunk_diff = include "lib/chunk_diff.lua"
local contents = include "lib/contents.lua"
local expiry = include "lib/expiry.lua"

local ARGV = request.arguments
local one, other = unpack(request.keys)
local kind, position, step, expiries, most = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])

chunk_diff.begin(kind, other, expiries, most)
local notes_expiries = kind == 'hash' and expiries ~= '' and expiry.fields_may_expire(one)
local next_position, visited, largest = chunk.go_through(kind, one, position, step, function(elements, from)
  chunk_diff.compare(elements, from)
  if notes_expiries then
    expiry.each_field(contents.every_second(elements, 1), one, other, chunk_diff.compare_expiries)
  end
end)

-- The second key first: a clock that goes on between the two makes the first seem too short-lived, not too
-- long-lived; and twice where it does, because the clock may have gone on just then.
local ttl, ttl_of_other
for _ = 1, 2 do
  ttl_of_other = request.call('PTTL', other)
  ttl = request.call('PTTL', one)
  if ttl < 0 or ttl >= ttl_of_other then break end
end
local at, at_of_other = ttl, ttl_of_other
if expiries == 'exact' then at, at_of_other = expiry.at(one), expiry.at(other) end
return {
  'position', next_position, 'visited', visited, 'largest', largest, 'microseconds', request.time_taken(),
  'lengths', { contents.size(kind, one), contents.size(kind, other) },
  'exact', (kind == 'hash' and expiry.fields_may_expire(one)) and 0 or 1,
  'ttls', { ttl, ttl_of_other },
  unpack(chunk_diff.answer(at, at_of_other)),
}
