-- pairs.lua: included by the scripts that answer for each pair of keys.

include "shared/each.lua"

-- Calls decide(source, target) for each pair in KEYS, as answer_each does.
local function answer_each_pair(decide)
  return answer_each(2, function(i) return decide(KEYS[i], KEYS[i + 1]) end)
end
