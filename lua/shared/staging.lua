-- staging.lua: included by the scripts that copy a big key in chunks.

include "shared/slices.lua"

-- Each adds elements to a staging key: a flat list as chunks.lua reads it, or pieces of a string.
local STAGE = {
  hash = function(staging, elements)
    in_slices(elements, 2, function(...) redis.call('HSET', staging, ...) end)
  end,
  set = function(staging, elements)
    in_slices(elements, 1, function(...) redis.call('SADD', staging, ...) end)
  end,
  zset = function(staging, elements)
    for i = 1, #elements, 2 do elements[i], elements[i + 1] = elements[i + 1], elements[i] end
    in_slices(elements, 2, function(...) redis.call('ZADD', staging, ...) end)
  end,
  list = function(staging, elements)
    in_slices(elements, 1, function(...) redis.call('RPUSH', staging, ...) end)
  end,
  string = function(staging, elements) redis.call('APPEND', staging, elements[1]) end,
}
