-- remove.lua: deletes each target that equals its source, so that nothing is lost with it.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  the rule's type: hash, set, zset, list, string, stream or any
--       4  '1' to delete, '0' to answer only what would be
--       5  '1' to answer values too where they differ
--
-- Answers for each pair what lib/batch.lua says, or a string:
--   removed         the target equalled its source, which lives at least as long, and is deleted
--   same            the same, but it is not deleted (only with ARGV 4 '0')
--   missing         there is no target
-- or a list of this word and what differs (see lib/diff.lua), with the reason:
--   kept            the target is not deleted. The reason is one of
--     expiry        equal in value, but the source or a field of it expires sooner
--     partial       the target lacks some of the source
--     differs       the target contradicts the source or has another type
--
-- Writes: UNLINK of targets, nothing else; with ARGV 4 '0' nothing, and runs under EVALSHA_RO.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local compare = include "lib/compare.lua"
local diff = include "lib/diff.lua"
local expiry = include "lib/expiry.lua"

local ARGV = request.arguments
local wanted_type, delete, show_values = ARGV[3], ARGV[4] == '1', ARGV[5] == '1'

-- The target first: a clock that goes on between the two readings makes the source seem too short-lived,
-- never too long-lived.
local function source_outlives(source, target)
  local target_ttl = request.call('PTTL', target)
  return expiry.outlives(request.call('PTTL', source), target_ttl)
end

local function expires_sooner(a, b) return not expiry.outlives(a, b) end

-- Notes on what expires sooner in the source than in a target of equal value; empty for nothing.
local function notes_on_sooner(kind, source, target)
  local notes = {}
  -- Twice, because the clock may have gone on just then.
  if expiry.keys_may_expire() and not (source_outlives(source, target) or source_outlives(source, target)) then
    compare.note_ttls(notes, source, target)
  end
  local fields = compare.fields_by_expiry(kind, source, target, expires_sooner)
  if #fields > 0 then diff.note_names(notes, 'expiring_apart', fields) end
  return notes
end

return batch.each_source(wanted_type, function(kind, source, target)
  local word, notes = compare.any(kind, source, target, false, show_values)
  if word == 'missing' then return word end
  if word == 'same' or word == 'expiry' then
    word, notes = 'expiry', notes_on_sooner(kind, source, target)
    if #notes == 0 then
      if not delete then return 'same' end
      request.call('UNLINK', target)
      return 'removed'
    end
  end
  diff.note(notes, 'reason', word)
  return batch.answer('kept', notes)
end)
