"""The ways of copying a namespace that are measured against each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import redis

from luamigrate import scripts

SOURCE, TARGET = b"job:", b"step:"
JOBS = ("--quiet", "--map", "job:*=step:*", "--type", "hash")
RUN = ("run", *JOBS)
VERIFY = ("verify", *JOBS)

# The shipped decision about a pair, called by a loop that never leaves the server.
_LOOP = """
local function answer_each_scanned_pair(decide_about)
  local function decide(source, target)
    local kind = redis.call('TYPE', source).ok
    if kind ~= wanted_type then return 'ignored' end
    if is_gone(kind, source) then return 'gone' end
    return decide_about(kind, source, target)
  end
  local cursor, copied = '0', 0
  repeat
    local reply = redis.call('SCAN', cursor, 'MATCH', 'job:*', 'COUNT', 1000)
    cursor = reply[1]
    for _, source in ipairs(reply[2]) do
      local ok, answer = pcall(decide, source, 'step:' .. string.sub(source, 5))
      if ok and answer == 'copied' then copied = copied + 1 end
    end
  until cursor == '0'
  return copied
end

return answer_each_scanned_pair(function(kind, source, target)"""

# Comparing field by field, as one would write it: types, fields in a map, expiries.
_PLAIN = """
local function compare(kind, source, target)
  if redis.call('TYPE', target).ok ~= kind then return 'differs' end
  local wanted, found = redis.call('HGETALL', source), redis.call('HGETALL', target)
  if #wanted ~= #found then return 'differs' end
  local value_of = {}
  for i = 1, #wanted, 2 do value_of[wanted[i]] = wanted[i + 1] end
  for i = 1, #found, 2 do
    if value_of[found[i]] ~= found[i + 1] then return 'differs' end
  end
  local apart = math.abs(redis.call('PTTL', source) - redis.call('PTTL', target))
  return apart > 1000 and 'expiry' or 'same'
end

"""


@dataclass(frozen=True)
class Measured:
    """One way, once."""

    seconds: float
    copied: int
    peak_memory_mb: float = 0.0
    cpu_seconds: float = 0.0


def endless_script(client: redis.Redis, *, validate: bool) -> Measured:
    """Copy everything in one script that blocks everybody: the limit of what any tool can reach."""
    text = scripts.source("copy")
    shipped = "return answer_each_source(wanted_type, function(kind, source, target)"
    assert text.count(shipped) == 1
    text = text.replace(shipped, _LOOP)
    began = time.perf_counter()
    copied: Any = client.eval(text, 0, "hash", str(int(validate)), "0", "0")
    return Measured(time.perf_counter() - began, int(copied))


@contextmanager
def plain_luamigrate() -> Iterator[Path]:
    """Yield a folder with the whole program, but for its comparison of hashes, which is plain."""
    with tempfile.TemporaryDirectory(prefix="luamigrate-") as directory:
        folder = Path(directory)
        for part in ("luamigrate", "lua"):
            shutil.copytree(scripts.folder().parent / part, folder / part)
        same = folder / "lua" / "shared" / "same.lua"
        before, shipped, after = re.split(r"(?ms)^(local READINGS_UNASKED.*?)(?=^-- The answer)", same.read_text())
        assert "local function compare(" in shipped
        same.write_text(before + _PLAIN + after)
        yield folder


def luamigrate(url: str, *options: str, program: Path | None = None) -> Measured:
    """Run the command line as a whole process, that of a folder where one is given."""
    environment = {**os.environ, "REDIS_URL": url}
    began = time.perf_counter()
    process = subprocess.Popen(
        (sys.executable, "-m", "luamigrate", *(options or RUN)), env=environment, stdout=subprocess.PIPE, cwd=program
    )
    assert process.stdout
    out = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, out
    copied = next((int(line.split()[-1].replace(",", "")) for line in out.splitlines() if "keys found" in line), 0)
    # macOS counts bytes here, Linux kilobytes.
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return Measured(seconds, copied, usage.ru_maxrss / unit, usage.ru_utime + usage.ru_stime)


def client_pipeline(client: redis.Redis, most: int) -> Measured:
    """COPY and two HGETALL in pipelines of 500 keys, compared in Python."""

    def copy(names: list[bytes]) -> int:
        pipeline = client.pipeline(transaction=False)
        for name in names:
            target = TARGET + name.removeprefix(SOURCE)
            pipeline.execute_command("COPY", name, target)
            pipeline.hgetall(name)
            pipeline.hgetall(target)
        replies = iter(pipeline.execute())
        return sum(bool(made) and one == other for made, one, other in zip(replies, replies, replies, strict=True))

    return _by_batches(client, most, 500, copy)


def five_round_trips(client: redis.Redis, most: int) -> Measured:
    """EXISTS, HGETALL, HMSET and two HGETALL, one after the other for each key."""

    def copy(names: list[bytes]) -> int:
        copied = 0
        for name in names:
            target = TARGET + name.removeprefix(SOURCE)
            if not client.exists(target):
                content: Any = client.hgetall(name)
                client.hset(target, mapping=content)
                copied += client.hgetall(name) == client.hgetall(target)
        return copied

    return _by_batches(client, most, 100, copy)


def _by_batches(client: redis.Redis, most: int, size: int, copy: Callable[[list[bytes]], int]) -> Measured:
    names: Iterator[Any] = islice(client.scan_iter(match=b"job:*", count=1000), most)
    began = time.perf_counter()
    copied = 0
    while batch := list(islice(names, size)):
        copied += copy(batch)
    return Measured(time.perf_counter() - began, copied)
