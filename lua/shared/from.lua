-- from.lua: included by the scripts that fill from a source in the same slot.

include "shared/adding.lua"
include "shared/taking.lua"

-- Adds a name that the source still has to a target that lacks it.
local function add_from(kind, source, target, name)
  local value, at = TAKE[kind](source, name)
  if value then ADD[kind](target, name, value, at) end
end
