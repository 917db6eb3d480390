"""An application whose writes can be counted: it reads a flag before each of them, and repeats what failed.

It is a process of its own, `python -m chaos.counting`, with its settings as JSON in its only argument. It works until
its standard input is closed, and then prints what it knows as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

OLD, NEW = "job", "step"
"""How names begin, as long as the flag does not have its new value, and afterwards."""
LONGEST_BLOCKED = 1
"""Seconds for which a worker waits for a job before it reads the flag again."""
PAUSE_TO_CONNECT = 0.005
SECONDS_TO_ANSWER = 20.0
SECONDS_TO_END = 30.0
WAITS_KEPT = 50


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a process of the application is told."""

    url: str
    """Where the server is; ask a Sentinel instead where `sentinel` is not 0."""
    sentinel: int = 0
    """The port of a Sentinel on this machine."""
    service: str = ""
    authority: str = ""
    """The file with the certificate by which a server with TLS is known."""
    flag: str = "flag"
    value: str = "new"
    number: int = 0
    """Of this process: jobs that it enqueues are named by it."""
    roles: tuple[str, ...] = ()
    """One for each connection."""
    counters: int = 100
    pause: float = 0.0
    """Seconds between two writes of a connection."""


@dataclass
class Report:
    """What an application knows of its writes: how often each was acknowledged, and how often its outcome is unknown.

    Counters are known by their number, jobs by their id.
    """

    acknowledged: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    """The connection was lost after the command was sent."""
    ran: Counter[str] = field(default_factory=Counter)
    """How often each job was given to a worker."""
    unknown_takes: int = 0
    """Jobs that may have been taken from the sorted set by a command whose answer was lost."""
    astray: list[str] = field(default_factory=list)
    """Jobs that a worker was given, and that were not among those under way when it was done."""
    wrote: Counter[str] = field(default_factory=Counter)
    """Acknowledged writes by side."""
    waits_ms: list[float] = field(default_factory=list)
    """How long the slowest writes took, their repetitions included."""

    def add(self, other: Report) -> None:
        """Add what another connection or process knows."""
        for name in ("acknowledged", "unknown", "ran", "wrote"):
            getattr(self, name).update(getattr(other, name))
        self.unknown_takes += other.unknown_takes
        self.astray += other.astray
        self.waits_ms = sorted((*self.waits_ms, *other.waits_ms))[-WAITS_KEPT:]

    @classmethod
    def read(cls, text: str) -> Report:
        """Read what a process has printed."""
        told: dict[str, Any] = json.loads(text)
        del told["failed"]
        known: dict[str, Any] = {name: Counter(each) if isinstance(each, dict) else each for name, each in told.items()}
        return cls(**known)


@dataclass(frozen=True)
class Names:
    """The names of one side; those of the queues are in one slot of a cluster."""

    side: str

    def counter(self, number: str) -> str:
        """Name the hash that has a counter."""
        return f"{self.side}:{number}"

    @property
    def waiting(self) -> str:
        """The list of jobs that wait."""
        return f"{self.side}:{{q}}:waiting"

    @property
    def running(self) -> str:
        """The list of jobs that a worker has taken."""
        return f"{self.side}:{{q}}:running"

    @property
    def later(self) -> str:
        """The sorted set of jobs that wait."""
        return f"{self.side}:{{q}}:later"


