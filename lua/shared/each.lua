-- each.lua: included by the scripts that answer for each key, or each pair of keys.

include "shared/pause.lua"

-- The text of an error: a table since Redis 7.0, a string before.
local function error_text(problem)
  return type(problem) == 'table' and problem.err or tostring(problem)
end

-- What a pair takes whatever its keys weigh.
local LEAST_PAIR = 64

-- The key that the decision under way has made and not judged yet.
local made

-- Deletes that key again: 'failed' means that nothing has been written. Returns what to say where it cannot be.
local function take_back()
  local reply = redis.pcall('UNLINK', made)
  local text = type(reply) == 'table' and '; and what was written cannot be deleted: ' .. reply.err or ''
  made = nil
  return text
end

-- The answer for a pair whose decision has ended with an error.
local function answer_to(problem)
  local left = made and take_back() or ''
  if type(problem) == 'table' and problem.decided then return problem.decided end
  local text = error_text(problem) .. left
  -- In a cluster, of a key that lives on another node, or is on its way there without the other of its pair.
  local is_elsewhere = text:find('non local key', 1, true) or text:find('rehashing of the slot', 1, true)
  return is_elsewhere and 'moved' or 'failed ' .. text
end

-- Calls decide(i) for every `width`th name in KEYS, i being its index, and returns its answers in order,
-- behind them the microseconds taken; fewer answers than names, but at least one, where the time was spent. A
-- decision may be broken off with error({decided = answer}). Any other error answers 'moved', or 'failed <the
-- server's text>': scripts do not roll back, so one that got out would lose the answers of every pair
-- before it.
local function answer_each(width, decide)
  local answers, answered, last, keys = {}, 0, 1 - width, #KEYS
  local function go_on()
    for i = last + width, keys, width do
      if weight >= next_look and i > 1 and is_spent() then return end
      last = i
      weight = weight + LEAST_PAIR
      local answer = decide(i)
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
  answers[answered + 1] = time_taken()
  return answers
end
