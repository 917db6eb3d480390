-- cross_slot/read.lua: reads keys whose pair has its other key in another slot. Reads only; runs under EVALSHA_RO.
--
-- KEYS  sources, or targets
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  the type that is wanted: hash, set, zset, list, string, stream or any
--       4  what to answer beside: 'payload', 'contents', 'size', or '' for nothing
--       5..  for each key the digest of what is known of it already, or ''; absent where nothing is
--
-- Answers for each key what lib/batch.lua says, or a string:
--   unchanged <expiry>  its payload has that digest; it expires then, as below
-- or a list: type; expiry, in milliseconds since 1970, -1 for never; digest of the payload; bytes of memory;
-- and, by ARGV 4, the payload; or contents, as lib/contents.lua has them, and for a hash in which fields expire
-- the moments at which they do, in their order; or the size, in elements or bytes of a string.

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

return batch.each_key(function(key, i)
  local kind, answer = batch.wanted_source(wanted_type, key)
  if not kind then return answer end
  local found, whole = payload.describe(kind, key, answer)
  if found[3] == ARGV[4 + i] then return ('unchanged %d'):format(found[2]) end
  if beside == 'payload' then
    found[5] = whole
  elseif beside == 'contents' then
    found[5] = contents.all(kind, key)
    found[6] = moments_of(kind, key, found[5])
  elseif beside == 'size' then
    found[5] = contents.size(kind, key)
  end
  return found
end)
