"""An application that reads a flag before each write, and adds one to a counter under the names that the flag says.

As a program, `python -m bench.counting HOST PORT FLAG KEYS SEED` prints a line once it is connected, and works on a few
connections until its input ends. Then it prints JSON: `counted`, how often each counter was confirmed to be one more;
`unknown`, how many increments were sent and not answered; `longest_ms`, what one took at most, from the reading of the
flag until it was confirmed.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

PROCESSES, THREADS = 2, 6
SECONDS_BETWEEN = 0.005
"""On each connection, from one answer to the next write: an application that writes faster than it can be followed is
never in step, and what that takes is measured by the part `follow`."""
OLD = "job:"
FIELD = "counted"


@dataclass
class Account:
    """What the application knows of its writes."""

    counted: Counter[str] = field(default_factory=Counter)
    unknown: int = 0
    longest_ms: float = 0.0

    def add(self, text: str) -> None:
        """Add what one process has printed."""
        told = json.loads(text)
        self.counted.update(told["counted"])
        self.unknown += told["unknown"]
        self.longest_ms = max(self.longest_ms, told["longest_ms"])


@contextmanager
def counting(url: str, flag: str, keys: int) -> Iterator[Account]:
    """Have twelve connections count, from two processes; the account is filled at the end."""
    address, account = urlsplit(url), Account()
    processes = [
        subprocess.Popen(
            (sys.executable, "-m", "bench.counting", str(address.hostname), str(address.port), flag, str(keys), seed),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in map(str, range(PROCESSES))
    ]
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        yield account
    finally:
        for process in processes:
            out, _ = process.communicate()
            account.add(out)


class _Worker(threading.Thread):
    """Counts on a connection of its own, and repeats what failed by reading the flag again."""

    def __init__(self, client: redis.Redis, flag: str, keys: int, seed: int) -> None:
        super().__init__()
        self._client, self._flag, self._keys = client, flag, keys
        self._chance = random.Random(seed)
        self.is_over = False
        self.account = Account()

    def run(self) -> None:
        """Count until it is over."""
        while not self.is_over:
            time.sleep(SECONDS_BETWEEN)
            key, began = f"{self._chance.randrange(self._keys):08}", time.perf_counter()
            while not self._has_counted(key):
                pass
            self.account.counted[key] += 1
            self.account.longest_ms = max(self.account.longest_ms, (time.perf_counter() - began) * 1000)

    def _has_counted(self, key: str) -> bool:
        is_sent = False
        with suppress(redis.RedisError, OSError):
            names: Any = self._client.get(self._flag) or OLD
            is_sent = True
            self._client.hincrby(f"{names}{key}", FIELD, 1)
            return True
        self.account.unknown += is_sent
        return False


def _work(host: str, port: int, flag: str, keys: int, seed: int) -> None:
    # A client that repeats by itself would write names that have just been left.
    once = Retry(NoBackoff(), 0)
    workers = [
        _Worker(
            redis.Redis(host=host, port=port, decode_responses=True, single_connection_client=True, retry=once),
            *(flag, keys, seed * THREADS + number),
        )
        for number in range(THREADS)
    ]
    for worker in workers:
        worker.start()
    print("ready", flush=True)
    sys.stdin.read()
    total = Account()
    for worker in workers:
        worker.is_over = True
    for worker in workers:
        worker.join()
        total.counted.update(worker.account.counted)
        total.unknown += worker.account.unknown
        total.longest_ms = max(total.longest_ms, worker.account.longest_ms)
    print(json.dumps({"counted": total.counted, "unknown": total.unknown, "longest_ms": total.longest_ms}))


if __name__ == "__main__":
    _, at, number, name, count, first = sys.argv
    _work(at, int(number), name, int(count), int(first))
