-- lib/diff.lua: compares the contents of two keys of one kind, and notes what differs.
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

local later = include "lib/later.lua"

return later.make(function()
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

  -- The value of a name in a flat list of names and values; nil where it is not there.
  local function value_in(elements, name)
    for i = 1, #elements, 2 do
      if elements[i] == name then return elements[i + 1] end
    end
  end

  local function note_values(notes, wanted, found, ...)
    local values = {}
    for _, names in ipairs({ ... }) do
      for i = 1, math.min(#names, NAMES_SHOWN) do
        local name = names[i]
        values[#values + 1] =
          { shown(name), shown(value_in(wanted, name)) or false, shown(value_in(found, name)) or false }
      end
    end
    note(notes, 'values', values)
  end

  -- The names that only a source has, only its target has, and both have with other values. Of a set the
  -- members are names, and true the value of each.
  local function sort_out(wanted, found, is_set)
    local step = is_set and 1 or 2
    local value_of = {}
    for i = 1, #wanted, step do value_of[wanted[i]] = is_set or wanted[i + 1] end
    local missing, additional, contradicting = {}, {}, {}
    for i = 1, #found, step do
      local name = found[i]
      if value_of[name] == nil then
        additional[#additional + 1] = name
      elseif value_of[name] ~= (is_set or found[i + 1]) then
        contradicting[#contradicting + 1] = name
      end
      value_of[name] = nil
    end
    for i = 1, #wanted, step do
      if value_of[wanted[i]] ~= nil then missing[#missing + 1] = wanted[i] end
    end
    return missing, additional, contradicting
  end

  -- How hash, set or zset stand, by what was sorted out: as contents() says it.
  local function judge(missing, additional, contradicting)
    local notes, conflicts = {}, #additional + #contradicting
    if #missing + conflicts == 0 then return 'same', notes end
    note_names(notes, 'missing', missing)
    note_names(notes, 'additional', additional)
    note_names(notes, 'contradicting', contradicting)
    return conflicts > 0 and 'differs' or 'partial', notes, missing
  end

  local function compare_maps(wanted, found, show_values)
    local missing, additional, contradicting = sort_out(wanted, found, false)
    local word, notes = judge(missing, additional, contradicting)
    if show_values and word ~= 'same' then note_values(notes, wanted, found, missing, additional, contradicting) end
    return word, notes, missing
  end

  local function compare_sets(wanted, found) return judge(sort_out(wanted, found, true)) end

  local function compare_strings(wanted, found, show_values)
    local a, b = wanted[1], found[1]
    if a == b then return 'same', {} end
    local notes = { 'source_size', #a, 'target_size', #b }
    if show_values then note(notes, 'values', { { false, shown(a), shown(b) } }) end
    return 'differs', notes
  end

  local function compare_lists(a, b, show_values)
    local first = 1
    while a[first] and a[first] == b[first] do first = first + 1 end
    if not a[first] and not b[first] then return 'same', {} end
    local notes = { 'source_size', #a, 'target_size', #b, 'first_difference', first - 1 }
    if show_values then
      note(notes, 'values', { { tostring(first - 1), shown(a[first] or false), shown(b[first] or false) } })
    end
    return 'differs', notes
  end

  local STREAM_STATE = { 'size', 'entries', 'last_id', 'groups' }

  local function compare_streams(a, b)
    local differing = {}
    for i = 2, #STREAM_STATE do
      if a[i] ~= b[i] then differing[#differing + 1] = STREAM_STATE[i] end
    end
    if #differing == 0 then return 'same', {} end
    return 'differs', { 'source_size', tonumber(a[1]), 'target_size', tonumber(b[1]), 'differing', differing }
  end

  -- A vector set is not filled: one that lacks something differs.
  local function compare_vectors(wanted, found)
    local word, notes = compare_maps(wanted, found, false)
    return word == 'partial' and 'differs' or word, notes
  end

  -- A module's type: its payload is all that is known of it.
  local function compare_payloads(a, b)
    if a[1] == b[1] then return 'same', {} end
    return 'differs', { 'source_size', #a[1], 'target_size', #b[1] }
  end

  local COMPARE = {
    hash = compare_maps, set = compare_sets, zset = compare_maps, list = compare_lists,
    string = compare_strings, stream = compare_streams, vectorset = compare_vectors,
  }

  -- How the contents of two keys of one kind stand: 'same', 'partial' (hash, set, zset) or 'differs';
  -- the notes; and, where the target only lacks something, the names it lacks.
  local function compare_contents(kind, wanted, found, show_values)
    return (COMPARE[kind] or compare_payloads)(wanted, found, show_values)
  end

  return { note = note, note_names = note_names, judge = judge, contents = compare_contents }
end)
