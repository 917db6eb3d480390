-- lib/batch.lua: answers for each key of a batch, or each pair of keys.
--
-- A script that uses this answers a list: one answer for each key or pair, in the order of KEYS; behind them the
-- microseconds taken. There are fewer answers where the time was spent, but at least one. An answer is a string, or
-- a list of a word and what differs, name by name (see lib/diff.lua). Besides its own words, each script may answer:
--   big <type> <bytes>  the source or the target, which is this big, would take too long: not touched
--   moved           the key lives on another node now, or is on its way there
--   failed <text>   the server refused, in its own words; the others are not affected
-- and one that is given the type of its sources:
--   gone            there is no source
--   ignored <type>  the source is of this type, which is not the wanted one

local request = include "lib/request.lua"
local budget = include "lib/budget.lua"
local expiry = include "lib/expiry.lua"

local KEYS = request.keys
local begin_pair, spend_key, is_gone = budget.begin_pair, budget.spend_key, expiry.is_gone

-- What this library offers. batch.made is the key that the decision under way has made and not judged yet: whoever
-- makes one, notes it there, and takes the note away once it is judged.
local batch

-- Deletes that key again: 'failed' means that nothing has been written. Returns what to say where it cannot be.
local function take_back()
  local reply = request.pcall('UNLINK', batch.made)
  batch.made = false
  return type(reply) == 'table' and '; and what was written cannot be deleted: ' .. reply.err or ''
end

-- The answer for a pair whose decision has ended with an error.
local function answer_to(problem)
  local left = batch.made and take_back() or ''
  if type(problem) == 'table' and problem.decided then return problem.decided end
  -- An error is a table since Redis 7.0, a string before.
  local text = (type(problem) == 'table' and problem.err or tostring(problem)) .. left
  -- In a cluster, of a key that lives on another node, or is on its way there without the other of its pair.
  local is_elsewhere = text:find('non local key', 1, true) or text:find('rehashing of the slot', 1, true)
  return is_elsewhere and 'moved' or 'failed ' .. text
end

-- Calls decide(key, next key, index) for every `width`th key and returns its answers, as said above; but first
-- begin(index), which says whether there is time, and settle(key, next key), where there is one, which may have an
-- answer. A decision may be ended with error({decided =
-- answer}). Any other error is answered for: scripts do not roll back, so one that got out would lose the answers of
-- every pair before it.
local function answer_each(width, decide, settle, begin)
  begin = begin or begin_pair
  local answers, answered, last, count = {}, 0, 1 - width, #KEYS
  local function go_on()
    for i = last + width, count, width do
      last = i
      if not begin(i) then return end
      local key, next_key = KEYS[i], KEYS[i + 1]
      local answer = settle and settle(key, next_key) or decide(key, next_key, i)
      answered = answered + 1
      answers[answered] = answer
    end
  end
  while true do
    local ok, problem = pcall(go_on)
    if ok then break end
    answered = answered + 1
    answers[answered] = answer_to(problem)
  end
  answers[answered + 1] = request.time_taken()
  return answers
end

-- Calls decide(key, index) for each key.
local function each_key(decide)
  return answer_each(1, function(key, _, i) return decide(key, i) end)
end

-- Calls decide(source, target) for each pair of keys.
local function each_pair(decide) return answer_each(2, decide) end

-- The type of a source that is of the wanted type ('any' for whatever there is), and its weight in bytes. Of the
-- others nil, and the answer.
local function wanted_source(wanted, source)
  local kind = request.call('TYPE', source).ok
  if kind ~= wanted and wanted ~= 'any' and kind ~= 'none' then return nil, 'ignored ' .. kind end
  local bytes = not is_gone(kind, source) and spend_key(kind, source)
  if not bytes then return nil, 'gone' end
  return kind, bytes
end

-- Calls decide(kind, source, target) for each pair whose source is of the wanted type. settle, expect, begin: see
-- shortcut.begin; nil where all pairs are to be decided.
local function each_source(wanted, decide, settle, expect, begin)
  return answer_each(2, function(source, target)
    local kind, refusal = wanted_source(wanted, source)
    if not kind then return refusal end
    if expect then expect(kind, source) end
    return decide(kind, source, target)
  end, settle, begin)
end

-- The answer for a pair: the word alone, or a list of the word and the notes.
local function answer(word, notes)
  if notes and #notes > 0 then return { word, unpack(notes) } end
  return word
end

batch = {
  each_key = each_key, each_pair = each_pair, each_source = each_source, wanted_source = wanted_source, answer = answer,
  made = false,
}
return batch
