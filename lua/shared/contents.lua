-- contents.lua: included where all that a key holds is read at once.

-- One string for a reply, however nested.
local function flattened(reply)
  if type(reply) ~= 'table' then
    local text = tostring(reply)
    return #text .. ':' .. text
  end
  local parts = {}
  for i = 1, #reply do parts[i] = flattened(reply[i]) end
  return '[' .. table.concat(parts) .. ']'
end

local function by_name(reply)
  local map = {}
  for i = 1, #reply, 2 do map[reply[i]] = reply[i + 1] end
  return map
end

-- Of a stream: its length; entries; the last id; groups with their position, consumers and pending entries.
-- Not how it is laid out in memory, nor when a consumer was last seen.
local function stream_state(key)
  local stream = by_name(redis.call('XINFO', 'STREAM', key, 'FULL', 'COUNT', 0))
  local groups = {}
  for i, reply in ipairs(stream.groups) do
    local group, consumers = by_name(reply), {}
    for j, consumer in ipairs(group.consumers) do consumers[j] = by_name(consumer).name end
    groups[i] = { group.name, group['last-delivered-id'], group.pending, consumers }
  end
  return {
    tostring(stream.length), flattened(stream.entries), stream['last-generated-id'], flattened(groups),
  }
end

-- Of a vector set: each element with its vector as it is stored, and its attributes. Not the graph between them, which
-- is for searching, and whose payload is another after each RESTORE.
local function vectors(key)
  local elements = {}
  for _, name in ipairs(redis.call('VRANDMEMBER', key, redis.call('VCARD', key))) do
    local attributes = redis.call('VGETATTR', key, name)
    elements[#elements + 1] = name
    elements[#elements + 1] = flattened({ redis.call('VEMB', key, name, 'RAW'), attributes and { attributes } or {} })
  end
  return elements
end

local CONTENTS = {
  hash = function(key) return redis.call('HGETALL', key) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  string = function(key) return { redis.call('GET', key) } end,
  stream = stream_state,
  vectorset = vectors,
}

-- All that a key holds, as a flat list of strings.
local function contents_of(kind, key)
  return CONTENTS[kind] and CONTENTS[kind](key) or { redis.call('DUMP', key) }
end
