-- lib/later.lua: libraries that are made at their first use.
--
-- A script makes all its functions again at each call. Those that most calls do without would add to what a batch
-- of small keys costs.

-- Returns what make() will return, a table, once something in it is asked for.
local function library(make)
  return setmetatable({}, {
    __index = function(made, name)
      for each, value in pairs(make()) do made[each] = value end
      return rawget(made, name)
    end,
  })
end

return { library = library }
