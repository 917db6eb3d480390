-- lease.lua: takes, renews or gives up the lease of a follow, of which there is one for each plan.
--
-- KEYS  1  the lease: it expires unless it is renewed, and whoever has it owns the plan's targets
--       2  the record: until when the targets were certainly what their sources were
--       3..  the indexes of leases, of the database of the sources and of that of the targets: hashes, by plan, of
--          until when the lease is held (milliseconds since 1970) and, behind a space, what it is about
-- ARGV  1  what to do: take, renew or release
--       2  the value of the caller's lease
--       3  the plan, as the indexes have it
--       4, 5  milliseconds for which the lease and the record are kept
--       6  what is known of the targets: 'owned' where they are the caller's from now on, 'equal' where they are
--          what their sources are, 'foreign' where somebody else has written one, '' where there is nothing to note
--       7..  for each index, what the lease is about in its database
--
-- Answers a string:
--   held            the lease is the caller's
--   lost            there is none, and it was to be renewed or released
--   taken           somebody else has it
--
-- Writes: these keys.

local request = include "lib/request.lua"
local expiry = include "lib/expiry.lua"

local KEYS, ARGV = request.keys, request.arguments
local call = request.call
local lease, record = KEYS[1], KEYS[2]
local verb, mine, plan, lease_ms, record_ms, known = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

-- The record is 0 from the first write on, and the server's time, in milliseconds since 1970, once they were equal.
local function keep_record()
  if known == 'foreign' then
    call('DEL', record)
  elseif known == 'equal' then
    call('SET', record, ('%d'):format(expiry.now()), 'PX', record_ms)
  elseif known == 'owned' and call('PEXPIRE', record, record_ms) == 0 then
    call('SET', record, '0', 'PX', record_ms)
  end
end

local holder = call('GET', lease)
if holder and holder ~= mine then return 'taken' end
if not holder and verb ~= 'take' then return 'lost' end
-- A server out of memory lets a script go on that has begun with what takes none.
if verb == 'release' then
  call('DEL', lease)
elseif call('PEXPIRE', lease, lease_ms) == 0 then
  call('SET', lease, mine, 'PX', lease_ms)
end
keep_record()
for i = 3, #KEYS do
  if verb == 'release' then
    call('HDEL', KEYS[i], plan)
  else
    call('HSET', KEYS[i], plan, ('%d %s'):format(expiry.now() + lease_ms, ARGV[i + 4]))
    -- An entry whose lease has expired is nobody's; all of them go with the last one.
    call('PEXPIRE', KEYS[i], lease_ms)
  end
end
return 'held'
