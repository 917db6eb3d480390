"""What is on the server while it is measured."""

from __future__ import annotations

import random
from collections.abc import Iterator

import redis
from redis.cluster import RedisCluster

BATCH = 1000
NAME = "job:{:08}"
ONE_IN = 1000
"""Keys of the sparse key space, for each that matches."""

EXPIRING_ONE_IN = 10
"""The share of jobs that expire: one in so many; the others live for ever."""

LARGE_TYPES = ("hash", "set")
"""Types of the large keys; each is named big:<type>."""


def fill(client: redis.Redis | RedisCluster, keys: int, *, name: str = NAME) -> None:
    """Write jobs of ten fields, as a job system does; every tenth expires."""
    chance = random.Random(1)
    for numbers in _batches(keys):
        pipeline = client.pipeline(transaction=False)
        for number in numbers:
            pipeline.hset(name.format(number), items=job(number, chance))
            if number % EXPIRING_ONE_IN == 0:
                pipeline.pexpire(name.format(number), lifetime_ms(number))
        pipeline.execute()


def lifetime_ms(number: int) -> int:
    """Return for how long a job that expires lives: much longer than anything is measured."""
    return 86_400_000 + number


def fill_sparsely(client: redis.Redis, keys: int) -> None:
    """Write one job in a thousand keys; the others are small strings."""
    chance = random.Random(1)
    for numbers in _batches(keys):
        pipeline = client.pipeline(transaction=False)
        for number in numbers:
            if number % ONE_IN:
                pipeline.set(f"other:{number:08}", number)
            else:
                pipeline.hset(NAME.format(number), items=job(number, chance))
        pipeline.execute()


def fill_large(client: redis.Redis, members: int) -> None:
    """Write one hash of so many small fields, and one set of so many small members."""
    for numbers in _batches(members):
        client.hset("big:hash", items=[text for number in numbers for text in (f"field:{number}", number)])
        client.sadd("big:set", *(f"member:{number}" for number in numbers))


def clear(client: redis.Redis, keys: int) -> None:
    """Remove the targets of the jobs."""
    for numbers in _batches(keys):
        # What UNLINK frees in the background would be charged to what is measured next.
        client.delete(*(f"step:{number:08}" for number in numbers))


def _batches(count: int) -> Iterator[range]:
    for first in range(0, count, BATCH):
        yield range(first, min(first + BATCH, count))


def job(number: int, chance: random.Random, note: str = "") -> list[str | int]:
    """Return the fields and values of a job, in turn; a note of more than 64 characters makes a hashtable of it."""
    return [
        *("id", number, "status", chance.choice(("pending", "active", "completed"))),
        *("type", "thumbnail", "queue", "default", "priority", chance.randint(1, 9)),
        *("attempts", chance.randint(0, 3), "created_at", "2026-11-23T07:00:00Z"),
        *("updated_at", "2026-11-23T07:00:30Z", "worker", f"worker-{chance.randint(1, 12)}"),
        *("payload", f'{{"customer": {chance.randint(1, 99_999)}, "locale": "en"}}{note}'),
    ]
