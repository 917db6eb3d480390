-- lib/shortcut.lua: the least that must be read to tell that two keys are equal, and a shortcut for pairs that are.
--
-- Equal payloads, as DUMP gives them, prove two keys equal in type and value, the expiries of fields included, and
-- cost less than reading what is in them. Payloads that are not equal prove nothing.
--
-- The shortcut proves pairs to be equal, and decides nothing else: all others are left to lib/copy.lua and
-- lib/compare.lua, which ask everything again. It does not ask for types: the first byte of a payload tells the type,
-- and GET and HKEYS are refused where it is another.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local budget = include "lib/budget.lua"
local expiry = include "lib/expiry.lua"

local spend_small, begin_pair = budget.spend_small, budget.begin_pair
local fields_may_expire, differ = expiry.fields_may_expire, expiry.differ
local type, unpack, byte = type, unpack, ('').byte
-- The shortcut is given names; where these lie in two databases, it selects one of them for many pairs.
local call, try = redis.call, redis.pcall
local enter, key_names = request.enter, request.names

local KEYS_UNASKED = 15

-- How many pairs go without the shortcut after one for which it was in vain.
local PAIRS_AT_REST = 15
local FOR_EVER = 1 / 0

-- HMGET goes through a compact hash again for each field: of many fields that is slower than reading all.
local MOST_ASKED = 100
-- More than unpack() takes at once are read by lib/compare.lua.
local MOST_MEMBERS = 1000

-- How many sources of another database are read before their targets are.
local GROUP = 32

local HAS_SHORTCUT = { hash = true, set = true, zset = true, list = true, string = true, stream = true }

-- By type, how many keys are still to be read without asking whether they are hashtables; nil where payloads are
-- compared. Of sets the first is asked: hashtables are compared by SDIFF at the cost of a payload.
local unasked = { set = 0 }

-- Whether this server, or this user's permissions, keep DUMP from scripts: only a module's type cannot do without.
local payloads_are_refused = false

-- The last source whose value the shortcut has found to be another than its target's, or could not compare.
local found_unequal

-- The group of pairs that are taken together: the first source and the last; and by their number in the group, what
-- is to be found in each target (see read), whether that has been made, how long the source lives, and the answer;
-- and how many have been taken.
local first_source, last_source, taken = 0, 0, 0
local wanted_of, values_of, was_made, lifetime_of, answer_of = {}, {}, {}, {}, {}

-- The shortcut: whether it copies; whether expiries of keys count; how many pairs are still to go without it; the
-- type of the sources that it is for; the command that reads them; and which first bytes of payloads, each an encoding,
-- are of that type.
local copies, expiries_count, resting, expected, reading, is_of_type = false, true, FOR_EVER, nil, nil, {}

-- Whether the payload of a key is worth making: a hashtable of Redis is never dumped in the order of its copy. So
-- once payloads have differed, hashtables are read instead; and since keys of one pattern are much alike, only now
-- and then is the server asked whether a key is one.
local function payload_tells(kind, key)
  local left = unasked[kind]
  if not left then return true end
  if left > 0 then
    unasked[kind] = left - 1
    return false
  end
  if request.pcall('OBJECT', 'ENCODING', key) ~= 'hashtable' then
    unasked[kind] = nil
    return true
  end
  unasked[kind] = KEYS_UNASKED
  return false
end

local function note_differing_payloads(kind)
  if kind == 'hash' or kind == 'set' then unasked[kind] = unasked[kind] or 0 end
end

-- Whether a hash and a target that may be anything are equal.
local function fields_equal(source, target)
  local found = request.pcall('HGETALL', target)
  if #found == 0 then return false end
  local wanted = request.call('HGETALL', source)
  if #wanted ~= #found then return false end
  local value_of = {}
  for i = 1, #wanted, 2 do value_of[wanted[i]] = wanted[i + 1] end
  for i = 1, #found, 2 do
    if value_of[found[i]] ~= found[i + 1] then return false end
  end
  return true
end

-- Whether a source, and a target that may be anything, are found equal in value, the expiries of fields included, at
-- the least cost; if not, that proves nothing. A string's payload costs more than the string in it.
local function equal(kind, source, target)
  if kind == 'string' or source == found_unequal then return false end
  if payloads_are_refused or not payload_tells(kind, source) then
    return kind == 'hash' and not fields_may_expire(source) and fields_equal(source, target)
  end
  local payload = request.pcall('DUMP', target)
  if type(payload) == 'table' then
    payloads_are_refused = true
    return false
  end
  if payload == request.call('DUMP', source) then return true end
  note_differing_payloads(kind)
  return false
end

local function learn_type(first_byte, key)
  is_of_type[first_byte] = try('TYPE', key).ok == expected
  return is_of_type[first_byte]
end

-- What of a source is to be found in its target: the string; the payload; or of a hashtable the names and the values
-- of a hash, the members of a set and true. Nothing where the source is of another type, or has no shortcut.
local function read(source)
  if not spend_small(expected, source) then return nil end
  if expected == 'string' then
    local text = try('GET', source)
    return type(text) == 'string' and text
  end
  if not unasked[expected] or payload_tells(expected, source) then
    local payload = try('DUMP', source)
    if type(payload) ~= 'string' then return nil end
    local first = byte(payload)
    return (is_of_type[first] or is_of_type[first] == nil and learn_type(first, source)) and payload
  end
  if expected == 'set' then
    -- SDIFF, which compares sets of one database, needs no shortcut.
    local members = enter and try('SMEMBERS', source) or {}
    return #members > 0 and #members <= MOST_MEMBERS and members, true
  end
  local names = try('HKEYS', source)
  -- An error, too, is a table, and has no elements.
  if #names == 0 or #names > MOST_ASKED then return nil end
  local values = try('HVALS', source)
  return #values == #names and names, values
