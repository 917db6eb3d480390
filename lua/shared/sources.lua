-- sources.lua: included by the scripts that answer for pairs whose source is of one type.

include "shared/wanted.lua"
include "shared/pairs.lua"

-- Calls decide(kind, source, target) for each pair with such a source and returns its answers in order. A
-- pair with a source or target that is too big for one script answers 'big <type> <bytes>'.
local function answer_each_source(wanted, decide)
  return answer_each_pair(function(source, target)
    local kind, answer = wanted_source(wanted, source)
    if not kind then return answer end
    return decide(kind, source, target)
  end)
end
