-- reading.lua: included where some elements of a key are read at once.
--
-- A position is '0' at the beginning and again behind the end: a cursor for hashes and sets, a rank or an index for
-- the others.

local function next_index(position, count, found) return found < count and '0' or ('%d'):format(position + found) end

-- How many parts of a flat list are an element.
local PARTS = { hash = 2, set = 1, zset = 2, list = 1 }

-- The next position, and a flat list: field, value, ... or member, score, ... or members or items.
local READ = {
  hash = function(key, position, count)
    local reply = redis.call('HSCAN', key, position, 'COUNT', count)
    return reply[1], reply[2]
  end,
  set = function(key, position, count)
    local reply = redis.call('SSCAN', key, position, 'COUNT', count)
    return reply[1], reply[2]
  end,
  zset = function(key, position, count)
    local found = redis.call('ZRANGE', key, position, position + count - 1, 'WITHSCORES')
    return next_index(position, count, #found / 2), found
  end,
  list = function(key, position, count)
    local found = redis.call('LRANGE', key, position, position + count - 1)
    return next_index(position, count, #found), found
  end,
}
