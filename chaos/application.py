"""Who else is there: an application that writes to both names and keeps a history, and a reader of the targets."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Self

import redis
from redis.exceptions import RedisClusterException

from chaos.sites import Site
from chaos.worlds import FAR_MS, Keys, Stored, World, expires_meanwhile, near

WRITTEN = ("hash", "set", "zset", "string")
PAUSE = 0.003
"""Seconds between two steps."""
TROUBLE = (redis.RedisError, RedisClusterException, OSError)
TELLS = 5
LARGE = 1000

# On one server both in one moment, as a careful application writes; on a cluster one after the other.
WRITE = """
for _, key in ipairs(KEYS) do
  if ARGV[1] == 'any' or redis.call('EXISTS', key) == 1 then
    local answer = redis.pcall(unpack({ ARGV[2], key, unpack(ARGV, 3) }))
    -- A target that was there before may be of another type.
    if type(answer) == 'table' and answer.err and not answer.err:find('WRONGTYPE') then return answer end
  end
end
"""
# Value and remaining life of one moment.
READ = """
local value = redis.pcall(unpack(ARGV, 1, 1), KEYS[1], unpack(ARGV, 2))
return { value, redis.call('PTTL', KEYS[1]) }
"""
READING: dict[str, tuple[str | int, ...]] = {
    "hash": ("HGETALL",),
    "set": ("SMEMBERS",),
    "zset": ("ZRANGE", 0, -1, "WITHSCORES"),
    "string": ("GET",),
    "list": ("LRANGE", 0, -1),
}


class Companion(threading.Thread):
    """A thread that works on the servers until it is left, whatever happens to its connections."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self.site, self.done = site, threading.Event()
        self.abandoned = False
        """Whether the trial is over without a judgement, so that nothing need be finished any more."""
        self.failed: Exception | None = None
        self.held_up = 0.0
        """For how long the machine has let it wait, in seconds, when it was to do something."""
        self._client: Any = None

    def run(self) -> None:
        """Work until told to stop."""
        try:
            began = time.monotonic()
            while not self.done.wait(PAUSE):
                self.held_up = max(self.held_up, time.monotonic() - began - PAUSE)
                self.step()
                began = time.monotonic()
        except Exception as error:  # noqa: BLE001  # the trial is told when it ends
            self.failed = error
        finally:
            if self._client:
                self._client.close()

    def step(self) -> None:
        """Do the next thing."""
        raise NotImplementedError

    def with_client(self, act: Callable[[Any], Any]) -> Any:
        """Do something with a client; a new one after trouble, which is raised."""
        try:
            self._client = self._client or self.site.client()
            return act(self._client)
        except TROUBLE:
            if self._client:
                self._client.close()
            self._client = None
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, trouble: type[BaseException] | None, *_: object) -> None:
        self.abandoned = trouble is not None
        self.done.set()
        self.join()
        if self.failed:
            raise self.failed


class Application(Companion):
    """Writes to sources and then to their targets, and remembers what it has written.

    What it writes does not depend on what is there, so that it can write it again until it is acknowledged, and
    a replica has it.
    """

    def __init__(self, site: Site, world: World, seed: int, *, creates: bool) -> None:
        super().__init__(site)
        self.sources: Keys = dict(world.sources)
        """The sources' contents."""
        self.targets: Keys = dict(world.targets)
        """The contents of the targets that were there before, without what was filled in."""
        self.when = "any" if creates else "there"
        """Whether targets are written to that are not there, which makes half-written ones."""
        self.touched: set[bytes] = set()
        """Sources that it has written to."""
        self.history: dict[bytes, list[Stored]] = defaultdict(list)
        """All contents that each source had."""
        self.writes = 0
        self._world, self._chance = world, random.Random(seed)
        candidates = [name for name, stored in world.sources.items() if stored.kind in WRITTEN and not stored.moments]
        candidates = [name for name in candidates if not expires_meanwhile(world.sources[name])]
        self._large = [name for name in candidates if len(world.sources[name].content) >= LARGE]
        self._writable = sorted({*candidates[::3], *self._large})

    def step(self) -> None:
        """Write once."""
        # Large keys take long to copy: that is when they are to be written to.
        source = self._chance.choice((self._chance.random() < 0.4 and self._large) or self._writable)
        stored = self.sources.get(source)
        target = self._world.target_of(source)
        if stored is None or target is None:
            return
        self.touched.add(source)
        command = self._draw(stored)
        self.history[source] += [each for each in (stored, _after(stored, command)) if each]
        together = [(source, target)] if self.site.is_one else [(source,), (target,)]
        for keys in together:
            self._persist(keys, command)
        self._remember(source, target, command)
        self.writes += 1

    def _remember(self, source: bytes, target: bytes, command: tuple[Any, ...]) -> None:
        for keys, name in ((self.sources, source), (self.targets, target)):
            stored = keys.get(name)
            if stored and (after := _after(stored, command)):
                keys[name] = after
            else:
                keys.pop(name, None)

    def _persist(self, keys: tuple[bytes, ...], command: tuple[Any, ...]) -> Any:
        while not self.abandoned:
            with suppress(*TROUBLE):
                return self.with_client(lambda client: self._acknowledge(client, keys, command))
            time.sleep(0.02)
        return None

    def _acknowledge(self, client: Any, keys: tuple[bytes, ...], command: tuple[Any, ...]) -> None:
        client.eval(WRITE, len(keys), *keys, self.when, *command)
        if not self.site.has_all(client, keys[0]):
            raise redis.TimeoutError("no replica has it")

    def _draw(self, stored: Stored) -> tuple[Any, ...]:
        what = self._chance.random()
        if what < 0.02:
            return (b"DEL",)
        if what < 0.06:
            return b"PEXPIREAT", int(time.time() * 1000) + FAR_MS + self._chance.randrange(10**6)
        name, value = b"n%05d" % self._chance.randrange(8), b"%d" % self._chance.randrange(10**6)
        takes = self._chance.random() < 0.3
        match stored.kind:
            case "hash":
                return (b"HDEL", name) if takes else (b"HSET", name, value)
            case "set":
                return (b"SREM", name) if takes else (b"SADD", name)
            case "zset":
                return (b"ZREM", name) if takes else (b"ZADD", value, name)
            case _:
                return b"SET", value, b"KEEPTTL"


