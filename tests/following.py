"""A follow in the background of a test, applications that write everything meanwhile, and a judge of both sides."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import redis
from redis.exceptions import RedisClusterException

import luamigrate
from luamigrate.model.following import Followed
from luamigrate.model.status import KeyOutcome
from tests.background import Background
from tests.clusters import wait_until
from tests.instances import Reachable, expires_at, snapshot

PLAN = luamigrate.plan([("job:*", "step:*", "any")])
SPREAD = 60
"""Names that writers share: few, so that they meet."""

EVERYTHING = ("told", "expiries", "lua", "types", "moves")
WRITE = "redis.call('HSET', KEYS[1], 'ev', ARGV[1]) redis.call('PEXPIRE', KEYS[1], 100000) return 1"
UNDECLARED = "redis.call('SET', 'job:' .. ARGV[1], ARGV[2]) return 1"


class Following(Background):
    """Follows a plan until it is told to stop, and keeps what it said."""

    def __init__(
        self, url: str, plan: luamigrate.Plan = PLAN, *, tls: luamigrate.Tls | None = None, **options: Any
    ) -> None:
        super().__init__()
        self._tls = tls
        self._url, self._plan, self._options = url, plan, {"settle": 0.0, **options}
        self.now = Followed()
        self.keys: list[KeyOutcome] = []
        self.warnings: list[str] = []
        self.waited_for: list[str] = []
        self.summary = luamigrate.Summary(plan, luamigrate.Command.FOLLOW)
        self.error: luamigrate.Error | None = None

    def run(self) -> None:
        """Follow."""
        try:
            with luamigrate.connect(self._url, tls=self._tls) as server:
                for batch in luamigrate.follow(server, self._plan, operator=self.control(), **self._options):
                    self.summary.add(batch)
                    self.now = batch.followed or self.now
                    self.keys += batch.keys
        except luamigrate.Error as error:
            self.error = self.summary.error = error

    def control(self) -> luamigrate.Control:
        """Return what the follow asks and tells."""
        return luamigrate.Control(stop=self._done.is_set, tell=self.waited_for.append)

    def wait_until(self, reached: Callable[[Followed], bool]) -> None:
        """Wait for a state of it."""
        with suppress(AssertionError):
            wait_until(lambda: reached(self.now) or not self.is_alive())
        assert not self.is_alive() or reached(self.now), (self.now, self.keys[:5], len(self.keys), self.waited_for[-3:])
        assert self.is_alive(), self.error

    def wait_until_in_step(self) -> None:
        """Wait until it says that it is in step, because of something that happened after this call."""
        before = self.now
        self.wait_until(lambda now: now is not before and now.in_step)


class Writer(Background):
    """Writes all kinds of things to sources at full speed, whatever becomes of its connection."""

    def __init__(self, server: Reachable, seed: int, prefix: str = "job:") -> None:
        super().__init__()
        self._server, self._prefix, self._chance = server, prefix, random.Random(seed)
        self.writes = 0
        self._fields = server.has_field_expiries

    def run(self) -> None:
        """Write until told to stop."""
        while not self._done.is_set():
            lost = (redis.RedisError, RedisClusterException, OSError)
            with suppress(*lost), self._server.another_client() as client:
                while not self._done.is_set():
                    pipeline = client.pipeline(transaction=False)
                    for _ in range(20):
                        self._write(pipeline)
                    self.writes += len(pipeline.execute(raise_on_error=False))
            self._done.wait(0.02)

    def _key(self) -> str:
        return f"{self._prefix}{self._chance.randrange(SPREAD)}"

    def _write(self, client: Any) -> None:
        chance, name = self._chance, self._key()
        value = str(chance.random())
        transaction: list[tuple[Any, ...]] = [("MULTI",), ("HSET", name, "m", value), ("DEL", self._key()), ("EXEC",)]
        alone: list[Sequence[tuple[Any, ...]]] = [
            *[[("HSET", name, f"f{chance.randrange(9)}", value)]] * 6,
            [("DEL", name)],
            [("UNLINK", name), ("HSET", name, "a", 1, "b", value)],
            [("SET", name, value, "PX", chance.randrange(1, 300))],
            [("PEXPIRE", name, chance.randrange(1, 300))],
            [("PEXPIRE", name, 10**7)],
            [("PERSIST", name)],
            [("DEL", name), ("RPUSH", name, 1, 2, value)],
            [("RPUSH", name, value)],
            [("DEL", name), ("ZADD", name, 1, "x", 2, value)],
            [("ZADD", name, value, "y")],
            [("DEL", name), ("SADD", name, value)],
            [("SADD", name, value)],
            [("EVAL", WRITE, 1, name, value)],
            [("XADD", name, "*", "f", value)],
            [("XTRIM", name, "MAXLEN", 2)],
            [("SETRANGE", name, 3, value)],
            [("APPEND", name, value)],
            [("HSET", name, "long", "x" * chance.randrange(2000))],
            [("GETDEL", name)],
        ]
        if self._fields:
            alone.append([("HPEXPIRE", name, chance.randrange(1, 300), "FIELDS", 1, f"f{chance.randrange(9)}")])
        together: list[Sequence[tuple[Any, ...]]] = [
            [("RENAME", name, self._key())],
            transaction,
            [("EVAL", UNDECLARED, 0, name.removeprefix("job:"), value)],
            [("COPY", name, self._key(), "REPLACE")],
            [("LMOVE", name, self._key(), "LEFT", "RIGHT")],
            [("SMOVE", name, self._key(), "1")],
            [("MOVE", name, 3)],
            [("SORT", name, "BY", "nosort", "STORE", self._key())],
        ]
        for command in chance.choice(alone if self._server.mode == "cluster" else alone + together):
            client.execute_command(*command)


def assert_in_step(server: Reachable, source: bytes = b"job:", target: bytes = b"step:") -> None:
    """Every source has an equal target that expires in the same millisecond, and no target is without a source."""
    wait_until(partial(_nothing_is_about_to_expire, server, (source, target)))
    with server.another_client() as client:
        found = snapshot(client)
    sides = [{name.removeprefix(side): name for name in found if name.startswith(side)} for side in (source, target)]
    wanted, there = sides
    assert there.keys() == wanted.keys(), (
        f"lacking {wanted.keys() - there.keys()}, extra {there.keys() - wanted.keys()}"
    )
    for rest, name in wanted.items():
        one, other = found[name][0], found[there[rest]][0]
        assert one == other or _digest(server, name) == _digest(server, there[rest]), (name, one, other)
        assert expires_at(server.client, name) == expires_at(server.client, there[rest]), name


def _digest(server: Reachable, name: bytes) -> Any:
    return server.digest_value(name)


def _nothing_is_about_to_expire(server: Reachable, sides: Iterable[bytes]) -> bool:
    """Tell whether what is there will be there for some seconds."""
    with server.another_client() as client:
        names = [name for side in sides for name in client.scan_iter(side + b"*", count=1000)]
        pipeline = client.pipeline(transaction=False)
        for name in names:
            pipeline.pttl(name)
        soon = [left for left in pipeline.execute() if 0 <= left < 5000]
    return not soon
