"""Key spaces: drawn from chance, written by ordinary commands, read back, and compared without luamigrate's help."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import redis

KINDS = ("hash", "set", "zset", "string", "list", "stream")
FAR_MS = 7_200_000
SOON_MS = (400, 1_800)
"""What expires in the middle of a trial expires so much later than it was written."""
TOLERANCE_MS = 1_000
"""As in the contract: expiries that differ by no more are the same."""
CHUNK = 200
"""Keys that are read at once."""

# Redis 6.2 has no PEXPIRETIME; its clock goes on in a script, so it is asked until both answers are of one moment.
TYPE_AND_EXPIRY = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local kind = redis.call('TYPE', KEYS[1]).ok
local at = redis.pcall('PEXPIRETIME', KEYS[1])
if type(at) == 'number' then return { kind, at } end
while true do
  local before, left, after = now(), redis.call('PTTL', KEYS[1]), now()
  if left < 0 then return { kind, left } end
  if before == after then return { kind, before + left } end
end
"""


@dataclass(frozen=True)
class Stored:
    """The value of a key: content in a form without order, expiries in milliseconds since 1970."""

    kind: str
    content: Any
    at: int | None = None
    moments: dict[bytes, int] = field(default_factory=dict)
    """Expiries of the fields of a hash."""

    @property
    def elements(self) -> Any:
        """The content as a set of elements, where some of them can be missing; else the whole content."""
        return self.content.items() if isinstance(self.content, dict) else self.content


Keys = dict[bytes, Stored]


@dataclass(frozen=True)
class Naming:
    """A rule, and how its names are made, computed without luamigrate."""

    before: bytes
    after: bytes
    source: bytes
    target: bytes
    kind: str

    @property
    def options(self) -> tuple[str, str]:
        """As the command line takes it."""
        star = "" if self.is_literal else "*"
        names = [(prefix + star.encode() + suffix) for prefix, suffix in self._ends]
        return "--map", b"=".join(names).decode()

    @property
    def is_literal(self) -> bool:
        """Whether it names one key."""
        return self.before == b"" and self.after == b""

    @property
    def _ends(self) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
        return (self.source + self.before, self.after), (self.target + self.before, self.after)

    def source_name(self, middle: bytes) -> bytes:
        """Name a source."""
        return self.source + self.before + middle + self.after

    def target_of(self, name: bytes) -> bytes | None:
        """Return the target of a source; None where the rule does not match."""
        if self.is_literal:
            return self.target if name == self.source else None
        prefix, suffix = self._ends[0]
        if not (name.startswith(prefix) and name.endswith(suffix) and len(name) >= len(prefix) + len(suffix)):
            return None
        return self.target + name[len(self.source) :]


JOBS = Naming(b":", b"", b"job", b"step", "any")
OLD = Naming(b":", b":x", b"old", b"new", "any")
TAGGED = Naming(b":{", b"}", b"tagged", b"labelled", "any")
PENDING = Naming(b"", b"", b"jobs.pending", b"steps.pending", "any")
NAMINGS = (JOBS, OLD, TAGGED, PENDING)


@dataclass
class World:
    """What is there at first."""

    namings: list[Naming]
    sources: Keys = field(default_factory=dict)
    targets: Keys = field(default_factory=dict)
    """That are there before."""
    bystanders: Keys = field(default_factory=dict)
    """That no rule concerns."""

    def target_of(self, source: bytes) -> bytes | None:
        """Return the target of a source; None for what is none."""
        return next((target for each in self.namings if (target := each.target_of(source))), None)

    @property
    def keys(self) -> Keys:
        """All of them."""
        return self.sources | self.targets | self.bystanders


