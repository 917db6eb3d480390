-- slices.lua: included where flat lists of elements are handed on.

local ELEMENTS_PER_CALL = 1000 -- unpack() gives up at 8,000 values

-- Calls visit with at most ELEMENTS_PER_CALL elements of a flat list at a time, unpacked.
local function in_slices(elements, parts, visit)
  local size = ELEMENTS_PER_CALL * parts
  for first = 1, #elements, size do
    visit(unpack(elements, first, math.min(first + size - 1, #elements)))
  end
end
