-- lasts.lua: included where something may only go if something else stays: the one place that says whether it does.

-- Whether what expires at a is there at least until b: two expiries as apart.lua has them.
local function lasts(a, b) return a < 0 or (b >= 0 and a > 0 and a >= b) end
