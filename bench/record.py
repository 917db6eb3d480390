"""The server's own record: how many scripts and SCANs there were, how long they blocked it, and how busy it was.

INFO counts all commands; SLOWLOG keeps those that took long enough. A threshold of zero would record
every command within the scripts too, some for each key, and that alone would slow them down.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import redis
from redis.cluster import RedisCluster

from luamigrate.scripts import library

RECORDED_US = 50
"""From how many microseconds on a command is recorded."""

_CALLS = ("evalsha", "evalsha_ro")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Commands:
    """Commands of one kind, and how long they blocked the server, in milliseconds.

    What took less than is recorded counts as that.
    """

    count: int
    seconds: float
    """All of them together."""
    recorded: list[float]
    """Sorted: the longest of `count`."""

    @property
    def longest(self) -> float:
        """What none exceeded."""
        return self.percentile(100)

    def percentile(self, percent: float) -> float:
        """Return what so many percent of all did not exceed."""
        above = self.count - math.ceil(percent / 100 * self.count)
        return self.recorded[-1 - above] if above < len(self.recorded) else RECORDED_US / 1000

    def part_within(self, milliseconds: float) -> float:
        """Return which share of all took no longer, 0 to 1."""
        return 1 - sum(one > milliseconds for one in self.recorded) / max(1, self.count)


@dataclass(frozen=True)
class Record:
    """What the server says of some work."""

    scripts: Commands
    seconds_of: Mapping[str, float]
    """By script, as far as its calls were recorded: all but the shortest."""
    scans: Commands
    processor_seconds: float
    busy: float
    """Which share of the time its processor was: near 1 where nobody but itself limits the work."""


def processor_seconds(client: redis.Redis | RedisCluster) -> float:
    """Return the processor time that a server has taken so far; of a cluster, all nodes together."""
    times: Any = client.info("cpu")
    return float(times["used_cpu_user"]) + float(times["used_cpu_sys"])


def recorded(client: redis.Redis | RedisCluster, most: int, work: Callable[[], Result]) -> tuple[Result, Record]:
    """Do the work, and return its result and the record of it.

    Raises AssertionError where more than `most` commands would have had to be recorded.
    """
    client.config_resetstat()
    client.config_set("slowlog-max-len", most)
    client.config_set("slowlog-log-slower-than", RECORDED_US)
    client.slowlog_reset()
    try:
        began, processor = time.perf_counter(), processor_seconds(client)
        result = work()
        processor = processor_seconds(client) - processor
        busy = processor / (time.perf_counter() - began)
        client.config_set("slowlog-log-slower-than", -1)
        entries: Any = client.slowlog_get(most)
    finally:
        client.config_set("slowlog-log-slower-than", -1)
        client.slowlog_reset()
    assert len(entries) < most, "not all of the slow commands have been recorded"
    statistics: Any = client.info("commandstats")
    of = partial(_of, statistics, entries)
    return result, Record(of(*_CALLS), _by_script(entries), of("scan"), processor, busy)


def _by_script(entries: Any) -> Mapping[str, float]:
    digests = {library.digest(name): name for name in library.names()}
    seconds: Counter[str] = Counter()
    for entry in entries:
        command, _, arguments = entry["command"].decode(errors="replace").partition(" ")
        if command.lower() in _CALLS:
            seconds[digests[arguments.partition(" ")[0]]] += entry["duration"] / 1e6
    return seconds


def _of(statistics: Any, entries: Any, *names: str) -> Commands:
    counts = [statistics.get(f"cmdstat_{name}", {"calls": 0, "usec": 0}) for name in names]
    times = [entry["duration"] for entry in entries if entry["command"].split(b" ")[0].lower().decode() in names]
    return Commands(
        sum(each["calls"] for each in counts),
        sum(each["usec"] for each in counts) / 1e6,
        sorted(time / 1000 for time in times),
    )
