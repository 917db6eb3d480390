-- names.lua: included by every script that works through keys. Which keys?
--
-- On a single server they are declared, in KEYS. In a cluster the keys of a batch belong to many slots, which
-- KEYS must not; so they stand in front of the other arguments: 'names', how many, the names. The server
-- looks at each inner command by itself and lets no key through that lives on another node.

local KEYS, ARGV = KEYS, ARGV
if ARGV[1] == 'names' then
  local names, arguments, count = {}, {}, tonumber(ARGV[2])
  for i = 1, count do names[i] = ARGV[i + 2] end
  for i = count + 3, #ARGV do arguments[i - count - 2] = ARGV[i] end
  KEYS, ARGV = names, arguments
end
