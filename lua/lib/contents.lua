-- lib/contents.lua: what is in a key: how much it is, some of it, all of it; and elements put into a key.
--
-- A flat list of elements is field, value, ... or member, score, ... or members or items. A position in a key is
-- '0' at the beginning and again behind the end: a cursor for hashes and sets, a rank or an index for the others.

local request = include "lib/request.lua"
local later = include "lib/later.lua"

return later.make(function()
  local ELEMENTS_PER_CALL = 1000 -- unpack() gives up at 8,000 values

  local SIZE = {
    hash = 'HLEN', set = 'SCARD', zset = 'ZCARD', list = 'LLEN', string = 'STRLEN', stream = 'XLEN',
  }

  local ADDING = { hash = 'HSET', set = 'SADD', zset = 'ZADD', list = 'RPUSH' }

  -- How many values of a flat list are an element.
  local WIDTH = { hash = 2, set = 1, zset = 2, list = 1 }

  -- Elements of a key of this kind, or bytes of a string; 0 for what is not known.
  local function size(kind, key) return SIZE[kind] and request.call(SIZE[kind], key) or 0 end

  -- Every second value of a flat list, from the first or the second one on.
  local function every_second(elements, first)
    local found = {}
    for i = first, #elements, 2 do found[#found + 1] = elements[i] end
    return found
  end

  -- Calls visit with at most ELEMENTS_PER_CALL elements of a flat list at a time, unpacked.
  local function in_slices(elements, width, visit)
    local most = ELEMENTS_PER_CALL * width
    for first = 1, #elements, most do
      visit(unpack(elements, first, math.min(first + most - 1, #elements)))
    end
  end

  -- From a position on, `count` elements or so: the next position, and a flat list.
  local function read(kind, key, position, count)
    if kind == 'hash' then return unpack(request.call('HSCAN', key, position, 'COUNT', count)) end
    if kind == 'set' then return unpack(request.call('SSCAN', key, position, 'COUNT', count)) end
    local last = position + count - 1
    local found = kind == 'zset' and request.call('ZRANGE', key, position, last, 'WITHSCORES')
      or request.call('LRANGE', key, position, last)
    local number = #found / WIDTH[kind]
    return number < count and '0' or ('%d'):format(position + number), found
  end

  -- Puts a flat list of elements, or a piece of a string, into a key.
  local function write(kind, key, elements)
    if kind == 'string' then return request.call('APPEND', key, elements[1]) end
    if kind == 'zset' then
      for i = 1, #elements, 2 do elements[i], elements[i + 1] = elements[i + 1], elements[i] end
    end
    in_slices(elements, WIDTH[kind], function(...) request.call(ADDING[kind], key, ...) end)
  end

  -- One string for a reply, however nested.
  local function flattened(reply)
    if type(reply) ~= 'table' then
      local text = tostring(reply)
      return #text .. ':' .. text
    end
    local texts = {}
    for i = 1, #reply do texts[i] = flattened(reply[i]) end
    return '[' .. table.concat(texts) .. ']'
  end

  local function by_name(reply)
    local map = {}
    for i = 1, #reply, 2 do map[reply[i]] = reply[i + 1] end
    return map
  end

  -- Of a stream: its length; entries; the last id; groups with their position, consumers and pending entries.
  -- Not how it is laid out in memory, nor when a consumer was last seen.
  local function stream_state(key)
    local stream = by_name(request.call('XINFO', 'STREAM', key, 'FULL', 'COUNT', 0))
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

  -- Of a vector set: each element with its vector as it is stored, and its attributes. Not the graph between them,
  -- which is for searching, and whose payload is another after each RESTORE.
  local function vectors(key)
    local elements = {}
    for _, name in ipairs(request.call('VRANDMEMBER', key, request.call('VCARD', key))) do
      local attributes = request.call('VGETATTR', key, name)
      elements[#elements + 1] = name
      local vector = request.call('VEMB', key, name, 'RAW')
      elements[#elements + 1] = flattened({ vector, attributes and { attributes } or {} })
    end
    return elements
  end

  -- All that is in a key, as a flat list of strings.
  local function all(kind, key)
    if kind == 'hash' then return request.call('HGETALL', key) end
    if kind == 'set' then return request.call('SMEMBERS', key) end
    if kind == 'zset' then return request.call('ZRANGE', key, 0, -1, 'WITHSCORES') end
    if kind == 'list' then return request.call('LRANGE', key, 0, -1) end
    if kind == 'string' then return { request.call('GET', key) } end
    if kind == 'stream' then return stream_state(key) end
    if kind == 'vectorset' then return vectors(key) end
    return { request.call('DUMP', key) }
  end

  return {
    SIZE = SIZE, WIDTH = WIDTH, size = size, every_second = every_second, in_slices = in_slices, read = read,
    write = write, all = all,
  }
end)
