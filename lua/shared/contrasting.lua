-- contrasting.lua: included by the scripts that hold chunks of one big key against another key.

include "shared/slices.lua"
include "shared/every_second.lua"
include "shared/expires.lua"
include "shared/moments.lua"
include "shared/apart.lua"
include "shared/lasts.lua"

local found, counts, contrasted, expiries_noted, most_names

-- What the chunks are held against, and what is noted: see the heads of the scripts.
local function begin_contrast(kind, other, expiries, most)
  contrasted, expiries_noted, most_names = { kind = kind, other = other }, expiries, most
  found = { missing = {}, contradicting = {}, expiring_apart = {} }
  counts = { missing = 0, contradicting = 0, expiring_apart = 0 }
end

local function note_found(what, name)
  counts[what] = counts[what] + 1
  if counts[what] <= most_names then found[what][counts[what]] = name end
end

-- What was found, and how the keys expire, by two expiries as apart.lua has them (-2 for no such key): names and values
-- in turn.
local function found_by_contrast(a, b)
  local is_lasting = a ~= -2 and lasts(a, b)
  local answer = { 'expire_apart', apart(a, b) and 1 or 0, 'lasts', is_lasting and 1 or 0 }
  for what, count in pairs(counts) do
    for _, part in ipairs({ what, count, what .. '_names', found[what] }) do answer[#answer + 1] = part end
  end
  return answer
end

-- Whether two scores are one number: a zero may have lost its sign, as it does in a compact encoding.
local function equal_scores(a, b) return contrasted.kind == 'zset' and tonumber(a) == tonumber(b) end

-- Looks the names up in the other key and sorts them by what is there. values: nil where there are none.
local function sort_by(command, names, values)
  local first = 0
  in_slices(names, 1, function(...)
    for i, value in ipairs(redis.call(command, contrasted.other, ...)) do
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

local CONTRAST = {
  hash = function(elements) sort_by('HMGET', every_second(elements, 1), every_second(elements, 2)) end,
  set = function(elements) sort_by('SMISMEMBER', elements) end,
  zset = function(elements) sort_by('ZMSCORE', every_second(elements, 1), every_second(elements, 2)) end,
  list = function(elements, from)
    local items = redis.call('LRANGE', contrasted.other, from, from + #elements - 1)
    for i, element in ipairs(elements) do
      if element ~= items[i] then note_found('contradicting', ('%d'):format(from + i - 1)) end
    end
  end,
}

-- A string has no elements: a piece of it.
local function contrast_piece(piece, offset)
  if piece ~= redis.call('GETRANGE', contrasted.other, offset, offset + #piece - 1) then
    note_found('contradicting', ('%d'):format(offset))
  end
end

-- The moments at which a field expires in both: see moments.lua.
local function contrast_moments(field, a, b)
  local as_wanted
  if expiries_noted == 'apart' then as_wanted = b == -2 or not apart(a, b) else as_wanted = lasts(a, b) end
  if not as_wanted then note_found('expiring_apart', field) end
end
