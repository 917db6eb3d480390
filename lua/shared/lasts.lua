-- lasts.lua: included where something may only go if something else stays.

-- Whether what expires at a is there at least until b; both below zero for never, zero for a moment
-- that has passed while the script ran.
local function lasts(a, b) return a < 0 or (b >= 0 and a > 0 and a >= b) end
