-- probe.lua: finds out which commands a script of this user may call on this server. Writes nothing.
--
-- KEYS  names the other scripts will be given: declaring them makes the server check them
-- ARGV  1   the name of a key that does not exist
--       2.. commands
--
-- Answers a string per command:
--   ok       may be called
--   untried  nobody can tell without writing: the script may write here (EVALSHA)
--   <text>   the server refused, in its own words

local ABSENT = ARGV[1]

-- COPY onto itself is an error that is raised after permissions are checked and before anything is written. So are
-- a missing source of RENAMENX, a payload of RESTORE that is none, and a field without a value for HSET.
local ARGUMENTS = {
  TIME = {}, INFO = { 'persistence' }, SET = { ABSENT, '', 'XX' }, HDEL = { ABSENT, '' },
  APPEND = { ABSENT, '' }, HGET = { ABSENT, '' }, HMGET = { ABSENT, '' }, HSETNX = { ABSENT, '', '' },
  RPUSH = { ABSENT, '' }, SADD = { ABSENT, '' }, SISMEMBER = { ABSENT, '' }, SMISMEMBER = { ABSENT, '' },
  ZMSCORE = { ABSENT, '' }, ZSCORE = { ABSENT, '' },
  GETRANGE = { ABSENT, 0, 0 }, LRANGE = { ABSENT, 0, 0 }, ZRANGE = { ABSENT, 0, 0 }, RESTORE = { ABSENT, 0, '' },
  HSCAN = { ABSENT, 0 }, SSCAN = { ABSENT, 0 }, PEXPIRE = { ABSENT, 1 }, PEXPIREAT = { ABSENT, 1 },
  COPY = { ABSENT, ABSENT }, RENAMENX = { ABSENT, ABSENT },
  HPEXPIREAT = { ABSENT, 1, 'FIELDS', 1, '' }, HPEXPIRETIME = { ABSENT, 'FIELDS', 1, '' },
  HSET = { ABSENT, '', '', '' }, ZADD = { ABSENT, 'XX', 1, '' },
  MEMORY = { 'USAGE', ABSENT }, OBJECT = { 'ENCODING', ABSENT },
  VEMB = { ABSENT, '' }, VGETATTR = { ABSENT, '' }, XINFO = { 'STREAM', ABSENT, 'FULL' }, XRANGE = { ABSENT, '-', '+' },
}

-- What a server says that has checked whether the command may be called, and permits it.
local PERMITTED = {
  COPY = 'source and destination objects are the same',
  HSET = 'wrong number of arguments',
  OBJECT = 'no such key',
  RENAMENX = 'no such key',
  RESTORE = 'payload version or checksum',
  XINFO = 'no such key',
}
-- The same of any command: it checks the command before its key, which may be one that the user may not touch, before
-- the memory that is left, and before it checks whether the script may write.
local READ_ONLY = 'not allowed from read-only scripts'
local LATER_REFUSALS = {
  READ_ONLY, 'OOM command not allowed', 'permissions to access', "can't access at least one of the keys",
}

-- These would write, unless the script is one that may not.
local WOULD_WRITE = { APPEND = true, HSETNX = true, RPUSH = true, SADD = true }

local function call(command)
  local reply = redis.pcall(command, unpack(ARGUMENTS[command] or { ABSENT }))
  return type(reply) == 'table' and reply.err or ''
end

local function says(text, words) return text:find(words, 1, true) ~= nil end

local function is_permitted(command, text)
  if text == '' or PERMITTED[command] and says(text, PERMITTED[command]) then return true end
  for _, refusal in ipairs(LATER_REFUSALS) do
    if says(text, refusal) then return true end
  end
  return false
end

local answers, may_write = {}, nil
for i = 2, #ARGV do
  local command, text = ARGV[i], 'untried'
  if WOULD_WRITE[command] and may_write == nil then may_write = not says(call('COPY'), READ_ONLY) end
  if not (WOULD_WRITE[command] and may_write) then
    text = call(command)
    text = is_permitted(command, text) and 'ok' or text
  end
  answers[#answers + 1] = text
end
return answers
