-- contrast.lua: compares a chunk of one big key with another key of its type. Reads only; runs under
-- EVALSHA_RO.
--
-- KEYS  the key that is gone through, the key that it is held against
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3  the type of both: hash, set, zset, list or string
--       4  the position to go on from, '0' for the beginning
--       5  how many elements, or bytes of a string, to read at once
--       6  'apart' to note fields that expire more than a second apart, 'sooner' those that expire
--          sooner in the first key than in the second, '' for neither
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
--   expire_apart  1 where the keys expire at different times, else 0
--   lasts     1 where the first key is there at least as long as the second, else 0
--   missing, contradicting, expiring_apart   numbers of elements that the second key lacks, holds with
--             another value or score, or that expire at another time; of lists and strings, the
--             elements (steps) that are not the same contradict
--   missing_names, contradicting_names, expiring_apart_names   the first of them; of lists and strings
--             the index or the offset

include "shared/chunks.lua"
include "shared/contrasting.lua"
include "shared/sizes.lua"

local one, other = KEYS[1], KEYS[2]
local kind, position, step, expiries, most = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])

begin_contrast(kind, other, expiries, most)

local function go_through_string()
  local offset, length = tonumber(position), redis.call('STRLEN', one)
  repeat
    local piece = redis.call('GETRANGE', one, offset, offset + step - 1)
    contrast_piece(piece, offset)
    weight = weight + #piece
    offset = offset + step
  until offset >= length or is_spent()
  return offset >= length and '0' or ('%d'):format(offset), offset - position, 0
end

local function contrast_elements(elements, from)
  if #elements == 0 then return end
  CONTRAST[kind](elements, from)
  if kind == 'hash' and expiries ~= '' and anything_expires('fields') then
    each_expiry_of(every_second(elements, 1), one, other, contrast_moments)
  end
end

local visited, largest
if kind == 'string' then
  position, visited, largest = go_through_string()
else
  position, visited, largest = go_through(kind, one, position, step, contrast_elements)
end

-- The second key first: a clock that goes on between the two makes the first look too short-lived, not
-- too long-lived; and twice where it does, because the clock may have gone on just then.
local ttl, ttl_of_other
for _ = 1, 2 do
  ttl_of_other = redis.call('PTTL', other)
  ttl = redis.call('PTTL', one)
  if ttl < 0 or ttl >= ttl_of_other then break end
end
return {
  'position', position, 'visited', visited, 'largest', largest, 'microseconds', time_taken(),
  'lengths', { size_of(kind, one), size_of(kind, other) },
  'exact', (kind == 'hash' and anything_expires('fields')) and 0 or 1,
  'ttls', { ttl, ttl_of_other },
  unpack(found_by_contrast(ttl, ttl_of_other)),
}
