-- lease.lua: takes, renews or gives up the lease of a follow, of which there is one for each plan.
--
-- KEYS  1  the lease: it expires unless it is renewed, and whoever has it owns the plan's targets
--       2  the index of all leases of this database: a hash, by plan, of what each is about
--       3  the record: until when the targets were certainly what their sources were
-- ARGV  1  what to do: take, renew or release
--       2  the value of the caller's lease
--       3  the plan, as the index has it
--       4  what the lease is about, for the index
--       5, 6  milliseconds for which the lease and the record are kept
--       7  what is known of the targets: 'owned' where they are the caller's from now on, 'equal' where they are
--          what their sources are, 'foreign' where somebody else has written one, '' where there is nothing to note
--
-- Answers a string:
--   held            the lease is the caller's
--   lost            there is none, and it was to be renewed or released
--   taken           somebody else has it
--
-- Writes: the three keys.

local request = include "lib/request.lua"
local expiry = include "lib/expiry.lua"

local KEYS, ARGV = request.keys, request.arguments
local lease, index, record = KEYS[1], KEYS[2], KEYS[3]
local verb, mine, plan, about, lease_ms, record_ms, known =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]

-- The record is 0 from the first write on, and the server's time, in milliseconds since 1970, once they were equal.
local function keep_record()
  if known == 'foreign' then
    redis.call('DEL', record)
  elseif known == 'equal' then
    redis.call('SET', record, ('%d'):format(expiry.now()), 'PX', record_ms)
  elseif known == 'owned' and redis.call('PEXPIRE', record, record_ms) == 0 then
    redis.call('SET', record, '0', 'PX', record_ms)
  end
end

local holder = redis.call('GET', lease)
if holder and holder ~= mine then return 'taken' end
if not holder and verb ~= 'take' then return 'lost' end
keep_record()
if verb == 'release' then
  redis.call('DEL', lease)
  redis.call('HDEL', index, plan)
else
  redis.call('SET', lease, mine, 'PX', lease_ms)
  redis.call('HSET', index, plan, about)
  -- An entry whose lease has expired is nobody's; all of them go with the last one.
  redis.call('PEXPIRE', index, lease_ms)
end
return 'held'
