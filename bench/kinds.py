"""All kinds of keys, named like jobs, and how a client reads each at the least cost for the server."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis

from bench import raw
from bench.jobs import EXPIRING_ONE_IN, NAME, job, lifetime_ms

MEMBERS, FIELDS = 100, 200
"""How many members a collection has, and how many fields a large hash."""

STEPS = 55
"""How many steps the payload of a large job has: some 3 kB in one field."""


@dataclass(frozen=True)
class Kind:
    """A kind of key, and what is needed to measure with it."""

    name: str
    type: str
    one_in: int
    """One such key for so many of the keys that were asked for: the larger a key, the fewer."""
    elements: raw.Reading
    """How to read what is in it, where its payload is of no use."""
    write: Callable[[str, int, random.Random], raw.Command]
    """The command that makes the key of this name and number."""

    def reading(self, client: redis.Redis) -> raw.Reading:
        """Return what costs a client that compares the least, once there are such keys."""
        # A hashtable is rarely dumped in the order of its copy; a string costs less than its payload.
        encoding: Any = client.object("ENCODING", NAME.format(0))
        return self.elements if self.type == "string" or encoding == b"hashtable" else raw.DUMP

    def fill(self, url: str, keys: int) -> int:
        """Write as many as that makes, and return how many."""
        count = -(-keys // self.one_in)
        raw.write(url, self._commands(count))
        return count

    def _commands(self, count: int) -> Iterator[raw.Command]:
        chance = random.Random(1)
        for number in range(count):
            name = NAME.format(number)
            yield self.write(name, number, chance)
            if number % EXPIRING_ONE_IN == 0:
                yield "PEXPIRE", name, lifetime_ms(number)


def _hash(name: str, number: int, chance: random.Random, note: str = "") -> raw.Command:
    return "HSET", name, *job(number, chance, note)


def _large_hash(name: str, number: int, chance: random.Random) -> raw.Command:
    first = chance.randrange(1_000_000)
    steps = (f'{{"step": {step}, "worker": {first * step % 9973}, "state": "done"}}' for step in range(STEPS))
    return _hash(name, number, chance, ", ".join(steps))


def _wide_hash(name: str, number: int, chance: random.Random) -> raw.Command:
    first = chance.randrange(1_000_000)
    return "HSET", name, *(text for i in range(FIELDS) for text in (f"field:{i}", first + number + i))


def _set(name: str, number: int, chance: random.Random) -> raw.Command:
    first = chance.randrange(1_000_000)
    return "SADD", name, *(f"member-{first + number + i}" for i in range(MEMBERS))


def _set_of_integers(name: str, number: int, chance: random.Random) -> raw.Command:
    first = chance.randrange(1_000_000)
    return "SADD", name, *(first + number + i for i in range(MEMBERS))


def _zset(name: str, number: int, chance: random.Random) -> raw.Command:
    first = chance.randrange(1_000_000)
    return "ZADD", name, *(text for i in range(MEMBERS) for text in (first + i, f"member-{number + i}"))


def _list(name: str, number: int, chance: random.Random) -> raw.Command:
    first = chance.randrange(1_000_000)
    return "RPUSH", name, *(f"item-{first + number + i}" for i in range(MEMBERS))


def _string(name: str, number: int, chance: random.Random) -> raw.Command:
    return "SET", name, f'{{"id": {number}, "customer": {chance.randrange(100_000)}, "locale": "en"}}'


ALL = (
    Kind("compact hashes, 10 fields", "hash", 8, raw.FIELDS, _hash),
    Kind("hashtables, 10 fields", "hash", 8, raw.FIELDS, partial(_hash, note="x" * 80)),
    Kind("strings", "string", 2, raw.TEXT, _string),
    Kind("sets, 100 texts", "set", 10, raw.MEMBERS, _set),
    Kind("sets, 100 integers", "set", 10, raw.MEMBERS, _set_of_integers),
    Kind("zsets, 100 members", "zset", 10, raw.SCORES, _zset),
    Kind("lists, 100 items", "list", 10, raw.ITEMS, _list),
    Kind("hashes, 200 fields", "hash", 40, raw.FIELDS, _wide_hash),
    Kind("jobs of 3 kB", "hash", 10, raw.FIELDS, _large_hash),
)