class Connection(threading.Thread):
    """A connection of the application, and what is written on it."""

    def __init__(self, settings: Settings, role: str, number: int, done: threading.Event) -> None:
        super().__init__(daemon=True)
        self.report = Report()
        self.failed: str | None = None
        self._settings, self._done = settings, done
        self._step: Callable[[], None] = getattr(self, f"_{role}")
        self._number, self._jobs = f"{settings.number}-{number}", 0
        self._chance = random.Random(self._number)
        self._client: redis.Redis | None = None

    def run(self) -> None:
        """Work until told to stop."""
        try:
            while not self._done.wait(self._settings.pause):
                self._step()
        except Exception as error:  # noqa: BLE001  # the process tells, and the trial is not judged
            self.failed = f"{type(error).__name__}: {error}"
        finally:
            self._leave()

    def _count(self) -> None:
        number = str(self._chance.randrange(self._settings.counters))
        self._write(f"counter:{number}", lambda client, names: client.hincrby(names.counter(number), "n", 1))

    def _enqueue(self) -> None:
        self._jobs += 1
        name = f"{self._number}-{self._jobs}"
        if self._jobs % 2:
            self._write(f"list:{name}", lambda client, names: client.lpush(names.waiting, name))
        else:
            # No other command adds a member that is there already without a word.
            self._write(f"zset:{name}", lambda client, names: client.zadd(names.later, {name: self._jobs}))

    def _work(self) -> None:
        job = self._write("", _taken_from_list)
        if job is None:
            return
        self.report.ran[f"list:{job}"] += 1
        before = self.report.unknown["done"]
        removed = self._write("done", lambda client, names: client.lrem(names.running, 1, job))
        if removed == 0 and self.report.unknown["done"] == before:
            self.report.astray.append(job)

    def _work_later(self) -> None:
        before = self.report.unknown["taken"]
        job = self._write("taken", _taken_from_set)
        self.report.unknown_takes += self.report.unknown["taken"] - before
        if job is not None:
            self.report.ran[f"zset:{job}"] += 1

    def _write(self, what: str, command: Callable[[redis.Redis, Names], Any]) -> Any:
        """Carry out a command under the names that the flag gives, and again, flag first, until it is answered."""
        began, deadline = time.monotonic(), 0.0
        while True:
            sent = False
            try:
                client = self._connected()
                names = Names(NEW if client.get(self._settings.flag) == self._settings.value.encode() else OLD)
                sent = True
                answer = command(client, names)
                break
            except (redis.ResponseError, redis.exceptions.BusyLoadingError) as error:
                # It was answered, so it has not been carried out: by a replica, or a server that is loading.
                if "WRONGTYPE" in str(error):
                    raise
            except (redis.RedisError, OSError):
                if sent:
                    self.report.unknown[what] += 1
            self._leave()
            if self._done.is_set():
                deadline = deadline or time.monotonic() + SECONDS_TO_END
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{what} is never answered")
            time.sleep(PAUSE_TO_CONNECT)
        self.report.acknowledged[what] += 1
        self.report.wrote[names.side] += 1
        if what not in ("", "taken"):
            self._note_wait(1000 * (time.monotonic() - began))
        return answer

    def _note_wait(self, wait_ms: float) -> None:
        waits = self.report.waits_ms
        if len(waits) < WAITS_KEPT or wait_ms > waits[0]:
            self.report.waits_ms = sorted((*waits, round(wait_ms, 1)))[-WAITS_KEPT:]

    def _connected(self) -> redis.Redis:
        """Return a client that never sends a command twice."""
        if self._client is None:
            settings = self._settings
            url = _primary(settings) if settings.sentinel else settings.url
            tls = {"ssl_ca_certs": settings.authority} if settings.authority else {}
            self._client = redis.Redis.from_url(
                url,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=SECONDS_TO_ANSWER,
                single_connection_client=True,
                **tls,
            )
        return self._client

    def _leave(self) -> None:
        if self._client is not None:
            with suppress(redis.RedisError, OSError):
                self._client.close()
        self._client = None


def _taken_from_list(client: redis.Redis, names: Names) -> Any:
    job: Any = client.blmove(names.waiting, names.running, LONGEST_BLOCKED, "RIGHT", "LEFT")
    return job and job.decode()


def _taken_from_set(client: redis.Redis, names: Names) -> Any:
    job: Any = client.bzpopmin(names.later, LONGEST_BLOCKED)
    return job and job[1].decode()


def _primary(settings: Settings) -> str:
    with redis.Redis(port=settings.sentinel, protocol=2, retry=Retry(NoBackoff(), 0)) as sentinel:
        host, port = sentinel.sentinel_get_master_addr_by_name(settings.service)
        return f"redis://{host.decode()}:{port}"


def main() -> int:
    """Work until standard input is closed; print what is known."""
    told = json.loads(sys.argv[1])
    settings, done = Settings(**told | {"roles": tuple(told["roles"])}), threading.Event()
    connections = [Connection(settings, role, number, done) for number, role in enumerate(settings.roles)]
    for connection in connections:
        connection.start()
    sys.stdin.read()
    done.set()
    report = Report()
    for connection in connections:
        connection.join()
        report.add(connection.report)
    failed = [connection.failed for connection in connections if connection.failed]
    print(json.dumps(vars(report) | {"failed": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
