-- find_extra.lua: finds targets that have no source of the rule's type. Reads only; runs under EVALSHA_RO.
--
-- KEYS  source 1, target 1, source 2, target 2, ...
-- ARGV  1, 2  time and weight: see lib/budget.lua
--       3  the rule's type: hash, set, zset, list, string, stream or any
--       4  '1' where targets of other types count too
--
-- Answers for each pair what lib/batch.lua says, or a string:
--   extra          the target is there, of a type that counts, and its source is not
--   paired         not so: the source is there, or the target is not
-- or a list of the word extra and what stands in the place of the source: source_type <type>

local request = include "lib/request.lua"
local batch = include "lib/batch.lua"
local expiry = include "lib/expiry.lua"

local wanted_type, all_types = request.arguments[3], request.arguments[4] == '1'

return batch.each_pair(function(source, target)
  local kind = request.call('TYPE', target).ok
  -- By type first: a user may not be permitted to read other types than the rule's.
  local counts = kind == wanted_type or wanted_type == 'any' or all_types
  if not counts or expiry.is_gone(kind, target) then return 'paired' end
  local source_kind = request.call('TYPE', source).ok
  if source_kind ~= 'none' and source_kind ~= wanted_type and wanted_type ~= 'any' then
    return { 'extra', 'source_type', source_kind }
  end
  return expiry.is_gone(source_kind, source) and 'extra' or 'paired'
end)
