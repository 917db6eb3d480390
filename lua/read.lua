-- read.lua: reads the halves of pairs that live in two slots. Reads only; runs under EVALSHA_RO.
--
-- KEYS  sources, or targets
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3  the type that is wanted: hash, set, zset, list, string, stream or any
--       4  what to answer beside: 'payload', 'contents', 'size', or '' for nothing
--       5..  for each key the digest of what is known of it already, or ''; absent where nothing is
--
-- Answers for each key, in the order of KEYS (see shared/each.lua: behind the last answer, the
-- microseconds taken; fewer answers where the time was spent), a string:
--   unchanged <expiry>  its payload has that digest; it expires then, as below
--   gone            there is no such key
--   ignored <type>  it is of this type, which is not the one that is wanted
--   big <type> <bytes>  it would take too long: not touched
--   moved           it lives on another node now, or is on its way there
--   failed <text>   the server refused, in its own words; the other keys are not affected
-- or a list: type; expiry, in milliseconds since 1970, -1 for never; digest of the payload; bytes of memory;
-- and, by ARGV 4, the payload; or contents, as values.lua has them, and for a hash in which fields expire
-- the moments at which they do, in their order; or the size, in elements or bytes of a string.

include "shared/wanted.lua"
include "shared/state.lua"
include "shared/contents.lua"
include "shared/moments.lua"
include "shared/sizes.lua"

local wanted_type, beside = ARGV[3], ARGV[4]

local function moments_of(kind, key, contents)
  if kind ~= 'hash' or not anything_expires('fields') then return {} end
  local fields, moments = {}, {}
  for i = 1, #contents, 2 do fields[#fields + 1] = contents[i] end
  each_expiry_of(fields, key, key, function(_, at) moments[#moments + 1] = at end)
  return moments
end

return answer_each(1, function(i)
  local key = KEYS[i]
  local kind, answer = wanted_source(wanted_type, key)
  if not kind then return answer end
  local found, payload = state(kind, key, answer)
  if found[3] == ARGV[4 + i] then return ('unchanged %d'):format(found[2]) end
  if beside == 'payload' then
    found[5] = payload
  elseif beside == 'contents' then
    found[5] = contents_of(kind, key)
    found[6] = moments_of(kind, key, found[5])
  elseif beside == 'size' then
    found[5] = size_of(kind, key)
  end
  return found
end)
