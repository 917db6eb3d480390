-- lib/chunk.lua: goes through one large key in several calls.
--
-- Positions (see lib/contents.lua; of a string they are offsets) stay valid as long as nobody writes to the key,
-- which the caller sees to (WATCH).

local request = include "lib/request.lua"
local budget = include "lib/budget.lua"
local contents = include "lib/contents.lua"

-- What an element weighs beside its bytes.
local LEAST_ELEMENT = 48

local function each_piece(key, position, step, visit)
  local begin, length = tonumber(position), request.call('STRLEN', key)
  local offset, visited = begin, 0
  repeat
    local piece = request.call('GETRANGE', key, offset, offset + step - 1)
    visit({ piece }, offset)
    budget.spend(#piece)
    visited, offset = visited + #piece, offset + step
  until offset >= length or budget.is_spent()
  return offset >= length and '0' or ('%d'):format(offset), visited, 0
end

-- Goes through a key from a position, `step` elements or bytes at a time, and calls visit(elements, from) for each
-- step that found any, until the end or until the time is spent. Returns the next position, how many elements or
-- bytes have been visited, and the bytes of the largest element, 0 for a string.
local function go_through(kind, key, position, step, visit)
  if kind == 'string' then return each_piece(key, position, step, visit) end
  local visited, largest = 0, 0
  repeat
    local next_position, elements = contents.read(kind, key, position, step)
    local weight = LEAST_ELEMENT * #elements
    for _, element in ipairs(elements) do
      weight = weight + #element
      largest = math.max(largest, #element)
    end
    budget.spend(weight)
    visited = visited + #elements / contents.WIDTH[kind]
    if #elements > 0 then visit(elements, position) end
    position = next_position
  until position == '0' or budget.is_spent()
  return position, visited, largest
end

return { go_through = go_through }
