-- remove.lua: deletes each target that equals its source, so that nothing is lost with it.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1  the time it may take, 2  the weight it may go through: see shared/pause.lua
--       3  the rule's type: hash, set, zset, list, string, stream or any
--       4  '1' to delete, '0' to answer only what would be
--       5  '1' to answer values too where they differ
--
-- Answers for each pair, in the order of KEYS (see shared/each.lua: behind the last answer, the
-- microseconds taken; fewer answers where the time was spent), a string:
--   removed         the target equalled its source, which lives at least as long, and is deleted
--   same            the same, but it is not deleted (only with ARGV 4 '0')
--   missing         there is no target
--   gone            there is no source, so no target of it is deleted
--   ignored <type>  the source is of this type, which is not the rule's
--   big <type> <bytes>  source or target, which is this big, would take too long: not touched
--   failed <text>   the server refused, in its own words; the other pairs are not affected
-- or a list of the word kept and what differs, name by name (see values.lua), with the reason:
--   expiry          equal in value, but the source or a field of it expires sooner
--   partial         the target lacks some of the source
--   differs         the target contradicts the source or has another type
--
-- Writes: UNLINK of targets, nothing else; with ARGV 4 '0' nothing, and runs under EVALSHA_RO.

include "shared/sources.lua"
include "shared/same.lua"
include "shared/lasts.lua"

local wanted_type, delete, show_values = ARGV[3], ARGV[4] == '1', ARGV[5] == '1'

-- The target first: a clock that goes on between the two readings makes the source look too
-- short-lived, never too long-lived.
local function source_lasts(source, target)
  local until_b = redis.call('PTTL', target)
  return lasts(redis.call('PTTL', source), until_b)
end

-- The fields that the source loses sooner than the target.
local function fields_that_do_not_last(kind, source, target)
  local fields = {}
  if kind == 'hash' and anything_expires('fields') then
    each_field_expiry(source, target, function(field, a, b)
      if not lasts(a, b) then fields[#fields + 1] = field end
    end)
  end
  return fields
end

-- Notes on what expires sooner in the source than in a target of equal value; empty for nothing.
local function notes_on_sooner(kind, source, target)
  local notes = {}
  -- Twice, because the clock may have gone on just then.
  if
    anything_expires('keys')
    and not (source_lasts(source, target) or source_lasts(source, target))
  then
    note_ttls(notes, source, target)
  end
  local fields = fields_that_do_not_last(kind, source, target)
  if #fields > 0 then note_names(notes, 'expiring_apart', fields) end
  return notes
end

return answer_each_source(wanted_type, function(kind, source, target)
  local word, notes = compare(kind, source, target, false, show_values)
  if word == 'missing' then return word end
  if word == 'same' or word == 'expiry' then
    word, notes = 'expiry', notes_on_sooner(kind, source, target)
    if #notes == 0 then
      if not delete then return 'same' end
      redis.call('UNLINK', target)
      return 'removed'
    end
  end
  note(notes, 'reason', word)
  return answer('kept', notes)
end)
