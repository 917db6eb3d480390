-- mirror.lua: makes each target what its source is, for as long as the caller holds the lease.
--
-- KEYS  source 1, target 1, source 2, target 2, ..., and at the end the lease, in the database of the sources
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  the value that the lease has while the caller holds it
--       4  seconds for which nobody followed: a target that differs though its source has not been touched for
--          longer was written by somebody else; '' where that is not asked. Below 0, seconds for which nobody was told
--          of changes after a cut-over: a target that was touched since is the caller's own only if it has this mark
--       5  how many clients may be waiting for something in the whole server: while there are more, no list, sorted set
--          or stream is written, of which one might be handed something; '' where that is not asked
--       6..  for each pair two: the rule's type (a source of another type counts as none), and '0' where the target
--          may be somebody else's, '1' where it is the caller's own, which may be made anew, '2' where it may be
--          deleted too, because the caller knows that there was a source. Where its mark is wanted, '+' stands behind
--          that, and the mark that it had when the caller last made it, if that is known
--
-- Answers for each pair what lib/batch.lua says (where it says of a source that it is big, ' untouched' behind that
-- tells that ARGV 4 is asked for, and that a target that differs may be somebody else's), or a string:
--   same            the target equals its source, and expires in the same millisecond
--   copied <mark>   the target was absent, or the caller's own and not equal; it now equals the source;
--                   the mark, where it is wanted, tells its payload and expiry from others
--   removed         there is no source; the target was the caller's own ('2'), and is deleted
--   gone            there is no source, and no target
--   ignored <type>  there is a source of another type, and no target
--   extra           there is no source; the target is not known to be the caller's own, or of another type than the
--                   rule's, and not touched
--   foreign         the target is not equal and somebody else's, and not touched
--   waited          clients wait for something, and it would be written: nothing was touched
--   unheld          the lease is not the caller's (any more): nothing was touched
--
-- Writes: COPY with REPLACE, or RESTORE with it, and UNLINK, of targets alone; what is not own only where it is absent.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local budget = include "lib/budget.lua"
local compare = include "lib/compare.lua"
local copy = include "lib/copy.lua"
local expiry = include "lib/expiry.lua"
local shortcut = include "lib/shortcut.lua"
local waiting = include "lib/waiting.lua"

local KEYS, ARGV = request.keys, request.arguments
local call, try = request.call, request.pcall
local spend_small, is_gone = budget.spend_small, expiry.is_gone
local equal_at_a_glance = shortcut.equal

local is_held, away, may_wait = call('GET', KEYS[#KEYS]) == ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
KEYS[#KEYS] = nil -- what is left are pairs

-- What tells a key's payload and expiry from others; '' where the server does not give them.
local function mark_of(key)
  local payload = try('DUMP', key)
  return type(payload) == 'string' and redis.sha1hex(payload .. expiry.at(key)) or ''
end

local READINGS = 5 -- of expiries, at most

-- Whether both expire in the same millisecond. On Redis 6.2 and 7.0 the clock goes on in a script: what seems to differ
-- is read again, until the clock has stood still meanwhile; if it never does, that costs a copy.
local function expire_together(source, target)
  for _ = 1, READINGS do
    local left, there = call('PTTL', source), call('PTTL', target)
    if left == there then return left ~= 0 end
    if left < there or call('PTTL', source) == left then return false end
  end
  return false
end

local function strings_equal(source, target)
  local text = try('GET', target)
  return type(text) == 'string' and text == call('GET', source)
end

-- Hashtables of equal sets may be dumped in another order.
local function sets_equal(source, target)
  if try('OBJECT', 'ENCODING', source) ~= 'hashtable' then return false end
  if request.enter then return compare.present('set', source, target, true, false) == 'same' end
  local lacking, size = try('SDIFF', source, target), try('SCARD', target)
  return not lacking.err and #lacking == 0 and size == call('SCARD', source)
end

-- Whether a target is certainly what its source is; what is not certain costs a copy.
local function is_same(kind, source, target)
  local equal
  if kind == 'string' then
    equal = strings_equal(source, target)
  else
    equal = equal_at_a_glance(kind, source, target) or kind == 'set' and sets_equal(source, target)
  end
  return equal and expire_together(source, target)
end

-- Whether what differs is nothing but the groups of a stream, of whose changes nobody is told.
local function only_groups_differ(kind, notes)
  local what = kind == 'stream' and notes and notes[#notes]
  return type(what) == 'table' and #what == 1 and what[1] == 'groups'
end

-- Says of a target that is there, and not the caller's own, whether it is the same.
local function judge(kind, source, target)
  local word, notes = compare.present(kind, source, target, false, false)
  local is_equal = word == 'same' and expiry.at(source) == expiry.at(target)
  return (is_equal or only_groups_differ(kind, notes)) and 'same' or 'foreign'
end

-- Says what becomes of a target whose source is not there, or of another type than the wanted one: then that.
local function without_source(target, wanted, may_delete, source_kind)
  local kind = call('TYPE', target).ok
  if kind == 'none' then return source_kind and 'ignored ' .. source_kind or 'gone' end
  -- What is of another type was not made of a source of this rule.
  if not may_delete or (kind ~= wanted and wanted ~= 'any') then return is_gone(kind, target) and 'gone' or 'extra' end
  call('UNLINK', target)
  return 'removed'
end

return batch.each_pair(function(source, target, i)
  if not is_held then return 'unheld' end
  local wanted, rights, wants_mark, mark = ARGV[i + 5], ARGV[i + 6]:match('^(%d)(%+?)(.*)$')
  local is_own, may_delete = rights ~= '0', rights == '2'
  -- Asked first, because reading may count as use.
  local idle = away and try('OBJECT', 'IDLETIME', away < 0 and target or source)
  local is_untouched = type(idle) == 'number' and idle > math.abs(away)
  if away and away < 0 and not is_untouched and (mark == '' or mark ~= mark_of(target)) then
    is_own, may_delete = false, false
  end
  local kind = call('TYPE', source).ok
  if kind == 'none' then return without_source(target, wanted, may_delete) end
  if kind ~= wanted and wanted ~= 'any' then return without_source(target, wanted, may_delete, kind) end
  if is_gone(kind, source) then return without_source(target, wanted, may_delete) end
  local weight, too_big = spend_small(kind, source)
  if too_big then
    local is_anothers = away and (away < 0 and not is_own or away >= 0 and is_untouched)
    return ('big %s %s%s'):format(kind, too_big, is_anothers and ' untouched' or '')
  end
  if not weight then return without_source(target, wanted, may_delete) end
  local bytes, too_many = spend_small(kind, target)
  local is_there = bytes or too_many
  if bytes and is_same(kind, source, target) then return 'same' end
  if is_there and away and away >= 0 and is_untouched then is_own = false end
  if is_there and not is_own then return too_many and 'foreign' or judge(kind, source, target) end
  if waiting.is_waited_on(kind, may_wait) then return 'waited' end
  -- It is freed in the background.
  if too_many then call('UNLINK', target) end
  copy.replace(kind, source, target)
  local word = copy.confirm(kind, source, target, false, false)
  return wants_mark ~= '' and word == 'copied' and 'copied ' .. mark_of(target) or word
end)