end

-- Whether a target that may be anything has these members and no others.
local function has_members(target, members)
  local found = try('SMISMEMBER', target, unpack(members))
  for i = 1, #members do
    if found[i] ~= 1 then return false end
  end
  return try('SCARD', target) == #members
end

-- Whether a target that may be anything has these fields and no others.
local function has_fields(target, names, values)
  local found = try('HMGET', target, unpack(names))
  for i = 1, #names do
    if found[i] ~= values[i] then return false end
  end
  return try('HLEN', target) == #names
end

-- Whether a target that may be anything has what is to be found in it.
local function has(target, wanted, values)
  if values == true then return has_members(target, wanted) end
  if values then return has_fields(target, wanted, values) end
  if try(reading, target) == wanted then return true end
  note_differing_payloads(expected)
  return false
end

-- Answers 'same' for a pair whose target is there and equals its source, and 'copied' for one whose target was absent
-- and has been made so. Of any other it answers nothing, and batch.made tells whether the target has been made.
-- Writes: COPY without REPLACE.
local function settle(source, target)
  if resting > 0 then
    resting = resting - 1
    return nil
  end
  resting = PAIRS_AT_REST
  if not copies and not spend_small(expected, target) then return nil end
  local wanted, values = read(source)
  if not wanted then return nil end
  local made = copies and try('COPY', source, target) == 1
  if made then
    batch.made = target
  elseif copies and not spend_small(expected, target) then
    return nil
  end
  if not has(target, wanted, values) then
    found_unequal = source
    return nil
  end
  if expiries_count then
    local a, b = call('PTTL', source), call('PTTL', target)
    -- Mostly neither expires.
    if (a ~= -1 or b ~= -1) and differ(a, b) then return nil end
  end
  batch.made, resting = false, 0
  return made and 'copied' or 'same'
end

-- Takes the sources of the group: reads each, and makes its target where the shortcut copies. The group ends where
-- there is no time for another.
local function take_sources()
  local database, behind = enter(first_source + 1), math.min(first_source + 2 * GROUP, #key_names)
  enter(first_source)
  repeat
    local n, source = (last_source - first_source) / 2, key_names[last_source]
    local wanted, values = read(source)
    wanted_of[n], values_of[n] = wanted, values
    was_made[n] = wanted and copies and try('COPY', source, key_names[last_source + 1], 'DB', database) == 1
    lifetime_of[n] = wanted and expiries_count and try('PTTL', source)
    taken = n + 1
    local is_last = last_source + 2 >= behind or not begin_pair(last_source + 2)
    if not is_last then last_source = last_source + 2 end
  until is_last
end

-- What settle answers for the n-th pair of the group, as its source was taken.
local function compare_in_group(n, target)
  if not was_made[n] and not spend_small(expected, target) then return false end
  if not has(target, wanted_of[n], values_of[n]) then return false end
  if expiries_count then
    local a, b = lifetime_of[n], try('PTTL', target)
    if (a ~= -1 or b ~= -1) and differ(a, b) then return false end
  end
  return was_made[n] and 'copied' or 'same'
end

local function take_group()
  take_sources()
  enter(first_source + 1)
  for n = 0, (last_source - first_source) / 2 do
    answer_of[n] = wanted_of[n] and compare_in_group(n, key_names[first_source + 2 * n + 1])
  end
end

-- Where the pairs span two databases, to select one takes about as long as to ask when a key expires. So some sources
-- are taken first, and then their targets are read. Begins such a group with a pair, if there is time for it: see
-- budget.begin_pair.
local function begin_group(i)
  if i <= last_source then return true end
  if not begin_pair(i) then return false end
  first_source, last_source = i, i
  if resting > 0 then
    answer_of[0], was_made[0], wanted_of[0] = false, false, false
    return true
  end
  taken = 0
  if pcall(take_group) then return true end
  -- What it was will be told of each pair, once it is decided about alone.
  for n = 0, (last_source - i) / 2 do
    answer_of[n] = false
    if n >= taken then wanted_of[n], was_made[n] = false, false end
  end
  return true
end

-- Answers for a pair of the group as settle does.
local function settle_of_group(source, target)
  local n = (source - first_source) / 2
  if answer_of[n] then return answer_of[n] end
  resting = resting > 0 and resting - 1 or PAIRS_AT_REST
  batch.made = was_made[n] and target
  if wanted_of[n] then found_unequal = source end
  return nil
end

-- Opens the shortcut for sources like this one, of the given type; later where types alternate. There is none for
-- hashes where fields expire: such a hash may have no field that has not expired.
local function expect(kind, source)
  if kind == expected then return end
  local is_open = HAS_SHORTCUT[kind] and not (kind == 'hash' and fields_may_expire(source))
  resting = is_open and (expected and PAIRS_AT_REST or 0) or FOR_EVER
  expected, reading, is_of_type = kind, kind == 'string' and 'GET' or 'DUMP', {}
end

-- Returns for batch.each_source how pairs are settled, what is told of those that it is to decide itself, and how
-- the next ones are begun.
local function begin(is_to_copy, ignore_expiry)
  copies, expiries_count = is_to_copy, not ignore_expiry and expiry.keys_may_expire()
  if enter then return settle_of_group, expect, begin_group end
  return settle, expect, begin_pair
end

return { equal = equal, begin = begin }
