-- remove.lua: deletes each target that equals its source, so that nothing is lost with it.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1  the rule's type: hash, set, zset, list, string, stream or any
--       2  '1' to delete, '0' to answer only what would be
--       3  '1' to answer values too where they differ
--
-- Answers one string per pair, in the order of KEYS:
--   removed         the target equalled its source, which lives at least as long, and is deleted
--   same            the same, but it is not deleted (only with ARGV 2 '0')
--   missing         there is no target
--   gone            there is no source, so no target of it is deleted
--   ignored <type>  the source is of this type, which is not the rule's
--   failed <text>   the server refused, in its own words; the other pairs are not affected
-- or a list of the word kept and what differs, name by name (see values.lua), with the reason:
--   expiry          equal in value, but the source or a field of it expires sooner
--   partial         the target lacks some of the source
--   differs         the target contradicts the source or has another type
--
-- Writes: UNLINK of targets, nothing else; with ARGV 2 '0' nothing, and runs under EVALSHA_RO.

include "shared/sources.lua"
include "shared/same.lua"

local wanted_type, delete, show_values = ARGV[1], ARGV[2] == '1', ARGV[3] == '1'

-- Whether what expires at a is there at least until b; both below zero for never.
local function lasts(a, b) return a < 0 or (b >= 0 and a >= b) end

-- The target first: a clock that goes on between the two readings makes the source look too
-- short-lived, never too long-lived.
local function source_lasts(source, target)
  local until_b = redis.call('PTTL', target)
  return lasts(redis.call('PTTL', source), until_b)
end

local function fields_last(source, target)
  local last = true
  each_field_expiry(source, target, function(_, a, b) last = last and lasts(a, b) end)
  return last
end

local function outlives(kind, source, target)
  -- Twice, because the clock may have gone on just then.
  if not (source_lasts(source, target) or source_lasts(source, target)) then return false end
  return kind ~= 'hash' or not anything_expires('fields') or fields_last(source, target)
end

return answer_each_source(wanted_type, function(kind, source, target)
  local word, notes = compare(kind, source, target, false, show_values)
  if word == 'missing' then return word end
  if (word == 'same' or word == 'expiry') and outlives(kind, source, target) then
    if not delete then return 'same' end
    redis.call('UNLINK', target)
    return 'removed'
  end
  if word == 'same' then
    word, notes = 'expiry', {}
    note_ttls(notes, source, target)
  end
  note(notes, 'reason', word)
  return answer('kept', notes)
end)
