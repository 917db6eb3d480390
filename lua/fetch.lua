-- fetch.lua: reads a chunk of one big key whose pair has its other half in another slot. Reads only; runs under
-- EVALSHA_RO.
--
-- KEYS  the key
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3  its type: hash, set, zset, list or string
--       4  the position to go on from, '0' for the beginning
--       5  how many elements, or bytes of a string, to read at once
--
-- Answers a list, names and values in turn:
--   position  the next position; '0': this was the last chunk
--   visited   elements read, or bytes of a string
--   largest   bytes of the largest element, 0 for a string
--   microseconds  time taken
--   length    of the key
--   exact     1 where the length counts what readers see, 0 where fields that have expired may be
--             counted too
--   expiry    of the key: in milliseconds since 1970, -1 for never
--   elements  a flat list: field, value, ... or member, score, ... or members or items, or one string
--   moments   for a hash in which fields expire, those of the fields, in their order

include "shared/chunks.lua"
include "shared/every_second.lua"
include "shared/expires.lua"
include "shared/expires_at.lua"
include "shared/moments.lua"
include "shared/sizes.lua"

local key, kind, position, step = KEYS[1], ARGV[3], ARGV[4], tonumber(ARGV[5])

local elements, moments = {}, {}

local function read_string()
  local offset, length = tonumber(position), redis.call('STRLEN', key)
  repeat
    elements[#elements + 1] = redis.call('GETRANGE', key, offset, offset + step - 1)
    weight = weight + #elements[#elements]
    offset = offset + step
  until offset >= length or is_spent()
  elements = { table.concat(elements) }
  return offset >= length and '0' or ('%d'):format(offset), #elements[1], 0
end

local visited, largest
if kind == 'string' then
  position, visited, largest = read_string()
else
  position, visited, largest = go_through(kind, key, position, step, function(found)
    for _, element in ipairs(found) do elements[#elements + 1] = element end
  end)
end
local is_exact = kind ~= 'hash' or not anything_expires('fields')
if not is_exact then
  each_expiry_of(every_second(elements, 1), key, key, function(_, at) moments[#moments + 1] = at end)
end

return {
  'position', position, 'visited', visited, 'largest', largest, 'length', size_of(kind, key),
  'exact', is_exact and 1 or 0, 'expiry', expires_at(key), 'elements', elements, 'moments', moments,
  'microseconds', time_taken(),
}
