-- fill.lua: as copy.lua, but adds to a target what two looks, some time apart, found it to lack.
--
-- A field may be absent on purpose: deleted in the target first, a moment ago. So the first look
-- only answers a digest of the names that are missing; the second is given it back, compares again,
-- and adds them if they are still the same. If they are not, that was a new first look.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1  the rule's type: hash, set, zset, list, string, stream or any
--       2  '1' to take equal values with another expiry for the same
--       3  '1' to answer values too where they differ
--       4  'sets' to fill hashes and sets, 'queues' to fill sorted sets too
--       5..  for each pair what its last look found: the digest, 'missing', or ''; absent in a
--          first look
--
-- Answers as copy.lua does with validation, and for each pair further
--   filled   the target was partial; what it lacked was added, nothing else was changed, and it now
--            equals the source
--   partial  with the digest, if it could be filled: a target whose expiry, or that of a field,
--            is another is not touched (but with ARGV 2 '1')
--
-- Writes: COPY without REPLACE; HSETNX with HPEXPIREAT for fields that expire, SADD, ZADD NX.

include "shared/sources.lua"
include "shared/fresh.lua"
include "shared/lacking.lua"

local wanted_type, ignore_expiry, show_values, filling = ARGV[1], ARGV[2] == '1', ARGV[3] == '1', ARGV[4]

local looked = last_looks(5)

local ADD = {
  hash = function(source, target, name)
    redis.call('HSETNX', target, name, redis.call('HGET', source, name))
    if anything_expires('fields') then
      local at = redis.call('HPEXPIRETIME', source, 'FIELDS', 1, name)[1]
      if at > 0 then redis.call('HPEXPIREAT', target, at, 'FIELDS', 1, name) end
    end
  end,
  set = function(_, target, name) redis.call('SADD', target, name) end,
  zset = function(source, target, name)
    redis.call('ZADD', target, 'NX', redis.call('ZSCORE', source, name), name)
  end,
}

return answer_each_source(wanted_type, function(kind, source, target)
  local word, notes, lacking =
    copy_where_absent(kind, source, target, looked, true, ignore_expiry, show_values)
  if not may_be_filled(kind, lacking, filling) then return answer(word, notes) end
  local found = digest(lacking)
  if not looked or found ~= looked[target] then
    note(notes, 'digest', found)
    return answer(word, notes)
  end
  for _, name in ipairs(lacking) do ADD[kind](source, target, name) end
  word = compare(kind, source, target, ignore_expiry, show_values)
  return word == 'same' and 'filled' or 'failed the filled target is not the same: ' .. word
end)
