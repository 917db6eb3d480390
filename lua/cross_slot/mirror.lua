-- cross_slot/mirror.lua: makes targets what their sources, which live in other slots, were when they were read.
--
-- KEYS  targets
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  until when the caller has its lease: milliseconds since 1970, by the clock of this node
--       4  the rule's type
--       5  how many clients may be waiting for something at this node: as mirror.lua has it
--       6  seconds for which nobody was told of changes: a target that differs and was touched since may be somebody
--          else's; '' where that is not asked
--       7..  for each target in turn: the payload, or '' where there is no source; the expiry, in milliseconds since
--          1970, -1 for never; the weight in bytes; the type, or ''; and whose the target is, as mirror.lua has it:
--          '0', '1' or '2'
--
-- Answers for each target what lib/batch.lua says, or a string:
--   same            it has that payload, and expires in that millisecond
--   copied          it was absent, or the caller's own and another; it has been made of that payload
--   removed         there is no source, or it has expired; the target was the caller's own ('2'), and is deleted
--   gone            there is no source, or it has expired, and no target
--   extra           there is no source; the target is not known to be the caller's own, or of another type than the
--                   rule's, and not touched
--   unlike          it has another payload or expiry: it is not the caller's own, and not touched
--   waited          clients wait for something, and it would be written: nothing was touched
--   unheld          the lease may not be the caller's any more: nothing was touched
--
-- Writes: RESTORE with REPLACE, and UNLINK; what is not the caller's own only where it is absent.

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local budget = include "lib/budget.lua"
local expiry = include "lib/expiry.lua"
local payload = include "lib/payload.lua"
local waiting = include "lib/waiting.lua"

local ARGV = request.arguments
local held_until, wanted, may_wait, untold = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

-- Whether somebody may have written a target of which nobody was told. Asked first, because reading may count as use.
local function may_be_written(target)
  local idle = untold and request.pcall('OBJECT', 'IDLETIME', target)
  return untold and (type(idle) ~= 'number' or idle <= untold)
end

-- Says what becomes of a target that has no source.
local function without_source(target, kind, rights)
  if kind == 'none' then return 'gone' end
  -- What is of another type was not made of a source of this rule.
  local is_own = rights == '2' and (kind == wanted or wanted == 'any')
  if not is_own then return expiry.is_gone(kind, target) and 'gone' or 'extra' end
  request.call('UNLINK', target)
  return 'removed'
end

return batch.each_key(function(target, i)
  if expiry.now() >= held_until then return 'unheld' end
  local given, at, bytes, source_kind, rights = unpack(ARGV, 5 * i + 2, 5 * i + 6)
  local kind = request.call('TYPE', target).ok
  if kind ~= 'none' and may_be_written(target) then rights = '0' end
  if given == '' then return without_source(target, kind, rights) end
  local found, too_many
  if kind ~= 'none' then found, too_many = budget.spend_small(kind, target) end
  if found and request.call('DUMP', target) == given and expiry.at(target) == tonumber(at) then return 'same' end
  if rights == '0' and (found or too_many) then return 'unlike' end
  if waiting.is_waited_on(source_kind, may_wait) then return 'waited' end
  -- It is freed in the background.
  if too_many then request.call('UNLINK', target) end
  if payload.restore(target, given, at, tonumber(bytes), true) ~= 'vanished' then return 'copied' end
  return kind == 'none' and 'gone' or 'removed'
end)
