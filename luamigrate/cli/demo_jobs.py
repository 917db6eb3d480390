"""Sample jobs, and an application that works on them: it reads a flag before each write, and counts its steps."""

from __future__ import annotations

import json
import random
import threading
import zlib
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

JOBS = 4_000
SECONDS_BETWEEN_STEPS = 0.002
FLAG, NEW = "app:names", "step"
"""The key that says which names the application writes, and what it has once these are the new ones."""
OLD = "job"
COUNTER = "stats"


class Application(threading.Thread):
    """A job system at work, on the names that the flag says: it takes jobs, finishes and deletes them, enqueues others.

    Each step is a transaction that also adds one to a counter, so that whatever is lost, or done twice, shows.
    """

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._chance = random.Random(2)
        self._is_done = threading.Event()
        self.done = 0
        """Steps that the server has confirmed."""
        self.repeated = 0
        """Steps that were begun again, because the connection was closed, or the flag was changed meanwhile."""

    def run(self) -> None:
        """Work until told to stop."""
        while not self._is_done.is_set():
            with suppress(redis.RedisError), self._connected() as client:
                while not self._is_done.wait(SECONDS_BETWEEN_STEPS):
                    self._step(client, JOBS + 1 + self.done)
            self.repeated += not self._is_done.wait(SECONDS_BETWEEN_STEPS)

    def stop(self) -> None:
        """Stop, and wait for that."""
        self._is_done.set()
        self.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def counted(self) -> int:
        """Return what the server has counted, under the names that are the right ones now."""
        with self._connected() as client:
            return int(client.hget(f"{self._names(client)}:{COUNTER}", "done") or 0)

    def _connected(self) -> redis.Redis:
        # A client that repeats by itself would write names that have just been left.
        return redis.Redis.from_url(self._url, retry=Retry(NoBackoff(), 0))

    @staticmethod
    def _names(client: redis.Redis) -> str:
        flag: Any = client.get(FLAG)
        return flag.decode() if flag else OLD

    def _step(self, client: redis.Redis, number: int) -> None:
        """Do a step, by the flag; nothing is done where the flag changes meanwhile, or the connection is lost."""
        chance = self._chance
        with client.pipeline() as transaction:
            # One connection for flag and writes: a step that is sent again reads the flag again.
            transaction.watch(FLAG)
            names = self._names(transaction)
            transaction.multi()
            transaction.hset(f"{names}:{number}", mapping=_job(number, "pending", chance))
            transaction.zadd(f"{names}s:pending", {str(number): 1})
            taken = chance.randint(1, number)
            transaction.zrem(f"{names}s:pending", taken)
            transaction.hset(f"{names}:{taken}", "status", "active")
            transaction.smove(f"{names}s:active", f"{names}s:completed", str(chance.randint(1, number)))
            transaction.delete(f"{names}:{chance.randint(1, number)}")
            transaction.hincrby(f"{names}:{COUNTER}", "done", 1)
            transaction.execute()
        self.done += 1


def fill(client: redis.Redis) -> None:
    """Write jobs as a job system leaves them, hard cases included."""
    chance = random.Random(1)
    pipeline = client.pipeline(transaction=False)
    for number in range(1, JOBS + 1):
        status = chance.choice(("pending", "pending", "active", "completed", "completed", "failed"))
        pipeline.hset(f"job:{number}", mapping=_job(number, status, chance))
        if status == "pending":
            pipeline.zadd("jobs:pending", {str(number): chance.randint(1, 9) + number / 1e6})
        else:
            pipeline.sadd(f"jobs:{status}", number)
    pipeline.expire("job:3", 86_400)
    pipeline.hset("job:5", "payload", zlib.compress(b"a picture, say") + bytes(range(256)))
    pipeline.hset("step:7", mapping={"status": "active"})
    pipeline.hset("job:7", mapping={"status": "active"})
    pipeline.set("job:counter", JOBS)
    pipeline.execute()


def _job(number: int, status: str, chance: random.Random) -> Mapping[Any, str | int]:
    minute = f"2026-11-{chance.randint(1, 28):02}T{chance.randint(0, 23):02}:{chance.randint(0, 59):02}"
    return {
        "id": number,
        "status": status,
        "type": chance.choice(("email", "thumbnail", "invoice", "export")),
        "queue": chance.choice(("default", "high", "low")),
        "priority": chance.randint(1, 9),
        "attempts": chance.randint(0, 3),
        "created_at": f"{minute}:00Z",
        "updated_at": f"{minute}:30Z",
        "worker": f"worker-{chance.randint(1, 12)}",
        "payload": json.dumps({"customer": chance.randint(1, 99_999), "locale": "en"}),
    }
