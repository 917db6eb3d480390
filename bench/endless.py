"""Work done in one script that never leaves the server, and blocks everybody until it ends."""

from __future__ import annotations

import time
from typing import Any

import redis

from bench.contenders import Measured
from luamigrate.scripts import library

BUDGET, CAPACITY = 2**40, 2**50
"""Microseconds and bytes: so many that a shipped script never stops because they are spent."""

# Calls the shipped script, as it is, with the keys of each SCAN in its KEYS. It answers words, and behind them a
# number; whatever it could not do is no 'copied', and is missed in the end.
_ENDLESS = """
local function shipped(KEYS, ARGV)
%s
end

local cursor, copied = '0', 0
repeat
  local reply, pairs_of_keys = redis.call('SCAN', cursor, 'MATCH', 'job:*', 'COUNT', 1000), {}
  cursor = reply[1]
  for i, source in ipairs(reply[2]) do
    pairs_of_keys[2 * i - 1], pairs_of_keys[2 * i] = source, 'step:' .. string.sub(source, 5)
  end
  for _, answer in ipairs(shipped(pairs_of_keys, ARGV)) do
    if answer == 'copied' then copied = copied + 1 end
  end
until cursor == '0'
return copied
"""

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
    """Have the shipped script decide about every pair: the limit of what it can reach in batches."""
    script = _ENDLESS % library.source("copy")
    return _copy(client, script, BUDGET, CAPACITY, "hash", int(validate), 0, 0)


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
