-- same.lua: included by the scripts that compare. How does a target stand to its source?

include "shared/weight.lua"
include "shared/expiries.lua"
include "shared/values.lua"
include "shared/contents.lua"

local READINGS_UNASKED = 15

local readings_left

-- Whether this server, or this user's permissions, keep DUMP from scripts: only a module's type cannot do without.
local payloads_are_refused = false

-- Whether the payload of a hash is worth a look: a hashtable of Redis is never dumped in the order of
-- its copy. So once payloads have differed, hashtables are read instead; and since keys of one
-- pattern are much alike, only now and then is the server asked whether a hash is one.
local function payload_tells(key)
  if not readings_left then return true end
  if readings_left > 0 then
    readings_left = readings_left - 1
    return false
  end
  if redis.pcall('OBJECT', 'ENCODING', key) ~= 'hashtable' then
    readings_left = nil
    return true
  end
  readings_left = READINGS_UNASKED
  return false
end

-- Whether a hash and a target that may be anything hold the same.
local function fields_equal(source, target)
  local found = redis.pcall('HGETALL', target)
  if #found == 0 then return false end
  local wanted = redis.call('HGETALL', source)
  if #wanted ~= #found then return false end
  local value_of = {}
  for i = 1, #wanted, 2 do value_of[wanted[i]] = wanted[i + 1] end
  for i = 1, #found, 2 do
    if value_of[found[i]] ~= found[i + 1] then return false end
  end
  return true
end

-- Whether two keys are found equal in value, the expiries of fields included, at the least cost; if
-- not, that proves nothing. Equal payloads prove it at half the price of reading the fields. A set
-- is compared inside the server anyway, and a payload costs more than the string in it.
local function equal_at_a_glance(kind, source, target)
  if kind == 'set' or kind == 'string' then return false end
  if kind == 'hash' and (payloads_are_refused or not payload_tells(source)) then
    return not anything_expires('fields') and fields_equal(source, target)
  end
  if payloads_are_refused then return false end
  local payload = redis.pcall('DUMP', target)
  if type(payload) == 'table' then
    payloads_are_refused = true
    return false
  end
  if payload == redis.call('DUMP', source) then return true end
  if kind == 'hash' then readings_left = readings_left or 0 end
  return false
end

-- How the values of two keys of one kind stand: as compare_contents says it.
local function compare_values(kind, source, target, show_values)
  -- Sets are compared by the server itself, which is many times quicker.
  if kind == 'set' then return judge(redis.call('SDIFF', source, target), redis.call('SDIFF', target, source), {}) end
  return compare_contents(kind, contents_of(kind, source), contents_of(kind, target), show_values)
end

-- How a target that is there stands to its source, which is of the given kind and not gone: 'same',
-- 'expiry' (equal in value, but the key or a field expires at another time), 'partial' (the target
-- agrees in all it has and lacks some) or 'differs'.
--
-- Returns the word; for expiry, partial and differs also notes on what differs: a list of names and
-- values in turn, see values.lua; and for a target that is partial and otherwise the same, expiries
-- included, the list of the names it lacks.
local function compare_present(kind, source, target, ignore_expiry, show_values)
  local equal = equal_at_a_glance(kind, source, target)
  if equal and (ignore_expiry or not keys_expire_apart(source, target)) then return 'same' end
  local word, notes, lacking = 'same', {}, nil
  if not equal then
    local target_kind = redis.call('TYPE', target).ok
    if target_kind ~= kind then
      return 'differs', { 'source_type', kind, 'target_type', target_kind }
    end
    word, notes, lacking = compare_values(kind, source, target, show_values)
  end
  local expire_apart = not ignore_expiry and note_expiries(notes, kind, source, target)
  if expire_apart and word == 'same' then word = 'expiry' end
  if word == 'same' then return word end
  return word, notes, word == 'partial' and not expire_apart and lacking or nil
end

-- The same for a target that may be anything and of any size: also 'missing'.
local function compare(kind, source, target, ignore_expiry, show_values)
  if not take_up(kind, target) then return 'missing' end
  return compare_present(kind, source, target, ignore_expiry, show_values)
end

-- The answer for a pair: the word alone, or a list of the word and the notes.
local function answer(word, notes)
  if notes and #notes > 0 then return { word, unpack(notes) } end
  return word
end
