-- sizes.lua: included where sizes are answered.

local SIZE = {
  hash = 'HLEN', set = 'SCARD', zset = 'ZCARD', list = 'LLEN', string = 'STRLEN', stream = 'XLEN',
}

-- Elements of a key of this kind, or bytes of a string; 0 for what is not known.
local function size_of(kind, key) return SIZE[kind] and redis.call(SIZE[kind], key) or 0 end
