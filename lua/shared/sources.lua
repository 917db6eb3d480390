-- sources.lua: included by the scripts that answer for sources of one type.

include "shared/weight.lua"
include "shared/gone.lua"

-- Calls decide(kind, source, target) for each pair whose source is of the wanted type ('any' for
-- whatever there is) and returns its answers in order. The others answer 'ignored <type>', 'gone'
-- where there is no source, or 'big <type> <bytes>' where source or target is too big for one script.
local function answer_each_source(wanted, decide)
  return answer_each_pair(function(source, target)
    local kind = redis.call('TYPE', source).ok
    if kind ~= wanted and wanted ~= 'any' and kind ~= 'none' then return 'ignored ' .. kind end
    if is_gone(kind, source) or not take_up(kind, source) then return 'gone' end
    return decide(kind, source, target)
  end)
end
