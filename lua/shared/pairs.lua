-- pairs.lua: included by the scripts that answer for each pair of keys.

include "shared/pause.lua"

-- The text of an error: a table since Redis 7.0, a string before.
local function error_text(problem)
  return type(problem) == 'table' and problem.err or tostring(problem)
end

-- What a pair takes whatever its keys weigh.
local LEAST_PAIR = 64

-- Calls decide(source, target) for each pair in KEYS and returns its answers in order, behind them
-- the microseconds taken; fewer answers than pairs, but at least one, where the time was spent. A
-- decision may be broken off with error({decided = answer}). Any other error answers 'failed <the
-- server's text>': scripts do not roll back, so one that got out would lose the answers of every pair
-- before it.
local function answer_each_pair(decide)
  local answers, answered, last, keys = {}, 0, -1, #KEYS
  local function go_on()
    for i = last + 2, keys, 2 do
      if weight >= next_look and i > 1 and is_spent() then return end
      last = i
      weight = weight + LEAST_PAIR
      local answer = decide(KEYS[i], KEYS[i + 1])
      answered = answered + 1
      answers[answered] = answer
    end
  end
  while true do
    local ok, problem = pcall(go_on)
    if ok then break end
    answered = answered + 1
    answers[answered] = type(problem) == 'table' and problem.decided or 'failed ' .. error_text(problem)
  end
  answers[answered + 1] = time_taken()
  return answers
end
