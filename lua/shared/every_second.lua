-- every_second.lua: included where flat lists of pairs are taken apart.

-- Every second value of a flat list, from the first or the second one on.
local function every_second(elements, first)
  local found = {}
  for i = first, #elements, 2 do found[#found + 1] = elements[i] end
  return found
end
