-- probe.lua: finds out which commands this user may call on this server. Writes nothing.
--
-- KEYS  names the other scripts will be given: declaring them makes the server check them
-- ARGV  1   the name of a key that does not exist
--       2.. commands
--
-- Answers a string per command:
--   ok       may be called
--   denied   the server's ACL forbids it
--   unknown  the server does not have it
--   elsewhere  the server says that the key lives on another node
--   refused <text>  the server takes no writes at present, in its own words

local ABSENT = ARGV[1]

-- COPY onto itself is an error that is raised after permissions are looked at and before anything
-- is written.
-- RENAMENX likewise fails for want of a source, RESTORE of a payload.
local ARGUMENTS = {
  COPY = { ABSENT, ABSENT },
  GETRANGE = { ABSENT, 0, 0 },
  HGET = { ABSENT, '' },
  HMGET = { ABSENT, '' },
  HPEXPIREAT = { ABSENT, 1, 'FIELDS', 1, '' },
  HPEXPIRETIME = { ABSENT, 'FIELDS', 1, '' },
  HSCAN = { ABSENT, 0 },
  LRANGE = { ABSENT, 0, 0 },
  MEMORY = { 'USAGE', ABSENT },
  OBJECT = { 'ENCODING', ABSENT },
  PEXPIRE = { ABSENT, 1 },
  PEXPIREAT = { ABSENT, 1 },
  RESTORE = { ABSENT, 0, '' },
  RENAMENX = { ABSENT, ABSENT },
  SISMEMBER = { ABSENT, '' },
  SMISMEMBER = { ABSENT, '' },
  SSCAN = { ABSENT, 0 },
  TIME = {},
  XINFO = { 'STREAM', ABSENT, 'FULL' },
  ZADD = { ABSENT, 'XX', 1, '' },
  ZMSCORE = { ABSENT, '' },
  ZRANGE = { ABSENT, 0, 0 },
  ZSCORE = { ABSENT, '' },
}

local answers = {}
for i = 2, #ARGV do
  local reply = redis.pcall(ARGV[i], unpack(ARGUMENTS[ARGV[i]] or { ABSENT }))
  local text = type(reply) == 'table' and reply.err or ''
  -- A command is looked at before its keys, so a refused key (ABSENT itself) means it is allowed.
  if text:find("can't run this command", 1, true) or text:find('no permissions to run', 1, true) then
    answers[#answers + 1] = 'denied'
  elseif text:find('Unknown', 1, true) then
    answers[#answers + 1] = 'unknown'
  elseif text:find('non local key', 1, true) then
    answers[#answers + 1] = 'elsewhere'
  elseif text:find('MISCONF') or text:find('NOREPLICAS') or text:find('READONLY') then
    answers[#answers + 1] = 'refused ' .. text
  else
    answers[#answers + 1] = 'ok'
  end
end
return answers
