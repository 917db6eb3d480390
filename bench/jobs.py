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

LONG_NOTE = "x" * 64
"""Makes a hashtable of each hash."""

LARGE_TYPES = ("hash", "set")
"""Types of the large keys; each is named big:<type>."""


def fill(client: redis.Redis | RedisCluster, keys: int, *, note: str = "", name: str = NAME) -> None:
    """Write jobs of ten fields, as a job system does."""
    chance = random.Random(1)
    for numbers in _batches(keys):
        pipeline = client.pipeline(transaction=False)
        for number in numbers:
            pipeline.hset(name.format(number), items=_job(number, chance, note))
        pipeline.execute()


def fill_with_hashtables(client: redis.Redis, keys: int) -> None:
    """Write jobs of ten fields, of which one is long."""
    fill(client, keys, note=LONG_NOTE)


def fill_sparsely(client: redis.Redis, keys: int) -> None:
    """Write one job in a thousand keys; the others are small strings."""
    chance = random.Random(1)
    for numbers in _batches(keys):
        pipeline = client.pipeline(transaction=False)
        for number in numbers:
            if number % ONE_IN:
                pipeline.set(f"other:{number:08}", number)
            else:
                pipeline.hset(NAME.format(number), items=_job(number, chance, ""))
        pipeline.execute()


def fill_large(client: redis.Redis, members: int) -> None:
    """Write one hash of so many small fields, and one set of so many small members."""
    for numbers in _batches(members):
        client.hset("big:hash", items=[text for number in numbers for text in (f"field:{number}", number)])
        client.sadd("big:set", *(f"member:{number}" for number in numbers))


def clear(client: redis.Redis, keys: int) -> None:
    """Remove the targets of the jobs."""
    for numbers in _batches(keys):
        client.unlink(*(f"step:{number:08}" for number in numbers))


def _batches(count: int) -> Iterator[range]:
    for first in range(0, count, BATCH):
        yield range(first, min(first + BATCH, count))


def _job(number: int, chance: random.Random, note: str) -> list[str | int]:
    return [
        *("id", number, "status", chance.choice(("pending", "active", "completed"))),
        *("type", "thumbnail", "queue", "default", "priority", chance.randint(1, 9)),
        *("attempts", chance.randint(0, 3), "created_at", "2026-11-23T07:00:00Z"),
        *("updated_at", "2026-11-23T07:00:30Z", "worker", f"worker-{chance.randint(1, 12)}"),
        *("payload", f'{{"customer": {chance.randint(1, 99_999)}, "locale": "en"}}{note}'),
    ]
