-- mirror_plain.lua: makes plain targets what their sources are, by the least commands; the rest is for mirror.lua.
--
-- It includes no library: most calls are about one or two pairs, and to load what mirror.lua needs would take the
-- server three times as long as this takes. It decides only where equal payloads, as DUMP gives them, prove all that
-- there is to know, and only about types of which a payload's first byte tells that no field expires.
--
-- KEYS  source 1, target 1, source 2, target 2, ..., and at the end the lease; all in the connection's database
-- ARGV  1, 2  time (not used) and weight: how many bytes of memory it may go through, source and target together
--       3  the value that the lease has while the caller holds it
--       4..  for each pair two: the rule's type, and whose the target is, as mirror.lua has it
--
-- Answers for each pair a string, and behind them the microseconds taken, 0 where the server lends no clock; fewer
-- where the bytes were spent, but at least one:
--   same, copied, removed, gone, unheld  as mirror.lua has them
--   undecided       it is for mirror.lua to decide: nothing was touched, but where a copy differs from its source
--
-- Writes: COPY with REPLACE, and UNLINK, of targets alone; what is not own only where it is absent.

local try = redis.pcall
local clock = rawget(_G, 'os') and os.clock
local began = clock and clock()
local left, is_held = tonumber(ARGV[2]), redis.call('GET', KEYS[#KEYS]) == ARGV[3]

-- What a pair costs whatever is in it, in bytes.
local LEAST_PAIR = 200

-- So often expiries are read, at most.
local READINGS = 5

-- The types of payloads by their first byte. Of hashtables the order may differ, and fields may expire in others than
-- these, so they are not here.
local KIND = {
  [0] = 'string', [5] = 'zset', [11] = 'set', [12] = 'zset', [13] = 'hash', [14] = 'list', [16] = 'hash',
  [17] = 'zset', [18] = 'list', [20] = 'set',
}

-- Whether a key of this many bytes, nil for one that is absent, fits into what is left.
local function fits(bytes)
  if not bytes then return true end
  if type(bytes) ~= 'number' or bytes > left then return false end
  left = left - bytes
  return true
end

local function without_source(target, wanted, rights)
  local kind = try('TYPE', target).ok
  if kind == 'none' then return 'gone' end
  local is_own = rights == '2' and (wanted == 'any' or kind == wanted)
  return is_own and try('UNLINK', target) == 1 and 'removed' or 'undecided'
end

-- Whether two keys expire at one moment. On Redis 6.2 and 7.0 the clock goes on in a script, so what seems to differ
-- is read again, until the clock has stood still meanwhile.
local function expire_together(source, target)
  for _ = 1, READINGS do
    local expires, there = try('PTTL', source), try('PTTL', target)
    if expires == there then return expires ~= 0 end
    if type(expires) ~= 'number' or type(there) ~= 'number' or expires < there then return false end
    if try('PTTL', source) == expires then return false end
  end
  return false
end

local function decide(source, target, wanted, rights)
  local bytes = try('MEMORY', 'USAGE', source)
  if not bytes then return without_source(target, wanted, rights) end
  local bytes_there = try('MEMORY', 'USAGE', target)
  if not fits(bytes) or not fits(bytes_there) then return 'undecided' end
  local payload = try('DUMP', source)
  local kind = type(payload) == 'string' and KIND[payload:byte()]
  if not kind or (wanted ~= 'any' and kind ~= wanted) then return 'undecided' end
  if bytes_there and try('DUMP', target) == payload then
    if expire_together(source, target) then return 'same' end
  end
  if rights == '0' and bytes_there then return 'undecided' end
  if try('COPY', source, target, 'REPLACE') ~= 1 or try('DUMP', target) ~= payload then return 'undecided' end
  return 'copied'
end

local answers, count = {}, (#KEYS - 1) / 2
for i = 1, count do
  if i > 1 and left <= 0 then break end
  left = left - LEAST_PAIR
  answers[i] = is_held and decide(KEYS[2 * i - 1], KEYS[2 * i], ARGV[2 * i + 2], ARGV[2 * i + 3]) or 'unheld'
end
answers[#answers + 1] = clock and math.floor((clock() - began) * 1e6) or 0
return answers
