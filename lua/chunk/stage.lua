-- chunk/stage.lua: copies a chunk of a large key to a staging key, which nobody reads yet.
--
-- KEYS  source, staging key
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  the source's type: hash, set, zset, list or string
--       4  the position to go on from, '0' for the beginning
--       5  how many elements to read at once
--       6  for how many milliseconds the staging key is to live on
--
-- Answers a list: the next position ('0': this was the last chunk); elements copied; bytes of the
-- largest, 0 for a string; microseconds taken. Or a string:
--   vanished  the staging key has expired meanwhile: its copy must start over
--
-- A string is copied as a whole, which is quick; the others element by element, with the expiries
-- of fields. Writes: the staging key, and its expiry.

local request = include "lib/request.lua"
local chunk = include "lib/chunk.lua"
local contents = include "lib/contents.lua"
local expiry = include "lib/expiry.lua"

local KEYS, ARGV = request.keys, request.arguments
local source, staging = KEYS[1], KEYS[2]
local kind, position, step, lifetime = ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]

local function copy_expiry(field, at)
  if at > 0 then request.call('HPEXPIREAT', staging, at, 'FIELDS', 1, field) end
end

if position ~= '0' and request.call('EXISTS', staging) == 0 then return 'vanished' end
local copied, largest = 1, 0
if kind == 'string' then
  request.call('COPY', source, staging)
else
  position, copied, largest = chunk.go_through(kind, source, position, step, function(elements)
    contents.write(kind, staging, elements)
    if kind == 'hash' and expiry.fields_may_expire(source) then
      expiry.each_field(contents.every_second(elements, 1), source, source, copy_expiry)
    end
  end)
end
request.call('PEXPIRE', staging, lifetime)
return { position, copied, largest, request.time_taken() }
