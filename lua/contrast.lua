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
--   missing, contradicting, expiring_apart   numbers of elements that the second key lacks, holds with
--             another value or score, or that expire at another time; of lists and strings, the
--             elements (steps) that are not the same contradict
--   missing_names, contradicting_names, expiring_apart_names   the first of them; of lists and strings
--             the index or the offset

include "shared/chunks.lua"
include "shared/expires.lua"
include "shared/lasts.lua"
include "shared/moments.lua"
include "shared/apart.lua"

local LENGTH = { hash = 'HLEN', set = 'SCARD', zset = 'ZCARD', list = 'LLEN', string = 'STRLEN' }

local one, other = KEYS[1], KEYS[2]
local kind, position, step, expiries, most = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[7])

local found = { missing = {}, contradicting = {}, expiring_apart = {} }
local counts = { missing = 0, contradicting = 0, expiring_apart = 0 }

local function note_found(what, name)
  counts[what] = counts[what] + 1
  if counts[what] <= most then found[what][counts[what]] = name end
end

-- Whether two scores are one number: a zero may have lost its sign, as it does in a compact encoding.
local function equal_scores(a, b) return kind == 'zset' and tonumber(a) == tonumber(b) end

-- Looks the names up in the other key and sorts them by what is there. values: nil where there are none.
local function sort_by(names, values, ask)
  local first = 0
  in_slices(names, 1, function(...)
    for i, value in ipairs(ask(...)) do
      local name = names[first + i]
      -- A member that is not in a set is 0, a field or a score that is not there is false.
      if not value or value == 0 then
        note_found('missing', name)
      elseif values and values[first + i] ~= value and not equal_scores(values[first + i], value) then
        note_found('contradicting', name)
      end
    end
    first = first + select('#', ...)
  end)
end

local function contrast_expiries(fields)
  if expiries == '' or not anything_expires('fields') then return end
  each_expiry_of(fields, one, other, function(field, a, b)
    local as_wanted
    if expiries == 'apart' then as_wanted = b == -2 or not apart(a, b) else as_wanted = lasts(a, b) end
    if not as_wanted then note_found('expiring_apart', field) end
  end)
end

local CONTRAST = {
  hash = function(elements)
    local fields = every_second(elements, 1)
    sort_by(fields, every_second(elements, 2), function(...) return redis.call('HMGET', other, ...) end)
    contrast_expiries(fields)
  end,
  set = function(elements)
    sort_by(elements, nil, function(...) return redis.call('SMISMEMBER', other, ...) end)
  end,
  zset = function(elements)
    sort_by(every_second(elements, 1), every_second(elements, 2), function(...)
      return redis.call('ZMSCORE', other, ...)
    end)
  end,
  list = function(elements, from)
    local items = redis.call('LRANGE', other, from, from + #elements - 1)
    for i, element in ipairs(elements) do
      if element ~= items[i] then note_found('contradicting', ('%d'):format(from + i - 1)) end
    end
  end,
}

-- A string has no elements: it is read in steps of bytes.
local function go_through_string()
  local offset, length = tonumber(position), redis.call('STRLEN', one)
  repeat
    local a = redis.call('GETRANGE', one, offset, offset + step - 1)
    if a ~= redis.call('GETRANGE', other, offset, offset + step - 1) then
      note_found('contradicting', ('%d'):format(offset))
    end
    weight = weight + #a
    offset = offset + step
  until offset >= length or is_spent()
  return offset >= length and '0' or ('%d'):format(offset), offset - position, 0
end

local visited, largest
if kind == 'string' then
  position, visited, largest = go_through_string()
else
  position, visited, largest = go_through(kind, one, position, step, function(elements, from)
    if #elements > 0 then CONTRAST[kind](elements, from) end
  end)
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
  'lengths', { redis.call(LENGTH[kind], one), redis.call(LENGTH[kind], other) },
  'exact', (kind == 'hash' and anything_expires('fields')) and 0 or 1,
  'ttls', { ttl, ttl_of_other },
  'missing', counts.missing, 'missing_names', found.missing,
  'contradicting', counts.contradicting, 'contradicting_names', found.contradicting,
  'expiring_apart', counts.expiring_apart, 'expiring_apart_names', found.expiring_apart,
}
