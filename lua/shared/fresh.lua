-- fresh.lua: included by the scripts that copy.

include "shared/same.lua"

-- What the last look at each target found, from the arguments that begin at the given one: a digest,
-- 'missing', or '' for nothing that a next look would act on. nil in a first look.
local function last_looks(first)
  if #ARGV < first then return nil end
  local found = {}
  for i = first, #ARGV do found[KEYS[2 * (i - first + 1)]] = ARGV[i] end
  return found
end

-- Copies the source, of the given kind and not gone, where the target is absent, and compares the
-- two. Answers 'copied' or what compare() says of a target that was there: its three values.
-- Without validation nothing is compared: 'copied' or 'exists'.
--
-- A target that was there at the last look may just have been deleted, and its source be about to
-- be. It is 'missing', and copied only if it still is at the next look.
--
-- Writes: COPY without REPLACE, nothing else. COPY takes the key's expiry and its fields' along.
local function copy_where_absent(kind, source, target, looked, validate, ignore_expiry, show_values)
  if looked and looked[target] ~= 'missing' and redis.call('TYPE', target).ok == 'none' then
    return 'missing', { 'digest', 'missing' }
  end
  local reply = redis.pcall('COPY', source, target)
  -- A server out of memory refuses COPY unseen, even where it would not have written.
  if type(reply) == 'table' and redis.call('TYPE', target).ok == 'none' then error(reply) end
  local copied = reply == 1
  if not validate then return copied and 'copied' or 'exists' end
  if not copied then return compare(kind, source, target, ignore_expiry, show_values) end
  local word = compare_present(kind, source, target, ignore_expiry, show_values)
  -- What expires at this very moment cannot be told apart from what expires at another.
  if word == 'same' or (word == 'expiry' and redis.call('PTTL', target) == 0) then return 'copied' end
  return 'failed the fresh copy is not the same: ' .. word
end
