-- lib/copy.lua: makes targets of sources on the same node.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local contents = include "lib/contents.lua"
local expiry = include "lib/expiry.lua"
local compare = include "lib/compare.lua"

local KEYS, ARGV = request.keys, request.arguments
local compare_present, compare_any = compare.present, compare.any

-- By target, from the arguments that begin at the given one, what the last check of each pair found: a digest,
-- 'missing', or '' for nothing that a next one would act on. nil in a first check.
local function last_checks(first)
  if #ARGV < first then return nil end
  local found = {}
  for i = first, #ARGV do found[KEYS[2 * (i - first + 1)]] = ARGV[i] end
  return found
end

-- A module's type may be one that COPY does not know: its payload always carries it.
local function copy_by_payload(source, target, ...)
  local at = expiry.at(source)
  request.call('RESTORE', target, at < 0 and 0 or ('%d'):format(at), request.call('DUMP', source), 'ABSTTL', ...)
end

-- Makes the target of the source where it is absent; returns whether it was.
local function copy(kind, source, target)
  local reply = request.pcall('COPY', source, target)
  if type(reply) == 'number' then return reply == 1 end
  -- A server out of memory refuses COPY unseen, even where it would not have written.
  if request.call('TYPE', target).ok ~= 'none' then return false end
  if contents.SIZE[kind] then error(reply) end
  copy_by_payload(source, target)
  return true
end

-- Makes the target of the source, of the given kind and not gone, whatever it was before.
local function replace(kind, source, target)
  local reply = request.pcall('COPY', source, target, 'REPLACE')
  if reply == 1 then return end
  if contents.SIZE[kind] then error(reply) end
  copy_by_payload(source, target, 'REPLACE')
end

-- Compares a target that has just been made with its source: 'copied'. One that is not the same is deleted again, and
-- the decision under way ends with an error.
local function confirm(kind, source, target, ignore_expiry, show_values)
  batch.made = target
  local word = compare_present(kind, source, target, ignore_expiry, show_values)
  -- What expires at this very moment cannot be told from what expires at another.
  if word == 'same' or (word == 'expiry' and request.call('PTTL', target) == 0) then
    batch.made = false
    return 'copied'
  end
  error('the fresh copy is not the same: ' .. word, 0)
end

-- Copies the source, of the given kind and not gone, where the target is absent, and compares the two. Answers
-- 'copied' or what compare.any() says of a target that was there: its three values. Without validation nothing is
-- compared: 'copied' or 'exists'.
--
-- A target that was there at the last check may just have been deleted, and its source be about to be. It is
-- 'missing', and copied only if it still is at the next check.
--
-- Writes: COPY without REPLACE, or RESTORE without it, which take the key's expiry and its fields' along; and UNLINK
-- of what these have made, where it is not the same or cannot be compared. Nothing else.
local function where_absent(kind, source, target, checked, validate, ignore_expiry, show_values)
  if checked and checked[target] ~= 'missing' and request.call('TYPE', target).ok == 'none' then
    return 'missing', { 'digest', 'missing' }
  end
  local copied = batch.made == target or copy(kind, source, target)
  if not validate then return copied and 'copied' or 'exists' end
  if not copied then return compare_any(kind, source, target, ignore_expiry, show_values) end
  return confirm(kind, source, target, ignore_expiry, show_values)
end

return { last_checks = last_checks, where_absent = where_absent, replace = replace, confirm = confirm }
