"""The least that a client can take: a pipeline that is packed and read by hand, on one connection.

It copies and compares, but each command by itself: a write in between looks like a difference, expiries are not
compared, and nothing keeps it from holding the server for long.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import hiredis

from bench.contenders import SOURCE, TARGET, Measured

NAMES_PER_SCAN = b"1000"
"""Two such batches are on their way at a time, so that the server finds the next one when it has done with one."""

RECEIVED_AT_ONCE = 1 << 18

Command = tuple[bytes | str | int, ...]


@dataclass(frozen=True)
class Reading:
    """How a client reads a whole key, to compare it with another."""

    command: bytes
    arguments: tuple[bytes, ...] = ()
    without_order: Callable[[Any], object] | None = None
    """What of an answer is to be compared where answers may be equal but in another order."""

    def equal(self, one: Any, other: Any) -> bool:
        """Return whether two answers say the same."""
        if one == other:
            return True
        return self.without_order is not None and self.without_order(one) == self.without_order(other)


def _by_field(answer: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(answer[::2], answer[1::2], strict=True))


DUMP = Reading(b"DUMP")
FIELDS = Reading(b"HGETALL", without_order=_by_field)
MEMBERS = Reading(b"SMEMBERS", without_order=frozenset)
SCORES = Reading(b"ZRANGE", (b"0", b"-1", b"WITHSCORES"))
ITEMS = Reading(b"LRANGE", (b"0", b"-1"))
TEXT = Reading(b"GET")


class _Connection:
    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((str(address.hostname), address.port or 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def send(self, commands: Iterable[Command]) -> None:
        pack: Any = hiredis.pack_command  # its stub knows 1-tuples only
        self._socket.sendall(b"".join(map(pack, commands)))

    def receive(self) -> Any:
        while (answer := self._reader.gets()) is False:
            received = self._socket.recv(RECEIVED_AT_ONCE)
            assert received, "the server has gone"
            self._reader.feed(received)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self._socket.close()


def copy(url: str, reading: Reading = FIELDS) -> Measured:
    """COPY each job, and read source and target."""
    return _go_through(url, reading, copies=True)


def compare(url: str, reading: Reading = FIELDS) -> Measured:
    """Only read source and target of each job."""
    return _go_through(url, reading, copies=False)


def write(url: str, commands: Iterable[Command]) -> None:
    """Send commands that make keys."""
    connection, commands = _Connection(url), iter(commands)
    while batch := list(islice(commands, 1000)):
        connection.send(batch)
        for _ in batch:
            connection.receive()
    connection.close()


def _go_through(url: str, reading: Reading, *, copies: bool) -> Measured:
    began, processor = time.perf_counter(), time.process_time()
    connection = _Connection(url)
    copied, on_their_way = 0, 0
    for names in _sources_ahead(connection, reading, copies=copies):
        copied += _count_equal(connection, on_their_way, reading, copies=copies)
        on_their_way = names
    copied += _count_equal(connection, on_their_way, reading, copies=copies)
    connection.close()
    return Measured(time.perf_counter() - began, copied, cpu_seconds=time.process_time() - processor)


def _sources_ahead(connection: _Connection, reading: Reading, *, copies: bool) -> Iterator[int]:
    """Send the commands for one SCAN's sources behind the next SCAN; yield for how many."""
    cursor: Any = b"0"
    connection.send((_scan(cursor),))
    while True:
        cursor, names = connection.receive()
        ahead = () if cursor == b"0" else (_scan(cursor),)
        connection.send((*ahead, *_commands(names, reading, copies=copies)))
        yield len(names)
        if not ahead:
            return


def _scan(cursor: bytes) -> Command:
    return (b"SCAN", cursor, b"MATCH", SOURCE + b"*", b"COUNT", NAMES_PER_SCAN)


def _commands(names: list[bytes], reading: Reading, *, copies: bool) -> Iterator[Command]:
    for name in names:
        target = TARGET + name[len(SOURCE) :]
        if copies:
            yield b"COPY", name, target
        yield reading.command, name, *reading.arguments
        yield reading.command, target, *reading.arguments


def _count_equal(connection: _Connection, pairs: int, reading: Reading, *, copies: bool) -> int:
    count = 0
    for _ in range(pairs):
        made = connection.receive() if copies else True
        source, target = connection.receive(), connection.receive()
        count += bool(made) and source is not None and reading.equal(source, target)
    return count
