-- lib/fill.lua: what a target lacks: whether it is to be added, and how.

local request = include "lib/request.lua"
local expiry = include "lib/expiry.lua"
local later = include "lib/later.lua"

return later.make(function()
  -- What a name weighs: its values are few and small, or the pair would not be filled but copied.
  local LEAST_NAME = 512

  -- Whether a target of this kind that lacks some names, and differs in nothing else, is to be filled. filling: ''
  -- for nothing, 'sets' for hashes and sets, 'queues' for sorted sets too.
  local function is_wanted(kind, lacking, filling)
    if not lacking or filling == '' then return false end
    return kind ~= 'zset' or filling == 'queues'
  end

  -- A digest of names, whatever their order: two checks that give the same saw the same names missing.
  local function digest(names)
    table.sort(names)
    local texts = {}
    for i, name in ipairs(names) do texts[i] = #name .. ':' .. name end
    return redis.sha1hex(table.concat(texts))
  end

  -- Adds one name, with its value and the moment at which it expires (-1 for never), where the target has no such name,
  -- and nothing else. Writes: HSETNX with HPEXPIREAT for fields that expire, SADD, ZADD NX.
  local function add(kind, target, name, value, at)
    if kind == 'set' then
      request.call('SADD', target, name)
    elseif kind == 'zset' then
      request.call('ZADD', target, 'NX', value, name)
    else
      local moment = ('%d'):format(at)
      -- Asked first of a field that is not there: a server that refuses it must not leave a field without its expiry.
      if at > 0 then request.call('HPEXPIREAT', target, moment, 'FIELDS', 1, name) end
      if request.call('HSETNX', target, name, value) == 1 and at > 0 then
        request.call('HPEXPIREAT', target, moment, 'FIELDS', 1, name)
      end
    end
  end

  -- What a source has of a name: its value, and the moment at which it expires (-1 for never); no value where it has
  -- no such name (any more).
  local function take(kind, source, name)
    if kind == 'set' then return request.call('SISMEMBER', source, name) == 1 and '', -1 end
    if kind == 'zset' then return request.call('ZSCORE', source, name), -1 end
    local value, at = request.call('HGET', source, name), -1
    if value and expiry.fields_may_expire(source) then
      at = request.call('HPEXPIRETIME', source, 'FIELDS', 1, name)[1]
    end
    return value, at
  end

  -- Adds a name that the source still has to a target on the same node that lacks it.
  local function add_from(kind, source, target, name)
    local value, at = take(kind, source, name)
    if value then add(kind, target, name, value, at) end
  end

  return {
    LEAST_NAME = LEAST_NAME, is_wanted = is_wanted, digest = digest, add = add, take = take, add_from = add_from,
  }
end)
