-- sampling.lua: included by weight.lua, for servers on which MEMORY may not be called. What does a key weigh?

include "shared/reading.lua"
include "shared/sizes.lua"

-- As many elements as MEMORY USAGE looks at.
local SAMPLED = 5
-- What an element takes beside its bytes.
local LEAST_SAMPLED = 64

-- The bytes of some elements of a key, and how many elements those are.
local function sample(kind, key)
  local elements = {}
  if kind == 'stream' then
    for i, entry in ipairs(redis.call('XRANGE', key, '-', '+', 'COUNT', SAMPLED)) do
      elements[i] = table.concat(entry[2] or {}, (' '):rep(LEAST_SAMPLED))
    end
  else
    elements = select(2, READ[kind](key, '0', SAMPLED))
  end
  local bytes = 0
  for _, element in ipairs(elements) do bytes = bytes + #element + LEAST_SAMPLED end
  return bytes, #elements / (PARTS[kind] or 1)
end

-- The bytes that a key takes, by a few of its elements; false where it is not there. What a module's type takes nobody
-- can tell: more than one script may go through.
local function sampled_weight(kind, key, capacity)
  if redis.call('TYPE', key).ok == 'none' then return false end
  if not SIZE[kind] then return capacity + 1 end
  if kind == 'string' then return redis.call('STRLEN', key) + LEAST_SAMPLED end
  local bytes, count = sample(kind, key)
  return LEAST_SAMPLED + math.floor(bytes * size_of(kind, key) / math.max(1, count))
end