def draw(chance: random.Random, *, most: int, with_moments: bool) -> World:
    """Draw a key space of all types and sizes, with targets in every relation to their sources."""
    world = World([JOBS, *chance.sample(NAMINGS[1:], chance.randint(0, 3))])
    now = int(time.time() * 1000)
    for number in range(chance.randint(most // 5, most)):
        naming = chance.choice([each for each in world.namings if not each.is_literal])
        middle = chance.choice((b"%d", b"%d", b"%d\n\x1b[31m", b"%d\xff\x00", b"%d*?[a]")) % number
        _add(world, chance, naming.source_name(middle), now, with_moments=with_moments)
    if PENDING in world.namings:
        _add(world, chance, PENDING.source, now, with_moments=with_moments)
    for number in range(3):
        world.bystanders[b"job%d" % number] = draw_stored(chance, now, with_moments=with_moments)
    return world


def _add(world: World, chance: random.Random, name: bytes, now: int, *, with_moments: bool) -> None:
    stored = world.sources[name] = draw_stored(chance, now, with_moments=with_moments)
    target = world.target_of(name)
    if target and not _is_short(stored, now) and chance.random() < 0.2:
        world.targets[target] = _relative_of(stored, chance, now)


def draw_stored(chance: random.Random, now: int, *, with_moments: bool) -> Stored:
    """Draw a value of any type and size, and when it expires."""
    kind = chance.choice(KINDS)
    at = chance.choice((None, None, None, now + FAR_MS, now + FAR_MS + chance.randrange(10**6)))
    if chance.random() < 0.04:
        at = now + chance.randint(*SOON_MS)
    size = chance.choice((1, 2, 5, 5, 12, 12, 40, 300)) if chance.random() < 0.97 else 4000
    content = _draw_content(kind, size, chance)
    moments = {}
    if with_moments and kind == "hash" and chance.random() < 0.1:
        moments = dict.fromkeys(sorted(content)[: chance.randint(1, 3)], now + 2 * FAR_MS)
    return Stored(kind, content, at, moments)


def _draw_content(kind: str, size: int, chance: random.Random) -> Any:
    names = [b"n%05d" % number for number in range(size)]
    padding = b"x" * chance.choice((0, 0, 3, 60, 300 if size < 100 else 9))
    match kind:
        case "hash":
            return {name: b"%d" % chance.randrange(100) + padding for name in names}
        case "set":
            return {name + padding for name in names}
        case "zset":
            return {name: float(chance.randrange(1000)) / 4 for name in names}
        case "string":
            return b"%d" % chance.randrange(100) + padding * size
        case "list":
            return [name + padding for name in names]
        case _:
            return [(b"%d-1" % (number + 1), {b"n": name}) for number, name in enumerate(names[:300])]


def _relative_of(stored: Stored, chance: random.Random, now: int) -> Stored:
    how = chance.choice(("equal", "expiry", "subset", "subset", "contradicts", "more", "other"))
    content, at, moments = stored.content, stored.at, dict(stored.moments)
    if how == "other":
        kind = chance.choice([kind for kind in KINDS if kind != stored.kind])
        return Stored(kind, _draw_content(kind, 3, chance), at)
    if how == "expiry":
        return Stored(stored.kind, content, now + 3 * FAR_MS, moments)
    if how in ("subset", "more", "contradicts") and stored.kind in ("hash", "set", "zset"):
        names = sorted(content)
        kept = chance.sample(names, chance.randint(1, len(names))) if how == "subset" else names
        surplus = {b"more"} if how == "more" else {kept[0]} if how == "contradicts" else set[bytes]()
        if stored.kind == "set":
            content = {*kept, *surplus}
        else:
            other = b"other" if stored.kind == "hash" else -1.5
            content = {name: content[name] for name in kept} | dict.fromkeys(surplus, other)
        moments = {name: moment for name, moment in moments.items() if name in content}
    elif how != "equal" and stored.kind == "string":
        content += b"more"
    return Stored(stored.kind, content, at, moments)


def _is_short(stored: Stored, now: int) -> bool:
    return stored.at is not None and stored.at < now + FAR_MS


def expires_meanwhile(stored: Stored) -> bool:
    """Tell whether a key is one of those that expire in the middle of a trial."""
    return stored.at is not None and stored.at < time.time() * 1000 + FAR_MS / 2


def write(client: Any, keys: Keys) -> None:
    """Write keys by ordinary commands, all of which the client can send to one place."""
    pipeline = client.pipeline(transaction=False)
    for name, stored in keys.items():
        _write(pipeline, name, stored)
        if stored.moments:
            at = next(iter(stored.moments.values()))
            pipeline.execute_command("HPEXPIREAT", name, at, "FIELDS", len(stored.moments), *stored.moments)
        if stored.at is not None:
            pipeline.pexpireat(name, stored.at)
    pipeline.execute()


def _write(pipeline: Any, name: bytes, stored: Stored) -> None:
    match stored.kind:
        case "hash":
            pipeline.hset(name, mapping=stored.content)
        case "set":
            pipeline.sadd(name, *stored.content)
        case "zset":
            pipeline.zadd(name, stored.content)
        case "string":
            pipeline.set(name, stored.content)
        case "list":
            pipeline.rpush(name, *stored.content)
        case _:
            for entry, fields in stored.content:
                pipeline.xadd(name, fields, id=entry)


def observe(clients: Iterable[redis.Redis], *, with_moments: bool) -> Keys:
    """Read all keys of several servers. A key that is on two of them is an error."""
    found: Keys = {}
    for client in clients:
        names: list[bytes] = list(client.scan_iter(count=1000))
        for first in range(0, len(names), CHUNK):
            for name, stored in _read(client, names[first : first + CHUNK], with_moments=with_moments).items():
                assert name not in found, f"{name!r} is on two servers"
                found[name] = stored
    return found


def _read(client: redis.Redis, names: list[bytes], *, with_moments: bool) -> Keys:
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.eval(TYPE_AND_EXPIRY, 1, name)
    facts = [(name, kind.decode(), at) for name, (kind, at) in zip(names, pipeline.execute(), strict=True)]
    there = [fact for fact in facts if fact[1] != "none"]
    for name, kind, _ in there:
        ask_for(pipeline, kind, name)
    contents = pipeline.execute()
    keys = {
        name: Stored(kind, normal(kind, reply), None if at < 0 else at)
        for (name, kind, at), reply in zip(there, contents, strict=True)
        if reply
    }
    return _with_moments(client, keys) if with_moments else keys


def _with_moments(client: redis.Redis, keys: Keys) -> Keys:
    hashes = [(name, list(stored.content)) for name, stored in keys.items() if stored.kind == "hash"]
    pipeline = client.pipeline(transaction=False)
    for name, fields in hashes:
        pipeline.execute_command("HPEXPIRETIME", name, "FIELDS", len(fields), *fields)
    for (name, fields), answer in zip(hashes, pipeline.execute(), strict=True):
        moments = {field: at for field, at in zip(fields, answer or (), strict=False) if at > 0}
        keys[name] = Stored("hash", keys[name].content, keys[name].at, moments)
    return keys


def ask_for(client: Any, kind: str, name: bytes) -> Any:
    """Ask for the content of a key of a type."""
    match kind:
        case "hash":
            return client.hgetall(name)
        case "set":
            return client.smembers(name)
        case "zset":
            return client.zrange(name, 0, -1, withscores=True)
        case "string":
            return client.get(name)
        case "list":
            return client.lrange(name, 0, -1)
        case _:
            return client.xrange(name)


def normal(kind: str, reply: Any) -> Any:
    """Return what was answered in the form of `Stored`."""
    return dict(reply) if kind == "zset" else reply


def relation(source: Stored, target: Stored | None, *, ignore_expiry: bool) -> str:
    """Say how a target stands to its source, in the words of the contract."""
    if target is None:
        return "missing"
    if source.kind != target.kind:
        return "differs"
    if source.content == target.content:
        return "same" if ignore_expiry or lives_as_long(source, target) else "expiry"
    is_subset = source.kind in ("hash", "set", "zset") and target.elements < source.elements
    return "partial" if is_subset else "differs"


def lives_as_long(one: Stored, other: Stored) -> bool:
    """Tell whether two keys, and their fields, expire at the same time."""
    return near(one.at, other.at) and all(
        near(one.moments.get(name), other.moments.get(name)) for name in one.moments.keys() | other.moments.keys()
    )


def near(one: int | None, other: int | None) -> bool:
    """Tell whether two moments are the same."""
    if one is None or other is None:
        return one == other
    return abs(one - other) <= TOLERANCE_MS
