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

-- How many entries wait for the consumers of a stream's groups, whether or not they are still in it.
local function pending_entries(key)
  local pending = 0
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    for i = 1, #group, 2 do
      if group[i] == 'pending' then pending = pending + group[i + 1] end
    end
  end
  return pending
end

-- The bytes that a key takes, by a few of its elements; false where it is not there. What a module's type takes nobody
-- can tell: more than one script may go through.
local function sampled_weight(key, capacity)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return false end
  if not SIZE[kind] then return capacity + 1 end
  if kind == 'string' then return redis.call('STRLEN', key) + LEAST_SAMPLED end
  local bytes, count = sample(kind, key)
  local pending = kind == 'stream' and pending_entries(key) or 0
  return LEAST_SAMPLED * (1 + pending) + math.floor(bytes * size_of(kind, key) / math.max(1, count))
end
