-- lib/sample.lua: what keys weigh where this server, or this user's permissions, keep MEMORY from scripts.

local request = include "lib/request.lua"
local contents = include "lib/contents.lua"
local later = include "lib/later.lua"

return later.make(function()
  -- As many elements as MEMORY USAGE samples, and what each takes beside its bytes.
  local SAMPLED, LEAST_SAMPLED = 5, 64

  -- The bytes of some elements of a key, and how many elements those are.
  local function sample(kind, key)
    local elements = {}
    if kind == 'stream' then
      for i, entry in ipairs(request.call('XRANGE', key, '-', '+', 'COUNT', SAMPLED)) do
        elements[i] = table.concat(entry[2] or {}, (' '):rep(LEAST_SAMPLED))
      end
    else
      elements = select(2, contents.read(kind, key, '0', SAMPLED))
    end
    local bytes = 0
    for _, element in ipairs(elements) do bytes = bytes + #element + LEAST_SAMPLED end
    return bytes, #elements / (contents.WIDTH[kind] or 1)
  end

  -- How many entries wait for the consumers of a stream's groups, whether or not they are still in it.
  local function pending_entries(key)
    local pending = 0
    for _, group in ipairs(request.call('XINFO', 'GROUPS', key)) do
      for i = 1, #group, 2 do
        if group[i] == 'pending' then pending = pending + group[i + 1] end
      end
    end
    return pending
  end

  -- The bytes that a key takes, by a few of its elements; false where it is not there, nil for a module's type: what
  -- that takes nobody can tell.
  local function sampled_weight(key)
    local kind = request.call('TYPE', key).ok
    if kind == 'none' then return false end
    if not contents.SIZE[kind] then return nil end
    if kind == 'string' then return request.call('STRLEN', key) + LEAST_SAMPLED end
    local bytes, count = sample(kind, key)
    local pending = kind == 'stream' and pending_entries(key) or 0
    return LEAST_SAMPLED * (1 + pending) + math.floor(bytes * contents.size(kind, key) / math.max(1, count))
  end

  return { weight = sampled_weight }
end)
