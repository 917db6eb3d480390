"""A follow of a test that is told to cut over, and applications that read the flag before each write and count."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException
from redis.retry import Retry

import luamigrate
from luamigrate import Control, CutoverOptions, Wish
from tests.background import Background
from tests.clusters import wait_until
from tests.following import PLAN, Following, assert_in_step
from tests.instances import Reachable

FLAG, NEW = b"names", b"step:"
NAMES = 200
DEFAULTS: dict[str, Any] = {"flag": FLAG, "value": NEW, "attempts": 2}
OPTIONS = CutoverOptions.__dataclass_fields__


class CuttingOver(Following):
    """Follows a plan, and carries out what the test wishes."""

    def __init__(self, url: str, plan: luamigrate.Plan = PLAN, **options: Any) -> None:
        cutover: dict[str, Any] = {name: options.pop(name) for name in OPTIONS if name in options}
        super().__init__(url, plan, cutover=CutoverOptions(**DEFAULTS | cutover), **options)
        self.wish: Wish | None = None
        self.answers: list[str] = []
        """Why each wish was not granted; empty where it was."""

    def control(self) -> Control:
        """Return what the follow asks and tells."""
        return Control(
            stop=self._done.is_set, tell=self.waited_for.append, wish=lambda: self.wish, granted=self._granted
        )

    def _granted(self, _wish: Wish, why: str) -> None:
        self.wish = None
        self.answers.append(why)

    def begin(self, wish: Wish) -> None:
        """Wish for something."""
        self.wish = wish

    def ask(self, wish: Wish) -> str:
        """Wish for something, and return why it was not granted; empty where it was."""
        before = len(self.answers)
        self.begin(wish)
        with suppress(AssertionError):
            wait_until(lambda: len(self.answers) > before or not self.is_alive())
        assert self.answers[before:], (self.error, self.now, self.keys[:5])
        return self.answers[-1]

    def cut_over(self, wish: Wish = Wish.CUTOVER) -> None:
        """Have it cut over, or go back, and be in step afterwards."""
        assert not self.ask(wish)


class CountingWriter(Background):
    """Reads the flag before each write, and adds one to a counter; repeats what failed, the flag first."""

    def __init__(self, server: Reachable, seed: int, flag: bytes = FLAG) -> None:
        super().__init__()
        self._server, self._flag, self._chance = server, flag, random.Random(seed)
        self.acknowledged: Counter[int] = Counter()
        self.unknown: Counter[int] = Counter()
        """What was sent, and not answered."""
        self.written: Counter[bytes] = Counter()
        """How many writes were acknowledged under names that begin so."""

    def run(self) -> None:
        """Write until told to stop."""
        number = self._chance.randrange(NAMES)
        while not self._done.is_set():
            with suppress(redis.RedisError, RedisClusterException, OSError), self._client() as client:
                while not self._done.is_set():
                    prefix = client.get(self._flag) or b"job:"
                    self._write(client, prefix, number)
                    number = self._chance.randrange(NAMES)

    def _client(self) -> Any:
        # A pool would put a new connection under a write whose flag was read on one that has been closed.
        return self._server.another_client(retry=Retry(NoBackoff(), 0), single_connection_client=True)

    def _write(self, client: Any, prefix: bytes, number: int) -> None:
        self.unknown[number] += 1
        client.hincrby(b"%b%d" % (prefix, number), "n", 1)
        self.unknown[number] -= 1
        self.acknowledged[number] += 1
        self.written[prefix] += 1


def assert_nothing_lost(client: Any, writers: list[CountingWriter], prefix: bytes) -> None:
    """Check that each counter has what was acknowledged, and at most what was not answered besides."""
    for number in range(NAMES):
        least = sum(writer.acknowledged[number] for writer in writers)
        unknown = sum(writer.unknown[number] for writer in writers)
        there = int(client.hget(b"%b%d" % (prefix, number), "n") or 0)
        assert least <= there <= least + unknown, (number, least, unknown, there)


def assert_all_kinds_of_changes_are_mirrored_back(server: Reachable) -> None:
    """Types, expiries, deletions and new names, to the millisecond; and after the way back the other way."""
    client = server.client
    with CuttingOver(server.url) as following:
        following.wait_until_in_step()
        following.cut_over()
        client.hset("step:1", "a", "other")
        client.pexpire("step:2", 12_345_678)
        client.delete("step:3")
        client.hset("step:new", "a", "1")
        client.rpush("step:list", "4")
        client.persist("step:string")
        client.delete("step:set")
        client.set("step:set", "of another type")
        following.wait_until_in_step()
        assert client.hget("job:1", "a") == b"other"
        assert not client.exists("job:3")
        assert client.hget("job:new", "a") == b"1"
        assert_in_step(server)
        following.cut_over(Wish.BACK)
        client.hset("job:1", "a", "again")
        following.wait_until_in_step()
        assert client.hget("step:1", "a") == b"again"
        assert_in_step(server)
    assert following.summary.exit_code == 0, following.keys
