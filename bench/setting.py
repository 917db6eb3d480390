"""The server that is measured, the keys on it, and how often each measurement is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import redis

from bench import jobs
from bench.contenders import RUN, Measured, luamigrate
from bench.table import Table


@dataclass(frozen=True)
class Bench:
    """A server, what is on it, and how often to measure."""

    client: redis.Redis
    url: str
    binary: Path
    keys: int
    rounds: int
    table: Table

    def clear(self) -> None:
        """Remove the targets."""
        jobs.clear(self.client, self.keys)

    def run_all(self, *options: str) -> Measured:
        """Have luamigrate copy all jobs, at the default settings but for these options."""
        measured = luamigrate(self.url, *RUN, *options)
        assert measured.copied == self.keys, f"{measured.copied} of {self.keys} keys copied"
        return measured


def connect(url: str) -> redis.Redis:
    """Connect for commands that may take long."""
    return redis.Redis.from_url(url, socket_timeout=3600, protocol=2)
