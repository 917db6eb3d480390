"""What tests of a freeze need: others that write, and whether their writes wait."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest
import redis

from luamigrate import connect
from luamigrate.server.connection import Connection
from luamigrate.server.freeze import Freeze
from tests.clusters import wait_until
from tests.instances import Instance

HARMLESS = ("UNLINK", "luamigrate:nothing")
LONG_MS = 20_000
"""A freeze that does not end by itself in a test."""
WRITERS = 4


class Writers:
    """Other clients that write all the time, each on a connection of its own."""

    def __init__(self, server: Instance, count: int = WRITERS) -> None:
        self._server, self._done = server, threading.Event()
        self._clients = [server.another_client(socket_timeout=60) for _ in range(count)]
        self._threads = [threading.Thread(target=self._write, args=(client,), daemon=True) for client in self._clients]

    def _write(self, client: redis.Redis) -> None:
        while not self._done.is_set():
            client.incr("theirs")

    @property
    def written(self) -> int:
        """How often they have written."""
        return int(self._server.client.get("theirs") or 0)

    def wait_for_more(self) -> None:
        """Wait until some of them have written again."""
        before = self.written
        wait_until(lambda: self.written > before)

    def wait_until_all_wait(self) -> None:
        """Wait until the command of each is held."""
        wait_until(
            lambda: sum("b" in each["flags"] for each in self._server.client.client_list()) >= len(self._threads)
        )

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.close()


@contextmanager
def connected(url: str, **options: Any) -> Iterator[Connection]:
    """Give a connection to one server."""
    with connect(url, **options) as deployment:
        yield deployment.primaries[0]


@contextmanager
def frozen(main: Connection, most_ms: int = LONG_MS) -> Iterator[Freeze]:
    """Give a freeze that has begun, and end it."""
    freeze = Freeze([main], main, most_ms, HARMLESS)
    freeze.begin()
    try:
        yield freeze
    finally:
        freeze.end()


def assert_writes_go_on(server: Instance) -> None:
    """See that another client's write is answered, without anybody ending anything."""
    with server.another_client(socket_timeout=10) as client:
        client.set("elsewhere", 1)


def assert_writes_wait(server: Instance) -> None:
    """See that another client's write is not answered."""
    with server.another_client(socket_timeout=0.3) as client, pytest.raises(redis.TimeoutError):
        client.set("elsewhere", 1)
