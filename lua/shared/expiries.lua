-- expiries.lua: included by same.lua. Do two keys, and the fields of two hashes, expire together?

include "shared/expires.lua"
include "shared/moments.lua"
include "shared/apart.lua"
include "shared/values.lua"

-- Calls visit(field, a, b) for each field of the source, as each_expiry_of does.
local function each_field_expiry(source, target, visit)
  each_expiry_of(redis.call('HKEYS', source), source, target, visit)
end

local function keys_expire_apart(source, target)
  return anything_expires('keys') and apart(redis.call('PTTL', source), redis.call('PTTL', target))
end

-- In milliseconds, false for none.
local function note_ttls(notes, source, target)
  local a, b = redis.call('PTTL', source), redis.call('PTTL', target)
  note(notes, 'source_ttl_ms', a >= 0 and a)
  note(notes, 'target_ttl_ms', b >= 0 and b)
end

-- Adds to the notes how the expiries of two keys of one kind differ; returns whether they do.
local function note_expiries(notes, kind, source, target)
  local differ = false
  if keys_expire_apart(source, target) then
    differ = true
    note_ttls(notes, source, target)
  end
  if kind == 'hash' and anything_expires('fields') then
    local fields = {}
    each_field_expiry(source, target, function(field, a, b)
      if b ~= -2 and apart(a, b) then fields[#fields + 1] = field end
    end)
    if #fields > 0 then
      differ = true
      note_names(notes, 'expiring_apart', fields)
    end
  end
  return differ
end
