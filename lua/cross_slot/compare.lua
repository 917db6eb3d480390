-- cross_slot/compare.lua: compares targets with the contents of sources in other slots, and fills them.
--
-- KEYS  targets
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  what is to be noted of expiries: 'different' where there is more than a second between them, 'sooner'
--          where the source's come first, '' nothing
--       4  '1' to answer values too where they differ
--       5  what is to be filled: '' for nothing, 'sets' for hashes and sets, 'queues' for sorted
--          sets too
--       6..  for each target in turn what cross_slot/read.lua tells of its source: type; expiry; digest of its
--          payload; number of its contents, and they, 0 where that digest is to tell; number of its moments, and
--          they; and what the last check found: a digest of the names that are missing, so that they are added now
--          if they still are, or ''
--
-- Answers for each target what lib/batch.lua says, or a string:
--   missing         there is no target
--   unlike          its payload has not that digest, and there are no contents to tell how it stands
-- or a list: the word, the digest of the target's payload, its expiry (milliseconds since 1970, -1 for never),
-- and what differs (see lib/diff.lua):
--   same, expiry, partial, differs  as compare.lua has them
--   filled          what the last check found missing was added, and it now has the same contents
--
-- Writes: what lib/fill.lua does, with ARGV 5 and a digest; else nothing, and runs under EVALSHA_RO.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local contents = include "lib/contents.lua"
local diff = include "lib/diff.lua"
local expiry = include "lib/expiry.lua"
local fill = include "lib/fill.lua"
local payload = include "lib/payload.lua"

local KEYS, ARGV = request.keys, request.arguments
local expiries, show_values, filling = ARGV[3], ARGV[4] == '1', ARGV[5]

-- What is known of each source.
local sources, argument = {}, 6

local function take() argument = argument + 1 return ARGV[argument - 1] end

local function take_list()
  local list = {}
  for i = 1, tonumber(take()) do list[i] = take() end
  return list
end

for i = 1, #KEYS do
  sources[i] = {
    kind = take(), at = tonumber(take()), digest = take(),
    contents = take_list(), moments = take_list(), checked = take(),
  }
end

-- Whether two moments, -1 for never, are to be noted: the source's and the target's.
local function is_noted(a, b)
  if expiries == 'sooner' then return not expiry.outlives(a, b) end
  return expiries == 'different' and expiry.differ(a, b)
end

local function note_key_expiry(notes, source, target)
  local at = expiry.at(target)
  if not is_noted(source.at, at) then return false end
  local now = expiry.now()
  diff.note(notes, 'source_ttl_ms', source.at >= 0 and source.at - now)
  diff.note(notes, 'target_ttl_ms', at >= 0 and at - now)
  return true
end

local function note_field_expiries(notes, source, target)
  if source.kind ~= 'hash' or not expiry.fields_may_expire(target) and #source.moments == 0 then return false end
  local found = {}
  expiry.each_field(contents.every_second(source.contents, 1), target, target, function(field, at, _, i)
    if at ~= -2 and is_noted(tonumber(source.moments[i] or -1), at) then found[#found + 1] = field end
  end)
  if #found > 0 then diff.note_names(notes, 'expiring_apart', found) end
  return #found > 0
end

-- The word, the notes, and the names that the target lacks where it differs in nothing else. equal: whether the
-- payloads are.
local function stand(source, target, equal)
  -- Equal payloads are equal in value, the expiries of fields included.
  local word, notes, lacking = 'same', {}, nil
  if not equal then
    word, notes, lacking =
      diff.contents(source.kind, source.contents, contents.all(source.kind, target), show_values)
  end
  local key_differs = note_key_expiry(notes, source, target)
  local differs = not equal and note_field_expiries(notes, source, target) or key_differs
  if differs and word == 'same' then word = 'expiry' end
  return word, notes, word == 'partial' and not differs and lacking or nil
end

local function add_lacking(source, target, lacking)
  local value_of, moment_of, width = {}, {}, contents.WIDTH[source.kind]
  for i = 1, #source.contents, width do
    local name = source.contents[i]
    value_of[name], moment_of[name] = source.contents[i + 1], tonumber(source.moments[(i + 1) / 2] or -1)
  end
  for _, name in ipairs(lacking) do fill.add(source.kind, target, name, value_of[name], moment_of[name]) end
end

return batch.each_key(function(target, i)
  local source, found = sources[i], payload.describe_any(target)
  if found == 'missing' then return found end
  if found[1] ~= source.kind then
    return { 'differs', found[3], found[2], 'source_type', source.kind, 'target_type', found[1] }
  end
  local equal = found[3] == source.digest
  if not equal and #source.contents == 0 then return 'unlike' end
  local word, notes, lacking = stand(source, target, equal)
  if fill.is_wanted(source.kind, lacking, filling) then
    local names = fill.digest(lacking)
    if names == source.checked then
      add_lacking(source, target, lacking)
      word, notes = stand(source, target)
      word = word == 'same' and 'filled' or word
    else
      diff.note(notes, 'digest', names)
    end
  end
  return { word, found[3], found[2], unpack(notes) }
end)
