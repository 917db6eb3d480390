-- lib/compare.lua: how does a target stand to a source on the same node?

local request = include "lib/request.lua"
local budget = include "lib/budget.lua"
local contents = include "lib/contents.lua"
local diff = include "lib/diff.lua"
local expiry = include "lib/expiry.lua"
local shortcut = include "lib/shortcut.lua"

local spend_key, equal_at_a_glance = budget.spend_key, shortcut.equal
local keys_may_expire, fields_may_expire, differ = expiry.keys_may_expire, expiry.fields_may_expire, expiry.differ

-- How the values of two keys of one kind stand: as diff.contents says it.
local function compare_values(kind, source, target, show_values)
  -- Sets of one database are compared by the server itself, which is many times quicker.
  if kind == 'set' and not request.enter then
    return diff.judge(request.call('SDIFF', source, target), request.call('SDIFF', target, source), {})
  end
  return diff.contents(kind, contents.all(kind, source), contents.all(kind, target), show_values)
end

local function key_expiries_differ(source, target)
  return keys_may_expire() and differ(request.call('PTTL', source), request.call('PTTL', target))
end

-- The fields of a source for which is_noted(a, b) says so of when they expire in source and target.
local function fields_by_expiry(kind, source, target, is_noted)
  local fields = {}
  if kind == 'hash' and fields_may_expire(source) then
    expiry.each_field(request.call('HKEYS', source), source, target, function(field, a, b)
      if is_noted(a, b) then fields[#fields + 1] = field end
    end)
  end
  return fields
end

-- Notes how long two keys live: in milliseconds, false for ever.
local function note_ttls(notes, source, target)
  local a, b = request.call('PTTL', source), request.call('PTTL', target)
  diff.note(notes, 'source_ttl_ms', a >= 0 and a)
  diff.note(notes, 'target_ttl_ms', b >= 0 and b)
end

local function is_other_expiry(a, b) return b ~= -2 and differ(a, b) end

-- Adds to the notes how the expiries of two keys of one kind differ; returns whether they do.
local function note_expiries(notes, kind, source, target)
  local keys_differ = key_expiries_differ(source, target)
  if keys_differ then note_ttls(notes, source, target) end
  local fields = fields_by_expiry(kind, source, target, is_other_expiry)
  if #fields > 0 then diff.note_names(notes, 'expiring_apart', fields) end
  return keys_differ or #fields > 0
end

-- How a target that is there stands to its source, which is of the given kind and not gone: 'same', 'expiry' (equal
-- in value, but the key or a field expires at another time), 'partial' (the target agrees in all it has and lacks
-- some) or 'differs'.
--
-- Returns the word; for expiry, partial and differs also notes on what differs: a list of names and values in turn,
-- see lib/diff.lua; and for a target that is partial and otherwise the same, expiries included, the list of the
-- names it lacks.
local function present(kind, source, target, ignore_expiry, show_values)
  local equal = equal_at_a_glance(kind, source, target)
  if equal and (ignore_expiry or not key_expiries_differ(source, target)) then return 'same' end
  local word, notes, lacking = 'same', {}, nil
  if not equal then
    local target_kind = request.call('TYPE', target).ok
    if target_kind ~= kind then
      return 'differs', { 'source_type', kind, 'target_type', target_kind }
    end
    word, notes, lacking = compare_values(kind, source, target, show_values)
  end
  local expiries_differ = not ignore_expiry and note_expiries(notes, kind, source, target)
  if expiries_differ and word == 'same' then word = 'expiry' end
  if word == 'same' then return word end
  return word, notes, word == 'partial' and not expiries_differ and lacking or nil
end

-- The same for a target that may be anything and of any size: also 'missing'.
local function any(kind, source, target, ignore_expiry, show_values)
  if not spend_key(kind, target) then return 'missing' end
  return present(kind, source, target, ignore_expiry, show_values)
end

return { present = present, any = any, fields_by_expiry = fields_by_expiry, note_ttls = note_ttls }
