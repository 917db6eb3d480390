-- chunk/read.lua: reads a chunk of a large key whose pair has its other key in another slot. Reads only; runs under
-- EVALSHA_RO.
--
-- KEYS  the key
-- ARGV  1, 2  time and weight: see lib/budget.lua
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

local request = include "lib/request.lua"
local chunk = include "lib/chunk.lua"
local contents = include "lib/contents.lua"
local expiry = include "lib/expiry.lua"

local ARGV = request.arguments
local key, kind, position, step = request.keys[1], ARGV[3], ARGV[4], tonumber(ARGV[5])

local elements, moments = {}, {}

local next_position, visited, largest = chunk.go_through(kind, key, position, step, function(found)
  for _, element in ipairs(found) do elements[#elements + 1] = element end
end)
if kind == 'string' then elements = { table.concat(elements) } end
local is_exact = kind ~= 'hash' or not expiry.fields_may_expire(key)
if not is_exact then
  expiry.each_field(contents.every_second(elements, 1), key, key, function(_, at) moments[#moments + 1] = at end)
end

return {
  'position', next_position, 'visited', visited, 'largest', largest, 'length', contents.size(kind, key),
  'exact', is_exact and 1 or 0, 'expiry', expiry.at(key), 'elements', elements, 'moments', moments,
  'microseconds', request.time_taken(),
}
