-- chunks.lua: included by the scripts that go through one big key in several calls.
--
-- A position is '0' at the beginning and again behind the end: a cursor for hashes and sets, a rank or
-- an index for the others. Positions hold as long as nobody writes to the key, which the caller sees
-- to (WATCH).

include "shared/pause.lua"

-- What an element weighs beside its bytes.
local LEAST_ELEMENT = 48

local PARTS = { hash = 2, set = 1, zset = 2, list = 1 }

local function next_index(position, count, found) return found < count and '0' or ('%d'):format(position + found) end

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

-- Goes through a key from a position, `step` elements at a time, and calls visit(elements, from) for
-- each step, until the end or until the time is spent. Returns the next position, how many elements
-- have been visited, and the bytes of the largest.
local function go_through(kind, key, position, step, visit)
  local visited, largest = 0, 0
  repeat
    local from = position
    local next_position, elements = READ[kind](key, position, step)
    position = next_position
    for _, element in ipairs(elements) do
      weight = weight + #element
      largest = math.max(largest, #element)
    end
    visited = visited + #elements / PARTS[kind]
    weight = weight + LEAST_ELEMENT * #elements
    visit(elements, from)
  until position == '0' or is_spent()
  return position, visited, largest
end
