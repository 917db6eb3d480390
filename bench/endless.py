"""Work done in one script that never leaves the server, and blocks everybody until it ends."""

from __future__ import annotations

import time
from typing import Any

import redis

from bench.contenders import Measured
from luamigrate.scripts import library

BUDGET, CAPACITY = 2**40, 2**50
"""Microseconds and bytes: so many that a shipped script never stops because they are spent."""

# In the place of what goes through the pairs in KEYS: what does the same for each that SCAN finds. An
# error ends the script, so that nothing that has failed passes for done.
_SHIPPED = "return batch.each_source(wanted_type, function(kind, source, target)"
_LOOP = """
local function count_copies(decide)
  local cursor, copied = '0', 0
  repeat
    local reply = redis.call('SCAN', cursor, 'MATCH', 'job:*', 'COUNT', 1000)
    cursor = reply[1]
    for _, source in ipairs(reply[2]) do
      local kind = batch.wanted_source(wanted_type, source)
      if kind and decide(kind, source, 'step:' .. string.sub(source, 5)) == 'copied' then copied = copied + 1 end
    end
  until cursor == '0'
  return copied
end

return count_copies(function(kind, source, target)"""

# What people write: copy, then types, all fields through a map, expiries.
_FIELD_BY_FIELD = """
local function is_same(source, target)
  if redis.call('TYPE', source).ok ~= redis.call('TYPE', target).ok then return false end
  local wanted, found = redis.call('HGETALL', source), redis.call('HGETALL', target)
  if #wanted ~= #found then return false end
  local value_of = {}
  for i = 1, #wanted, 2 do value_of[wanted[i]] = wanted[i + 1] end
  for i = 1, #found, 2 do
    if value_of[found[i]] ~= found[i + 1] then return false end
  end
  return math.abs(redis.call('PTTL', source) - redis.call('PTTL', target)) <= 1000
end

local cursor, copied = '0', 0
repeat
  local reply = redis.call('SCAN', cursor, 'MATCH', 'job:*', 'COUNT', 1000)
  cursor = reply[1]
  for _, source in ipairs(reply[2]) do
    local target = 'step:' .. string.sub(source, 5)
    if redis.call('COPY', source, target) == 1 and is_same(source, target) then copied = copied + 1 end
  end
until cursor == '0'
return copied
"""

_SCAN = """
local cursor, found = '0', 0
repeat
  local reply = redis.call('SCAN', cursor, 'MATCH', 'job:*', 'COUNT', 1000)
  cursor, found = reply[1], found + #reply[2]
until cursor == '0'
return found
"""


def shipped(client: redis.Redis, *, validate: bool) -> Measured:
    """Decide about every pair as the shipped script does: the limit of what it can reach in batches."""
    text = library.source("copy")
    assert text.count(_SHIPPED) == 1
    return _copy(client, text.replace(_SHIPPED, _LOOP), BUDGET, CAPACITY, "hash", int(validate), 0, 0)


def field_by_field(client: redis.Redis) -> Measured:
    """Copy, and compare all fields one by one."""
    return _copy(client, _FIELD_BY_FIELD)


def scan(client: redis.Redis) -> Measured:
    """Only look for the jobs; `copied` is how many there are."""
    return _timed(client, _SCAN)


def _copy(client: redis.Redis, script: str, *arguments: str | int) -> Measured:
    before = client.dbsize()
    measured = _timed(client, script, *arguments)
    made = client.dbsize() - before
    assert measured.copied == made > 0, f"{measured.copied} said to be copied, {made} there"
    return measured


def _timed(client: redis.Redis, script: str, *arguments: str | int) -> Measured:
    began = time.perf_counter()
    answer: Any = client.eval(script, 0, *map(str, arguments))
    return Measured(time.perf_counter() - began, int(answer))
