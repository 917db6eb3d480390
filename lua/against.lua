-- against.lua: holds the contents of sources that live in other slots against their targets, and fills these.
--
-- KEYS  targets
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3  what is to be noted of expiries: 'apart' where they are more than a second apart, 'sooner' where the
--          source's come first, '' nothing
--       4  '1' to answer values too where they differ
--       5  what is to be filled: '' for nothing, 'sets' for hashes and sets, 'queues' for sorted
--          sets too
--       6..  for each target in turn what read.lua tells of its source: type; expiry; digest of its payload; number
--          of its contents, and they, 0 where that digest is to tell; number of its moments, and they; and what the
--          last look found: a digest of the names that are missing, so that they are added now if they still are,
--          or ''
--
-- Answers for each target, in the order of KEYS (see shared/each.lua: behind the last answer, the
-- microseconds taken; fewer answers where the time was spent), a string:
--   missing         there is no target
--   unlike          its payload has not that digest, and there are no contents to tell how it stands
--   big <type> <bytes>  it would take too long: not touched
--   moved           it lives on another node now, or is on its way there
--   failed <text>   the server refused, in its own words; the other targets are not affected
-- or a list: the word, the digest of the target's payload, its expiry (milliseconds since 1970, -1 for never),
-- and what differs, name by name (see values.lua):
--   same, expiry, partial, differs  as compare.lua has them
--   filled          what the last look found missing was added, and it now has the same contents
--
-- Writes: what shared/adding.lua does, with ARGV 5 and a digest; else nothing, and runs under EVALSHA_RO.

include "shared/there.lua"
include "shared/values.lua"
include "shared/moments.lua"
include "shared/apart.lua"
include "shared/lasts.lua"
include "shared/expires.lua"
include "shared/contents.lua"
include "shared/lacking.lua"
include "shared/adding.lua"

local expiries, show_values, filling = ARGV[3], ARGV[4] == '1', ARGV[5]

-- The source's half of each pair.
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
    contents = take_list(), moments = take_list(), looked = take(),
  }
end

-- Whether two moments, -1 for never, are to be noted: the source's and the target's.
local function stands_out(a, b)
  if expiries == 'sooner' then return not lasts(a, b) end
  return expiries == 'apart' and apart(a, b)
end

local function note_key_expiry(notes, source, target)
  local at = expires_at(target)
  if not stands_out(source.at, at) then return false end
  local now = milliseconds()
  note(notes, 'source_ttl_ms', source.at >= 0 and source.at - now)
  note(notes, 'target_ttl_ms', at >= 0 and at - now)
  return true
end

local function note_field_expiries(notes, source, target)
  if source.kind ~= 'hash' or not anything_expires('fields') and #source.moments == 0 then return false end
  local fields, found = {}, {}
  for i = 1, #source.contents, 2 do fields[#fields + 1] = source.contents[i] end
  local next_field = 0
  each_expiry_of(fields, target, target, function(field, at)
    next_field = next_field + 1
    if at ~= -2 and stands_out(tonumber(source.moments[next_field] or -1), at) then found[#found + 1] = field end
  end)
  if #found > 0 then note_names(notes, 'expiring_apart', found) end
  return #found > 0
end

-- The word, the notes, and the names that the target lacks where it differs in nothing else. equal: whether the
-- payloads are.
local function stand(source, target, equal)
  -- Equal payloads are equal in value, the expiries of fields included.
  local word, notes, lacking = 'same', {}, nil
  if not equal then
    word, notes, lacking =
      compare_contents(source.kind, source.contents, contents_of(source.kind, target), show_values)
  end
  local key_apart = note_key_expiry(notes, source, target)
  local stand_out = not equal and note_field_expiries(notes, source, target) or key_apart
  if stand_out and word == 'same' then word = 'expiry' end
  return word, notes, word == 'partial' and not stand_out and lacking or nil
end

local function fill(source, target, lacking)
  local value_of, moment_of, step = {}, {}, source.kind == 'set' and 1 or 2
  for i = 1, #source.contents, step do
    local name = source.contents[i]
    value_of[name], moment_of[name] = source.contents[i + 1], tonumber(source.moments[(i + 1) / 2] or -1)
  end
  for _, name in ipairs(lacking) do ADD[source.kind](target, name, value_of[name], moment_of[name]) end
end

return answer_each(1, function(i)
  local source, target = sources[i], KEYS[i]
  local found = state_of_any(target)
  if found == 'missing' then return found end
  if found[1] ~= source.kind then
    return { 'differs', found[3], found[2], 'source_type', source.kind, 'target_type', found[1] }
  end
  local equal = found[3] == source.digest
  if not equal and #source.contents == 0 then return 'unlike' end
  local word, notes, lacking = stand(source, target, equal)
  if may_be_filled(source.kind, lacking, filling) then
    local names = digest(lacking)
    if names == source.looked then
      fill(source, target, lacking)
      word, notes = stand(source, target)
      word = word == 'same' and 'filled' or word
    else
      note(notes, 'digest', names)
    end
  end
  return { word, found[3], found[2], unpack(notes) }
end)
