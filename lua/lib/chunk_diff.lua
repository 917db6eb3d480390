-- lib/chunk_diff.lua: compares chunks of one large key with another key, and notes what differs.

local request = include "lib/request.lua"
local contents = include "lib/contents.lua"
local expiry = include "lib/expiry.lua"

local KINDS_OF_DIFFERENCE = { 'missing', 'contradicting', 'expiring_apart' }

local kind, other, expiries, most_names, differ
local found, counts = {}, {}

-- Begins to compare with `other`, of the same type. What is noted of expiries, and how many names of each kind at
-- most: see lua/chunk/compare.lua.
local function begin(type_of_both, other_key, noted, most)
  kind, other, expiries, most_names = type_of_both, other_key, noted, most
  differ = noted == 'exact' and expiry.differ_at_all or expiry.differ
  for _, what in ipairs(KINDS_OF_DIFFERENCE) do found[what], counts[what] = {}, 0 end
end

local function note_found(what, name)
  counts[what] = counts[what] + 1
  if counts[what] <= most_names then found[what][counts[what]] = name end
end

-- What was found, and how the keys expire, by two expiries as lib/expiry.lua has them (-2 for no such key): names
-- and values in turn.
local function answer(a, b)
  local outlives = a ~= -2 and expiry.outlives(a, b)
  local answers = { 'expiries_differ', differ(a, b) and 1 or 0, 'outlives', outlives and 1 or 0 }
  for _, what in ipairs(KINDS_OF_DIFFERENCE) do
    for _, value in ipairs({ what, counts[what], what .. '_names', found[what] }) do answers[#answers + 1] = value end
  end
  return answers
end

-- Whether two scores are one number: a zero may have lost its sign, as it does in a compact encoding.
local function equal_scores(a, b) return kind == 'zset' and tonumber(a) == tonumber(b) end

-- Asks the other key for names and notes by what is there. values: nil where there are none.
local function compare_names(command, names, values)
  local first = 0
  contents.in_slices(names, 1, function(...)
    for i, value in ipairs(request.call(command, other, ...)) do
      local name = names[first + i]
      -- A member that is not in a set is 0, a field or a score that is not there is false.
      if not value or value == 0 then
        note_found('missing', name)
      elseif values and values[first + i] ~= value and not equal_scores(values[first + i], value) then
        note_found('contradicting', name)
      end
    end
    first = first + select('#', ...)
  end)
end

local function compare_pairs(command, elements)
  compare_names(command, contents.every_second(elements, 1), contents.every_second(elements, 2))
end

local COMPARE = {
  hash = function(elements) compare_pairs('HMGET', elements) end,
  set = function(elements) compare_names('SMISMEMBER', elements) end,
  zset = function(elements) compare_pairs('ZMSCORE', elements) end,
  list = function(elements, from)
    local items = request.call('LRANGE', other, from, from + #elements - 1)
    for i, element in ipairs(elements) do
      if element ~= items[i] then note_found('contradicting', ('%d'):format(from + i - 1)) end
    end
  end,
  string = function(elements, from)
    local piece = elements[1]
    if piece ~= request.call('GETRANGE', other, from, from + #piece - 1) then
      note_found('contradicting', ('%d'):format(from))
    end
  end,
}

-- Compares elements that begin at a position in their key.
local function compare(elements, from) COMPARE[kind](elements, from) end

-- Compares the moments at which a field expires in both: see expiry.each_field.
local function compare_expiries(field, a, b)
  if expiries == 'sooner' then
    if not expiry.outlives(a, b) then note_found('expiring_apart', field) end
  elseif b ~= -2 and differ(a, b) then
    note_found('expiring_apart', field)
  end
end

return { begin = begin, compare = compare, compare_expiries = compare_expiries, answer = answer }
