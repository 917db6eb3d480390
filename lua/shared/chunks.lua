-- chunks.lua: included by the scripts that go through one big key in several calls.
--
-- A position is '0' at the beginning and again behind the end: a cursor for hashes and sets, a rank or
-- an index for the others. Positions hold as long as nobody writes to the key, which the caller sees
-- to (WATCH).

include "shared/pause.lua"
include "shared/reading.lua"

-- What an element weighs beside its bytes.
local LEAST_ELEMENT = 48

-- Goes through a key from a position, `step` elements at a time, and calls visit(elements, from) for
-- each step, until the end or until the time is spent. Returns the next position, how many elements
-- have been visited, and the bytes of the largest.
local function go_through(kind, key, position, step, visit)
  local visited, largest = 0, 0
  repeat
    local from = position
    local next_position, elements = READ[kind](key, position, step)
    position = next_position
    for _, element in ipairs(elements) do
      weight = weight + #element
      largest = math.max(largest, #element)
    end
    visited = visited + #elements / PARTS[kind]
    weight = weight + LEAST_ELEMENT * #elements
    visit(elements, from)
  until position == '0' or is_spent()
  return position, visited, largest
end
