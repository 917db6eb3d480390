-- moments.lua: included where fields' expiries are compared.

local FIELDS_PER_CALL = 1000 -- unpack() gives up at 8,000 values

-- Calls visit(field, a, b) for each of the fields with the moments at which it expires in two hashes:
-- in milliseconds since 1970, -1 for never, -2 where there is no such field.
local function each_expiry_of(fields, one, other, visit)
  for first = 1, #fields, FIELDS_PER_CALL do
    local last = math.min(first + FIELDS_PER_CALL - 1, #fields)
    local count = last - first + 1
    local a = redis.call('HPEXPIRETIME', one, 'FIELDS', count, unpack(fields, first, last))
    local b = redis.call('HPEXPIRETIME', other, 'FIELDS', count, unpack(fields, first, last))
    -- On a key that is not there, Redis answers with nothing instead of a list.
    for i = 1, count do visit(fields[first + i - 1], a[i], b and b[i] or -2) end
  end
end
