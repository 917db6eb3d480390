-- same.lua: included by the scripts that compare. How does a target stand to its source?

include "shared/expiries.lua"
include "shared/values.lua"

-- Kinds of which equal payloads are worth a look. A set is compared inside the server anyway, and
-- the payload of a string costs more than the string.
local function has_telling_payload(kind)
  return kind ~= 'set' and kind ~= 'string'
end

local payloads_have_differed = {}

-- Equal payloads prove equal values, the expiries of fields included, at half the price of reading
-- the fields. Different payloads prove nothing: on Redis, a hashtable is never dumped in the order
-- of its copy, so once payloads have differed, hashtables are read instead.
local function payloads_equal(kind, source, target)
  if payloads_have_differed[kind] and redis.call('OBJECT', 'ENCODING', source) == 'hashtable' then
    return false
  end
  if redis.call('DUMP', source) == redis.call('DUMP', target) then return true end
  payloads_have_differed[kind] = true
  return false
end

-- How a target stands to its source, which is of the given kind and not gone: 'same', 'expiry'
-- (equal in value, but the key or a field expires at another time), 'partial' (the target agrees in
-- all it has and lacks some), 'differs' or 'missing'.
--
-- Returns the word; for expiry, partial and differs also notes on what differs: a list of names and
-- values in turn, see values.lua; and for a target that is partial and otherwise the same, expiries
-- included, the list of the names it lacks.
local function compare(kind, source, target, ignore_expiry, show_values)
  if
    has_telling_payload(kind)
    and payloads_equal(kind, source, target)
    and (ignore_expiry or not keys_expire_apart(source, target))
  then
    return 'same'
  end
  local target_kind = redis.call('TYPE', target).ok
  if target_kind == 'none' then return 'missing' end
  if target_kind ~= kind then
    return 'differs', { 'source_type', kind, 'target_type', target_kind }
  end
  local word, notes, lacking = compare_values(kind, source, target, show_values)
  local expire_apart = not ignore_expiry and note_expiries(notes, kind, source, target)
  if expire_apart and word == 'same' then word = 'expiry' end
  if word == 'same' then return word end
  return word, notes, word == 'partial' and not expire_apart and lacking or nil
end

-- The answer for a pair: the word alone, or a list of the word and the notes.
local function answer(word, notes)
  if notes and #notes > 0 then return { word, unpack(notes) } end
  return word
end
