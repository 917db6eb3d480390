-- lacking.lua: included by the scripts that fill, or say what would be filled.

-- Whether a target of this kind that lacks some names, and differs in nothing else, is to be
-- filled. filling: '' for nothing, 'sets' for hashes and sets, 'queues' for sorted sets too.
local function may_be_filled(kind, lacking, filling)
  if not lacking or filling == '' then return false end
  return kind ~= 'zset' or filling == 'queues'
end

-- A digest of names, whatever their order: two looks that give the same saw the same names missing.
local function digest(names)
  table.sort(names)
  local parts = {}
  for i, name in ipairs(names) do parts[i] = #name .. ':' .. name end
  return redis.sha1hex(table.concat(parts))
end
