-- values.lua: included by same.lua. Compares two keys of one kind, and notes what differs.
--
-- Notes are a flat list: name, value, name, value, ... for the report to show:
--   missing, additional, contradicting   numbers of fields or members that only the source has,
--       only the target has, or both have with another value or score (hash, set, zset)
--   missing_names, ...   the first few of them
--   source_size, target_size   length (string in bytes, list, stream) or bytes of payload
--   first_difference   the index from which two lists differ
--   differing   what differs in two streams: entries, last_id, groups
--   values   {name, the source's value, the target's value} for those named, where asked for
-- Names and values are cut after LONGEST_SHOWN bytes: an answer must stay small.

local NAMES_SHOWN = 5
local LONGEST_SHOWN = 200

local function note(notes, name, value)
  notes[#notes + 1] = name
  notes[#notes + 1] = value
end

local function shown(text) return text and text:sub(1, LONGEST_SHOWN) end

-- Notes how many names there are and which are the first.
local function note_names(notes, name, names)
  note(notes, name, #names)
  if #names == 0 then return end
  local first = {}
  for i = 1, math.min(#names, NAMES_SHOWN) do first[i] = shown(names[i]) end
  note(notes, name .. '_names', first)
end

local VALUE = { hash = 'HGET', zset = 'ZSCORE' }

local function note_values(notes, kind, source, target, ...)
  local values = {}
  for _, names in ipairs({ ... }) do
    for i = 1, math.min(#names, NAMES_SHOWN) do
      local name, ask = names[i], VALUE[kind]
      values[#values + 1] =
        { shown(name), shown(redis.call(ask, source, name)), shown(redis.call(ask, target, name)) }
    end
  end
  note(notes, 'values', values)
end

-- Whether a hash and a target that may be anything hold the same.
local function fields_equal(source, target)
  local found = redis.pcall('HGETALL', target)
  if #found == 0 then return false end
  local wanted = redis.call('HGETALL', source)
  if #wanted ~= #found then return false end
  local value_of = {}
  for i = 1, #wanted, 2 do value_of[wanted[i]] = wanted[i + 1] end
  for i = 1, #found, 2 do
    if value_of[found[i]] ~= found[i + 1] then return false end
  end
  return true
end

-- The names that only a source has, only its target has, and both have with other values.
local function sort_out(wanted, found)
  local value_of = {}
  for i = 1, #wanted, 2 do value_of[wanted[i]] = wanted[i + 1] end
  local missing, additional, contradicting = {}, {}, {}
  for i = 1, #found, 2 do
    local name = found[i]
    if value_of[name] == nil then
      additional[#additional + 1] = name
    elseif value_of[name] ~= found[i + 1] then
      contradicting[#contradicting + 1] = name
    end
    value_of[name] = nil
  end
  for i = 1, #wanted, 2 do
    if value_of[wanted[i]] ~= nil then missing[#missing + 1] = wanted[i] end
  end
  return missing, additional, contradicting
end

-- Hash, set or zset. Sets are compared by the server itself, which is many times quicker.
local function compare_elements(kind, source, target, show_values)
  local missing, additional, contradicting
  if kind == 'set' then
    missing, additional = redis.call('SDIFF', source, target), redis.call('SDIFF', target, source)
    contradicting = {}
  elseif kind == 'hash' then
    missing, additional, contradicting =
      sort_out(redis.call('HGETALL', source), redis.call('HGETALL', target))
  else
    missing, additional, contradicting = sort_out(
      redis.call('ZRANGE', source, 0, -1, 'WITHSCORES'),
      redis.call('ZRANGE', target, 0, -1, 'WITHSCORES')
    )
  end
  local notes, against = {}, #additional + #contradicting
  if #missing + against == 0 then return 'same', notes end
  note_names(notes, 'missing', missing)
  note_names(notes, 'additional', additional)
  note_names(notes, 'contradicting', contradicting)
  if show_values and kind ~= 'set' then
    note_values(notes, kind, source, target, missing, additional, contradicting)
  end
  return against > 0 and 'differs' or 'partial', notes, missing
end

local function compare_strings(source, target, show_values)
  local a, b = redis.call('GET', source), redis.call('GET', target)
  if a == b then return 'same', {} end
  local notes = { 'source_size', #a, 'target_size', #b }
  if show_values then note(notes, 'values', { { false, shown(a), shown(b) } }) end
  return 'differs', notes
end

local function compare_lists(source, target, show_values)
  local a, b = redis.call('LRANGE', source, 0, -1), redis.call('LRANGE', target, 0, -1)
  local first = 1
  while a[first] and a[first] == b[first] do first = first + 1 end
  if not a[first] and not b[first] then return 'same', {} end
  local notes = { 'source_size', #a, 'target_size', #b, 'first_difference', first - 1 }
  if show_values then
    note(notes, 'values', { { tostring(first - 1), shown(a[first] or false), shown(b[first] or false) } })
  end
  return 'differs', notes
end

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

-- Of a stream: entries; the last id; groups with their position, consumers and pending entries. Not
-- how it is laid out in memory, nor when a consumer was last seen.
local function stream_state(key)
  local stream = by_name(redis.call('XINFO', 'STREAM', key, 'FULL', 'COUNT', 0))
  local groups = {}
  for i, reply in ipairs(stream.groups) do
    local group, consumers = by_name(reply), {}
    for j, consumer in ipairs(group.consumers) do consumers[j] = by_name(consumer).name end
    groups[i] = { group.name, group['last-delivered-id'], group.pending, consumers }
  end
  return {
    size = stream.length,
    entries = flattened(stream.entries),
    last_id = stream['last-generated-id'],
    groups = flattened(groups),
  }
end

local function compare_streams(source, target)
  local a, b = stream_state(source), stream_state(target)
  local differing = {}
  for _, part in ipairs({ 'entries', 'last_id', 'groups' }) do
    if a[part] ~= b[part] then differing[#differing + 1] = part end
  end
  if #differing == 0 then return 'same', {} end
  return 'differs', { 'source_size', a.size, 'target_size', b.size, 'differing', differing }
end

-- A module's type: its payload is all that is known of it.
local function compare_payloads(source, target)
  local a, b = redis.call('DUMP', source), redis.call('DUMP', target)
  if a == b then return 'same', {} end
  return 'differs', { 'source_size', #a, 'target_size', #b }
end

-- How the values of two keys of one kind stand: 'same', 'partial' (hash, set, zset) or 'differs';
-- the notes; and, where the target only lacks something, the names it lacks.
local function compare_values(kind, source, target, show_values)
  if kind == 'hash' or kind == 'set' or kind == 'zset' then
    return compare_elements(kind, source, target, show_values)
  elseif kind == 'string' then
    return compare_strings(source, target, show_values)
  elseif kind == 'list' then
    return compare_lists(source, target, show_values)
  elseif kind == 'stream' then
    return compare_streams(source, target)
  end
  return compare_payloads(source, target)
end
