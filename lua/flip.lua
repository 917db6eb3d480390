-- flip.lua: sets the flag that says which names the application writes, or sets it back, if nothing speaks against it.
--
-- KEYS  1  the flag
--       2  the record: a hash that is there from the flip until it is undone or finished, with the fields flag, value
--          and former, of the flag (former is missing where there was none), and moment (milliseconds since 1970)
-- ARGV  1  what to do: 'flip' sets the flag and leaves the record, 'back' sets the flag to what it was and deletes the
--          record, 'finish' leaves the flag as it is and deletes the record
--       2  until when it may be done, by this server's clock: milliseconds since 1970; '' where that does not matter
--       3  the mark that the server's changes have (luamigrate/server/changes.py); '' where that does not matter
--       4  the value that the flag gets by a flip, and has before the others
--       5  the value that the flag has before a flip; left out where there is no flag, and where this is no flip
--
-- Answers a string:
--   flipped           it is done
--   late              the moment has passed
--   written           somebody has written since the mark was read, or nobody can tell
--   other             flag or record are not what they are to be before it: somebody else has set them
--
-- Writes: these keys, both or none of them.

local request = include "lib/request.lua"
local expiry = include "lib/expiry.lua"

local KEYS, ARGV = request.keys, request.arguments
local call, try = request.call, request.pcall
local flag, record = KEYS[1], KEYS[2]
local verb, deadline, changes, value, former = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] or false

-- On Redis 6.2, which does not count saves, forks stand for them.
local function mark()
  local facts = call('INFO', 'persistence')
  local saves = facts:match('rdb_saves:(%d+)') or call('INFO', 'stats'):match('total_forks:(%d+)')
  local count, saved = facts:match('rdb_changes_since_last_save:(%d+)'), facts:match('rdb_last_save_time:(%d+)')
  return ('%s %s %s'):format(count, saved, saves)
end

local function flag_is(wanted)
  local kind = call('TYPE', flag).ok
  if kind == 'none' then return not wanted end
  return kind == 'string' and call('GET', flag) == wanted
end

local function record_is_ours()
  return call('TYPE', record).ok == 'hash' and call('HGET', record, 'flag') == flag
    and call('HGET', record, 'value') == value
end

local function set_flag(to, how)
  if to then return how('SET', flag, to) end
  return how('DEL', flag)
end

-- Who may write one of the two and not the other writes none.
local function both(undo, answer)
  if type(answer) ~= 'table' or not answer.err then return 'flipped' end
  undo()
  return answer
end

if deadline ~= '' and expiry.now() > tonumber(deadline) then return 'late' end
if changes ~= '' and mark() ~= changes then return 'written' end

if verb == 'flip' then
  if not flag_is(former) or call('EXISTS', record) == 1 then return 'other' end
  call('HSET', record, 'flag', flag, 'value', value, 'moment', ('%d'):format(expiry.now()))
  if former then call('HSET', record, 'former', former) end
  return both(function() call('DEL', record) end, set_flag(value, try))
end
if not flag_is(value) or not record_is_ours() then return 'other' end
if verb == 'back' then
  set_flag(call('HGET', record, 'former'), call)
  return both(function() call('SET', flag, value) end, try('DEL', record))
end
call('DEL', record)
return 'flipped'
