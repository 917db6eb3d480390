-- in_database.lua: calls one command in another database than the connection's, which stays in its own.
--
-- KEYS  the command's keys
-- ARGV  1   the number of the database
--       2.. the command and its arguments, the keys among them
--
-- Answers what the command answers. Writes what the command writes; runs under EVALSHA_RO where that is nothing.

redis.call('SELECT', ARGV[1])
return redis.call(unpack(ARGV, 2))
