-- pairs.lua: included by the scripts that answer for each pair of keys.

-- The text of an error: a table since Redis 7.0, a string before.
local function error_text(problem)
  return type(problem) == 'table' and problem.err or tostring(problem)
end

-- Calls decide(source, target) for each pair in KEYS and returns its answers in order. A pair
-- whose decision raises an error answers 'failed <the server's text>': scripts do not roll back,
-- so an error that got out would lose the answers of every pair before it.
local function answer_each_pair(decide)
  local answers, last = {}, -1
  local function go_on()
    for i = last + 2, #KEYS, 2 do
      last = i
      answers[#answers + 1] = decide(KEYS[i], KEYS[i + 1])
    end
  end
  while true do
    local ok, problem = pcall(go_on)
    if ok then return answers end
    answers[#answers + 1] = 'failed ' .. error_text(problem)
  end
end
