"""luamigrate as a whole process, and the scripts that copy a namespace from a client."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import redis

from luamigrate.cli.options import environment
from luamigrate.scripts import library

SOURCE, TARGET = b"job:", b"step:"
JOBS = ("--quiet", "--json", "--map", "job:*=step:*", "--type", "hash")
RUN = ("run", *JOBS)
VERIFY = ("verify", *JOBS)

# Comparing field by field, as one would write it: types, fields in a map, expiries.
_PLAIN = """
local function present(kind, source, target)
  if redis.call('TYPE', target).ok ~= kind then return 'differs' end
  local wanted, found = redis.call('HGETALL', source), redis.call('HGETALL', target)
  if #wanted ~= #found then return 'differs' end
  local value_of = {}
  for i = 1, #wanted, 2 do value_of[wanted[i]] = wanted[i + 1] end
  for i = 1, #found, 2 do
    if value_of[found[i]] ~= found[i + 1] then return 'differs' end
  end
  local difference = math.abs(redis.call('PTTL', source) - redis.call('PTTL', target))
  return difference > 1000 and 'expiry' or 'same'
end

local function any(kind, source, target)
  if not budget.spend_key(kind, target) then return 'missing' end
  return present(kind, source, target)
end

return { present = present, any = any }
"""


@dataclass(frozen=True)
class Measured:
    """One measurement of one contender."""

    seconds: float
    copied: int
    """Keys that were copied, or found to be the same."""
    peak_memory_mb: float = 0.0
    cpu_seconds: float = 0.0
    document: Mapping[str, Any] = field(default_factory=dict)
    """luamigrate's own figures."""

    @property
    def rate(self) -> float:
        """Keys per second."""
        assert self.copied, "nothing was copied"
        return self.copied / self.seconds

    @property
    def working_rate(self) -> float:
        """Keys per second, from connecting on."""
        return self.copied / float(self.document["duration_seconds"])


def luamigrate(url: str, *options: str, program: Path | None = None) -> Measured:
    """Run the command line as a whole process, that of a folder where one is given."""
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            (sys.executable, "-m", "luamigrate", *(options or RUN)),
            env=environment(REDIS_URL=url),
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=program,
        )
        assert process.stdout
        out = process.stdout.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        assert process.returncode == 0, out + errors.read().decode()
    document = json.loads(out) if "--json" in (options or RUN) else {}
    totals = document.get("totals", {})
    # macOS counts bytes here, Linux kilobytes.
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return Measured(
        seconds,
        totals.get("copied", 0) + totals.get("same", 0),
        usage.ru_maxrss / unit,
        usage.ru_utime + usage.ru_stime,
        document,
    )


def seconds_of(work: Callable[[], object]) -> float:
    """Do the work and return how long that took."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def help_seconds() -> float:
    """Return the processor time that it takes to be helped."""
    return median(luamigrate("redis://localhost", "--help").cpu_seconds for _ in range(5))


@contextmanager
def plain_luamigrate() -> Iterator[Path]:
    """Yield a folder with the whole program, but for its comparison of hashes, which is plain."""
    with tempfile.TemporaryDirectory(prefix="luamigrate-") as directory:
        folder = Path(directory)
        for name in ("luamigrate", "lua"):
            shutil.copytree(library.folder().parent / name, folder / name)
        compare = folder / "lua" / "lib" / "compare.lua"
        before, shipped, _ = re.split(r"(?ms)^(local READINGS_UNASKED.*)", compare.read_text())
        for function in re.findall(r"^local function (\w+)", _PLAIN, re.MULTILINE):
            assert f"local function {function}(" in shipped
        compare.write_text(before + _PLAIN)
        yield folder


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


def scan(client: redis.Redis) -> Measured:
    """Only look for the jobs, a thousand keys at a time; `copied` is how many there are."""
    began = time.perf_counter()
    found = sum(1 for _ in client.scan_iter(match=b"job:*", count=1000))
    return Measured(time.perf_counter() - began, found)


def _by_batches(client: redis.Redis, most: int, size: int, copy: Callable[[list[bytes]], int]) -> Measured:
    names: Iterator[Any] = islice(client.scan_iter(match=b"job:*", count=1000), most)
    began = time.perf_counter()
    copied = 0
    while batch := list(islice(names, size)):
        copied += copy(batch)
    return Measured(time.perf_counter() - began, copied)
