"""Connections that are told of every change under some prefixes, and do nothing else (CLIENT TRACKING, RESP3).

What is told comes after its write is visible, and before the writer's reply. It is not told to a connection that is
lost: then everything has to be looked at again.
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import hiredis
import redis
from redis.connection import AbstractConnection
from redis.exceptions import RedisError

from luamigrate.model.errors import Error, Refused
from luamigrate.server.connection import Connection
from luamigrate.server.errors import FIRST_COMMAND, ConnectionLost, error_text, explain
from luamigrate.server.identity import client_id_of

EVERYTHING = None
"""What is told in place of names where a database was emptied, or another data set was loaded."""

PINGS = 2
"""Of one barrier: what was written in the same turn of the server's loop as the first is told before the second."""

_AT_ONCE = 32_768
"""Bytes that are read at once: some hundred names, so that nobody who is told without end forgets his other work."""
_SECONDS_TO_SEND = 5.0
"""A PING is sent in this time, or the connection is lost."""


def wait_for(sources: Iterable[Listener | Connection], seconds: float) -> None:
    """Wait until one has something to be read; not by select(), which knows no file number from 1024 on."""
    poll = select.poll()
    for source in sources:
        poll.register(source, select.POLLIN)
    poll.poll(seconds * 1000)


class Listeners:
    """Are told names, each by one server; `barrier` says when all writes up to a moment have been told by all."""

    def __init__(self, servers: Iterable[Connection], prefixes: Sequence[bytes], channel: bytes) -> None:
        """Connect and register. Raises Refused where this user or a server does not allow it, Error."""
        self._of: dict[Connection, Listener] = {}
        self._wanted = False
        """Whether another barrier is to begin after the one that is under way."""
        self.is_asked = False
        """Whether a barrier is under way."""
        self.passed = 0
        """How many barriers there have been."""
        try:
            for server in servers:
                self._of[server] = Listener(server, prefixes, channel)
        except Error:
            self.close()
            raise

    @property
    def all(self) -> list[Listener]:
        """What `select` waits for."""
        return [*self._of.values()]

    @property
    def client_ids(self) -> dict[Connection, int | None]:
        """By which number each server knows the connection that listens to it."""
        return {server: listener.client_id for server, listener in self._of.items()}

    def hear(self, servers: Iterable[Connection]) -> bool:
        """Tell whether there is a listener at each of these servers."""
        return self._of.keys() >= {*servers}

    def read(self) -> Iterator[list[bytes] | None]:
        """Yield some of what has been told: names, or EVERYTHING; wait for nothing. Raises ConnectionLost."""
        for listener in self._of.values():
            yield from listener.read()
        if self.is_asked and not any(listener.is_asked for listener in self._of.values()):
            self.is_asked = False
            self.passed += 1
            if self._wanted:
                self._wanted = False
                self.barrier()

    @property
    def next_barrier(self) -> int:
        """How many will have passed after the next one that begins."""
        return self.passed + (2 if self.is_asked else 1)

    def barrier(self) -> int:
        """Begin a barrier, or have one follow that is under way; return how many will have passed after it."""
        ticket = self.next_barrier
        if self.is_asked:
            self._wanted = True
        else:
            self.is_asked = True
            for listener in self._of.values():
                listener.begin_barrier()
        return ticket

    def close(self) -> None:
        """Close the connections."""
        for listener in self._of.values():
            listener.close()


class Listener:
    """Is told names by one server, until its connection is lost.

    It also subscribes to a channel of its own, on which nobody speaks: so the server closes it, as it does with a
    subscriber that does not read, instead of keeping without bounds what it has to tell.
    """

    def __init__(self, server: Connection, prefixes: Sequence[bytes], channel: bytes) -> None:
        """Connect and register. Raises Refused where this user or server does not allow it, Error."""
        self._connection: AbstractConnection = server.beside(protocol=3)
        self._reader: Any = None
        self._pings = 0
        """How many PINGs of the barrier under way have not been answered."""
        self.client_id: int | None = None
        """By which number the server knows this connection among its clients; None where it does not tell."""
        try:
            self._register(prefixes, channel)
        except (Error, RedisError, OSError):
            self.close()
            raise
        # From here on nothing is read but what is there.
        self._socket.settimeout(0)

    def _register(self, prefixes: Sequence[bytes], channel: bytes) -> None:
        tracking = ["CLIENT", "TRACKING", "ON", "BCAST", *(part for each in prefixes for part in ("PREFIX", each))]
        try:
            self._connection.connect()
            parse_error = self._connection._parser.parse_error  # noqa: SLF001  # errors as everywhere else
            self._reader = hiredis.Reader(protocolError=redis.InvalidResponse, replyError=parse_error)
            self.client_id = client_id_of(self._ask(FIRST_COMMAND))
            # Before it is told anything, so that the server cannot be made to keep it.
            self._ask("SUBSCRIBE", channel)
            self._ask(*tracking)
        except (RedisError, OSError) as error:
            if "HELLO" in str(error) or "NOPROTO" in str(error):
                raise Refused(f"follow: the server does not speak RESP3: {error_text(error, None)}") from None
            if isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):
                raise explain(error) from None
            raise Refused(f"follow: the server does not tell this user of changes: {explain(error)}") from None

    def _ask(self, *command: bytes | str) -> Any:
        """Ask, and return one answer: what comes behind it may be told already, and only half of it be there."""
        packed: Any = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub knows 1-tuples only
        self._socket.sendall(packed)
        while (answer := self._reader.gets()) is False:
            data = self._socket.recv(_AT_ONCE)
            if not data:
                raise redis.ConnectionError("the server closed it")
            self._reader.feed(data)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def _socket(self) -> Any:
        return self._connection._sock  # noqa: SLF001  # to wait for it beside others

    def fileno(self) -> int:
        """Return what `select` waits for."""
        return int(self._socket.fileno())

    def read(self) -> Iterator[list[bytes] | None]:
        """Yield some of what has been told: names, or EVERYTHING; wait for nothing. Raises ConnectionLost."""
        self._reader.feed(self._receive())
        while (message := self._next()) is not False:
            match message:
                case [b"invalidate", names]:
                    yield names
                case Exception():
                    raise ConnectionLost(f"the listening connection was answered: {message}")
                case b"PONG" | "PONG":
                    self._answered()

    def _next(self) -> Any:
        try:
            return self._reader.gets()
        except redis.InvalidResponse as error:
            raise ConnectionLost(f"the listening connection was answered: {error}") from None

    def _receive(self) -> bytes:
        try:
            data: bytes = self._socket.recv(_AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            if "want" in type(error).__name__.lower():  # of TLS: a part of a record
                return b""
            raise ConnectionLost(f"the listening connection was lost: {error}") from None
        if not data:
            raise ConnectionLost("the listening connection was lost: the server closed it")
        return data

    @property
    def is_asked(self) -> bool:
        """Whether a barrier has begun that is not over here."""
        return bool(self._pings)

    def begin_barrier(self) -> None:
        """Ask the server twice, one time after the other: then all writes until now have been told."""
        self._pings = PINGS
        self._ping()

    def _answered(self) -> None:
        self._pings -= 1
        if self._pings:
            self._ping()

    def _ping(self) -> None:
        socket = self._socket
        try:
            socket.settimeout(_SECONDS_TO_SEND)
            socket.sendall(hiredis.pack_command(("PING",)))
            socket.settimeout(0)
        except OSError as error:
            raise ConnectionLost(f"the listening connection was lost: {error}") from None

    def close(self) -> None:
        """Close the connection."""
        with suppress(RedisError, OSError):
            self._connection.disconnect()
