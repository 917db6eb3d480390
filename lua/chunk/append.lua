-- chunk/append.lua: adds what chunk/read.lua has read to a staging key, which nobody reads yet.
--
-- KEYS  staging key
-- ARGV  1  the source's type: hash, set, zset, list or string
--       2  for how many milliseconds the staging key is to live on
--       3  '1' for the first chunk
--       4  the number of elements, and they; then the moments at which fields expire, if any does
--
-- Answers the microseconds taken, or a string:
--   vanished  the staging key has expired meanwhile: its copy must start over
--
-- Writes: the staging key, and its expiry.

local request = include "lib/request.lua"
local contents = include "lib/contents.lua"

local ARGV = request.arguments
local staging, kind, lifetime, count = request.keys[1], ARGV[1], ARGV[2], tonumber(ARGV[4])

if ARGV[3] ~= '1' and request.call('EXISTS', staging) == 0 then return 'vanished' end
local elements = {}
for i = 1, count do elements[i] = ARGV[4 + i] end
if count > 0 then contents.write(kind, staging, elements) end
for i = 1, #ARGV - 4 - count do
  local at = ARGV[4 + count + i]
  if tonumber(at) > 0 then request.call('HPEXPIREAT', staging, at, 'FIELDS', 1, elements[2 * i - 1]) end
end
request.call('PEXPIRE', staging, lifetime)
return request.time_taken()
