-- wanted.lua: included by the scripts that read sources of one type.

include "shared/weight.lua"
include "shared/gone.lua"

-- The type of a source that is of the wanted type ('any' for whatever there is), and its bytes in memory.
-- Of the others nil, and the answer: 'ignored <type>', or 'gone' where there is no source.
local function wanted_source(wanted, source)
  local kind = redis.call('TYPE', source).ok
  if kind ~= wanted and wanted ~= 'any' and kind ~= 'none' then return nil, 'ignored ' .. kind end
  local bytes = not is_gone(kind, source) and take_up(kind, source)
  if not bytes then return nil, 'gone' end
  return kind, bytes
end
