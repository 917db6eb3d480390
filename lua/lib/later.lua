-- lib/later.lua: libraries that are made at their first use.
--
-- A script makes all its functions again at each call. Those that most calls do without would add to what a batch
-- of small keys costs.

-- Returns what produce() will return, a table, once something in it is asked for.
local function make(produce)
  return setmetatable({}, {
    __index = function(made, name)
      for each, value in pairs(produce()) do made[each] = value end
      return rawget(made, name)
    end,
  })
end

return { make = make }
