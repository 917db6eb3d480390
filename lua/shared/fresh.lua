-- fresh.lua: included by the scripts that copy.

include "shared/same.lua"

-- Copies the source, of the given kind and not gone, where the target is absent, and compares the
-- two. Answers 'copied' or what compare() says of a target that was there: its three values.
-- Without validation nothing is compared: 'copied' or 'exists'.
--
-- Writes: COPY without REPLACE, nothing else. COPY takes the key's expiry and its fields' along.
local function copy_where_absent(kind, source, target, validate, ignore_expiry, show_values)
  local reply = redis.pcall('COPY', source, target)
  -- A server out of memory refuses COPY unseen, even where it would not have written.
  if type(reply) == 'table' and redis.call('TYPE', target).ok == 'none' then error(reply) end
  local copied = reply == 1
  if not validate then return copied and 'copied' or 'exists' end
  if not copied then return compare(kind, source, target, ignore_expiry, show_values) end
  local word = compare(kind, source, target, ignore_expiry, show_values)
  return word == 'same' and 'copied' or 'failed the fresh copy is not the same: ' .. word
end
