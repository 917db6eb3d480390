"""A comparison that goes on in the background of a test, and an application that writes to both names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis
from redis.exceptions import RedisClusterException

import luamigrate
from luamigrate import Drift, Word
from luamigrate.model.status import KeyOutcome
from tests.background import Background
from tests.clusters import wait_until
from tests.following import PLAN
from tests.instances import Reachable

SETTLE = 0.2
SECONDS_TO_WRITE = 20


class Verifying(Background):
    """Compares a plan's pairs until it is told to stop, and keeps what it said."""

    def __init__(self, url: str, plan: luamigrate.Plan = PLAN, **options: Any) -> None:
        super().__init__()
        self._url, self._plan, self._options = url, plan, {"settle": SETTLE, **options}
        self.paused = threading.Event()
        self.now = Drift()
        self.keys: list[KeyOutcome] = []
        self.summary = luamigrate.Summary(plan, luamigrate.Command.VERIFY)
        self.error: luamigrate.Error | None = None

    def run(self) -> None:
        """Compare."""
        control = luamigrate.Control(stop=self._done.is_set, paused=self.paused.is_set)
        try:
            with luamigrate.connect(self._url) as server:
                for batch in luamigrate.verify(server, self._plan, follow=True, operator=control, **self._options):
                    self.summary.add(batch)
                    self.now = batch.drift or self.now
                    self.keys += batch.keys
        except luamigrate.Error as error:
            self.error = self.summary.error = error

    def wait_until(self, reached: Callable[[Drift], bool]) -> Drift:
        """Wait for a state of it, and return that."""
        seen: list[Drift] = []

        def is_reached() -> bool:
            seen[:] = [self.now]
            return reached(seen[0]) or not self.is_alive()

        with suppress(AssertionError):
            wait_until(is_reached)
        assert self.is_alive(), self.error
        assert reached(seen[0]), (self.now, self.keys[-5:])
        return seen[0]

    def wait_until_complete(self) -> None:
        """Wait until everything has been compared, and nothing waits."""
        self.wait_until(lambda now: now.is_complete and not now.waiting)

    def wait_for(self, word: Word | None, source: str) -> KeyOutcome:
        """Wait until it says that a pair stands so, or for None that it is healed."""

        def found() -> list[KeyOutcome]:
            of_it = [key for key in self.keys if key.source == source.encode()][-1:]
            return [key for key in of_it if (key.was is not None if word is None else key.word is word)]

        self.wait_until(lambda _: bool(found()))
        return found()[0]

    @property
    def told(self) -> list[tuple[str, str, str | None]]:
        """What it told of pairs, in order: the source, the word, and how it was before."""
        return [(key.source.decode(), str(key.word), key.was and str(key.was)) for key in self.keys]


class Application(Background):
    """Writes to a source and, some seconds (`gap`) later, to its target, to one pair after the other."""

    seconds_to_end = 30

    def __init__(self, server: Reachable, *, gap: float, names: int = 20, pause: float = 0.0) -> None:
        super().__init__()
        self._server, self._gap, self._names, self._pause = server, gap, names, pause
        self.forgets = False
        """Whether it writes to the sources alone."""
        self.writes = 0

    def run(self) -> None:
        """Write until told to stop, whatever becomes of the connection; each pair is equal then."""
        with self._server.another_client() as client:
            while not self._done.is_set():
                name, value = self.writes % self._names, self.writes
                self._write(client, f"job:{name}", value)
                time.sleep(self._gap)
                if not self.forgets:
                    self._write(client, f"step:{name}", value)
                self.writes += 1
                time.sleep(self._pause)

    def _write(self, client: Any, name: str, value: int) -> None:
        deadline = time.monotonic() + SECONDS_TO_WRITE
        while time.monotonic() < deadline:
            with suppress(redis.RedisError, RedisClusterException, OSError):
                client.hset(name, "a", value)
                return
            time.sleep(0.02)