def _after(stored: Stored, command: tuple[Any, ...]) -> Stored | None:
    """Return the contents of a key after a command for its type; None where the key is gone."""
    match command:
        case (b"DEL",):
            return None
        case (b"PEXPIREAT", at):
            return replace(stored, at=at)
        case (b"HSET", name, value) if stored.kind == "hash":
            content: Any = stored.content | {name: value}
        case (b"ZADD", score, name) if stored.kind == "zset":
            content = stored.content | {name: float(score)}
        case (b"SADD", name) if stored.kind == "set":
            content = stored.content | {name}
        case (b"SREM", name) if stored.kind == "set":
            content = stored.content - {name}
        case ((b"HDEL" | b"ZREM") as verb, name) if stored.kind == {b"HDEL": "hash", b"ZREM": "zset"}[verb]:
            content = {each: stored.content[each] for each in stored.content if each != name}
        case (b"SET", value, _):
            return Stored("string", value, stored.at)
        case _:
            return stored
    return replace(stored, content=content) if content else None


class Reader(Companion):
    """Reads targets all along, and notes what no reader should ever see."""

    def __init__(self, site: Site, world: World, application: Application, seed: int) -> None:
        super().__init__(site)
        self.seen: list[str] = []
        self.reads = 0
        self._world, self._application, self._chance = world, application, random.Random(seed)
        readable = [
            name for name, stored in world.sources.items() if stored.kind in READING and not expires_meanwhile(stored)
        ]
        self._pairs = [(name, target) for name in readable if (target := world.target_of(name))]

    def step(self) -> None:
        """Read one target."""
        source, target = self._chance.choice(self._pairs)
        kind = self._world.sources[source].kind
        try:
            command, *options = READING[kind]
            value, left = self.with_client(lambda client: client.eval(READ, 1, target, command, *options))
        except TROUBLE:
            return
        self.reads += 1
        problem = self._problem(source, target, _normal(kind, value), left)
        if problem and len(self.seen) < TELLS:
            self.seen.append(f"{target!r} {problem}")

    def _problem(self, source: bytes, target: bytes, content: Any, left: int) -> str:
        before, quiet = self._world.targets.get(target), source not in self._application.touched
        stored = self._world.sources[source]
        if before and before.kind != stored.kind:
            return ""
        if not content:
            return "was there before, and is not any more" if before and quiet else ""
        now = int(time.time() * 1000)
        if quiet:
            if before:
                seen = Stored(stored.kind, content)
                between = seen.elements == before.elements or (
                    stored.kind in ("hash", "set", "zset") and (before.elements <= seen.elements <= stored.elements)
                )
                return "" if between else f"has {len(content)} elements, neither its own nor its source's"
            at = now + left if left >= 0 else None
            if content == stored.content and near(at, stored.at):
                return ""
            return f"has {len(content)} of {len(stored.content)} elements and expires at {at}, not {stored.at}"
        atomic = self.site.is_one and self._application.when == "there" and not before
        known = [stored, *self._application.history[source]]
        return "" if not atomic or any(each.content == content for each in known) else "has what its source never had"


def _normal(kind: str, value: Any) -> Any:
    match kind:
        case "hash":
            return dict(zip(value[::2], value[1::2], strict=True)) if isinstance(value, list) else None
        case "zset":
            return (
                {n: float(s) for n, s in zip(value[::2], value[1::2], strict=True)} if isinstance(value, list) else None
            )
        case "set":
            return set(value) if isinstance(value, list) else None
        case _:
            return value if isinstance(value, (bytes, list)) else None
