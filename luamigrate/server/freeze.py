"""A freeze: all writes of some servers wait for a moment (CLIENT PAUSE), but for our own.

The server holds what writes, scripts included, and goes on answering what reads. Our own calls that it would hold go
in one packet with a CLIENT UNPAUSE before and a CLIENT PAUSE behind them, which the server carries out before anybody
whose write waits. That is so only while the packet arrives in one piece, which nobody can promise: so it is for the
caller to find out whether anybody wrote meanwhile (`read_changes`).

A pause ends by itself. So writes wait for no longer than the freeze may take, whatever becomes of us.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import hiredis
import redis
from redis.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from luamigrate.model.errors import Error
from luamigrate.server.call import Call
from luamigrate.server.connection import Connection
from luamigrate.server.errors import ConnectionLost, explain
from luamigrate.server.greeting import ask, read
from luamigrate.server.identity import client_id_of, facts_of_info
from luamigrate.server.info import milliseconds_of, number

Command = tuple[bytes | str | int, ...]

MOST_BYTES = 16_000
"""Of one packet with what is put around it: what is longer a server reads in several pieces, and others write between.

It is what a server reads at once, less the frame's own.
"""
MARGIN_MS = 2
"""By which the deadline comes before the moment at which the first pause may end."""
LEAST_MS = 5
"""A freeze that has less left is over: nothing more is begun in it."""
ANSWER_SECONDS = 0.1
"""In which a write is answered; after that the server is asked whether somebody else holds writes."""
BUSY_SECONDS = 1.0
"""In which a server answers that is only busy."""
SLACK_MS = 1000
"""A pause that lasts for so much longer than ours is somebody else's: ours begins later where the link delays it."""

NEVER_HELD = frozenset(("CLIENT", "CLUSTER", "EVALSHA_RO", "GET", "HGETALL", "INFO", "PING", "ROLE", "TIME", "WAIT"))
"""Commands of ours that a server answers while it holds writes: they need no frame, nor may WAIT have one."""


def _packed(*command: bytes | str | int) -> bytes:
    return bytes(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows 1-tuples only


_UNPAUSE = _packed("CLIENT", "UNPAUSE")


def _pause(milliseconds: float) -> bytes:
    return _packed("CLIENT", "PAUSE", math.ceil(milliseconds), "WRITE")


class Held(Error):
    """Somebody else holds writes, or the server is too busy to answer."""


@dataclass
class _Server:
    """A server whose writes are held, and the connection on which we ask it for that."""

    main: Connection
    """The connection on which our own writes go."""
    own: AbstractConnection
    client_id: int | None
    made: int
    """How many connections `main` had made when it was prepared."""
    frames: list[Call] = field(default_factory=list)
    """What was sent around our own writes, and has not been seen to have been done."""

    def send(self, *packed: bytes) -> None:
        """Send commands in one packet. Raises RedisError, OSError."""
        self.own.send_packed_command([b"".join(packed)], check_health=False)

    def read_until(self, moment: float) -> Any:
        """Read the next answer. Raises redis.TimeoutError where it does not come in time, RedisError, OSError."""
        if not self.own.can_read(timeout=max(0.0, moment - time.monotonic())):
            raise redis.TimeoutError
        return read(self.own)

    def read_soon(self) -> Any:
        """Read the next answer of a server that may be busy. Raises Held where none comes, RedisError, OSError."""
        try:
            return self.read_until(time.monotonic() + BUSY_SECONDS)
        except redis.TimeoutError:
            self.drop()
            raise Held(
                f"no answer within {BUSY_SECONDS:.0f} s at {self.main.whereabouts}: is the server busy, or does "
                "somebody else hold all commands (CLIENT PAUSE)?"
            ) from None

    def is_held(self) -> bool:
        """Tell whether what was sent waits for somebody else's pause to end; if nobody tells, it does. Raises Error."""
        listed = self.main.call("CLIENT", "LIST", "ID", self.client_id or 0).answer()
        flags = re.search(rb" flags=(\S*)", listed) if isinstance(listed, bytes) else None
        return flags is None or b"b" in flags[1]

    def drop(self) -> None:
        """Close the connection: what waits on it is never carried out."""
        with suppress(RedisError, OSError):
            self.own.disconnect()

    @property
    def is_dropped(self) -> bool:
        """Whether its connection is closed."""
        return self.own._sock is None  # noqa: SLF001  # there is no other way


class Freeze:
    """Writes of some servers are held from `begin` to `end`, for at most so many milliseconds in all.

    Meanwhile calls of the servers' own connections are framed, so that they are carried out, and none of them is sent
    again where its connection is lost. A transaction has to be sent as a whole: all of its calls before the first
    answer is waited for.
    """

    def __init__(
        self,
        servers: Sequence[Connection],
        home: Connection,
        most_ms: int,
        harmless: Command,
        *,
        beside: Mapping[Connection, Sequence[Connection]] | None = None,
    ) -> None:
        """Prepare nothing yet. `home` has the clock that counts, `harmless` is a write that changes nothing.

        `beside` has further connections of ours, by the server's main one, whose calls are framed too.
        """
        self._mains, self._home, self._most_ms, self._beside = servers, home, most_ms, beside or {}
        self._harmless = _packed(*harmless)
        self._servers: list[_Server] = []
        self._began: float | None = None
        self._held_ms: float | None = None
        self._problem: Error | None = None
        self.deadline = 0
        """Until when writes are certainly held, by the clock of `home`: milliseconds since 1970; 0 before."""

    def prepare(self) -> None:
        """Connect, so that nothing has to be done in the freeze that can be done before it. Raises Error."""
        try:
            for main in self._mains[len(self._servers) :]:
                own = main.beside()
                own.connect()
                self._servers.append(_Server(main, own, client_id_of(ask(own, "HELLO")), main.connections))
        except (RedisError, OSError) as error:
            self._close()
            raise explain(error, self._home.url) from None

    @property
    def client_ids(self) -> dict[Connection, int | None]:
        """By which number each server knows the connection that was made for the freeze."""
        return {server.main: server.client_id for server in self._servers}

    def begin(self) -> None:
        """Have all servers hold writes. Raises Held where somebody else does so already, Error; then none of them does.

        In one packet with a write that is answered only if writes are not held: where they are, nothing is done.
        """
        self.prepare()
        for server in self._servers:
            server.made = server.main.connections
        told = self._read_time()
        # Read after the server's time, so that what is counted from here ends later than by that.
        self._began = time.monotonic()
        self.deadline = told + self._most_ms - MARGIN_MS
        moment = self._began + ANSWER_SECONDS
        problems = [
            self._attempt(server, step) for step in (self._ask, partial(self._see, moment)) for server in self._servers
        ]
        for problem in filter(None, problems):
            self.end()
            raise problem
        for server in self._servers:
            for connection in self._framed(server):
                connection.frame = partial(self._frame, server, connection)

    def _framed(self, server: _Server) -> list[Connection]:
        return [server.main, *self._beside.get(server.main, ())]

    @property
    def left_ms(self) -> float:
        """For how long writes are still held, at most; 0 where they are not."""
        if self._began is None or self._held_ms is not None:
            return 0.0
        return max(0.0, self._most_ms - self._passed_ms)

    @property
    def is_over(self) -> bool:
        """Whether nothing is to be begun any more: its time is used up, or there is a problem."""
        return self.left_ms < LEAST_MS or self.problem is not None

    @property
    def problem(self) -> Error | None:
        """Why nobody knows whether writes are held; None where all is well, as far as it has been answered."""
        for server in self._servers:
            if not self._problem and self._began is not None and server.main.connections != server.made:
                self._problem = ConnectionLost(
                    f"the connection to {server.main.whereabouts} was lost while writes were held"
                )
            answered, server.frames = _divided(server.frames, lambda call: call.is_answered)
            for call in answered:
                self._problem = self._problem or _problem_of(call)
        return self._problem

    def confirm(self) -> None:
        """Wait until it is known that writes are held after all that was sent. Raises Error where they may not be."""
        for server in self._servers:
            for call in server.frames:
                with suppress(Error):
                    call.answer()
        if problem := self.problem:
            raise problem

    def end(self) -> float:
        """Have writes go on, and return for how many milliseconds they were held. Raises nothing.

        Somebody else's pause that lasts longer is not ended, where the server tells of it.
        """
        if self._began is None or self._held_ms is not None:
            self._close()
            return self._held_ms or 0.0
        for server in self._servers:
            for connection in self._framed(server):
                connection.frame = None
        left_ms = max(0.0, self._most_ms - self._passed_ms)
        for server in self._servers:
            self._attempt(server, partial(self._unpause, left_ms))
        self._held_ms = min(self._passed_ms, float(self._most_ms))
        for server in self._servers:
            self._attempt(server, self._unpause_again)
        self._close()
        return self._held_ms

    @property
    def _passed_ms(self) -> float:
        return (time.monotonic() - (self._began or 0.0)) * 1000

    def _read_time(self) -> int:
        """Return the time of `home`; ask the others first, for nobody may hold all commands. Raises Error."""
        told = 0
        for server in sorted(self._servers, key=lambda server: server.main is self._home):
            try:
                told = milliseconds_of(self._call(server, _packed("TIME")))
            except (RedisError, OSError) as error:
                raise explain(error) from None
        return told

    def _ask(self, server: _Server) -> None:
        server.send(self._harmless, _pause(self.left_ms))

    def _see(self, moment: float, server: _Server) -> None:
        if not server.own.can_read(timeout=max(0.0, moment - time.monotonic())) and server.is_held():
            server.drop()
            raise Held(f"somebody else holds writes at {server.main.whereabouts} (CLIENT PAUSE)")
        refusal: ResponseError | None = None
        try:
            server.read_soon()
        except ResponseError as error:
            refusal = error  # writes may be held all the same
        if server.read_soon() != b"OK":
            raise Error("the server does not answer CLIENT PAUSE as it should")
        if refusal:
            raise refusal

    def _frame(self, server: _Server, connection: Connection, calls: Sequence[Call]) -> tuple[Call, Call, int] | None:
        """Return what goes around calls, and around how many of them; those behind these need nothing.

        Nothing where none needs it, or writes are not held for long enough. Then a server that still holds writes holds
        the calls too, until after the deadline.
        """
        held = [index for index, call in enumerate(calls) if call.watch is not None or call.name not in NEVER_HELD]
        if self.is_over or not held:
            return None
        first, last = (Call(connection.read_next, packed, once=True) for packed in (_UNPAUSE, _pause(self.left_ms)))
        server.frames += first, last
        # As soon as may be: where the packet arrives in pieces, others write until then.
        return first, last, held[-1] + 1

    def _unpause(self, left_ms: float, server: _Server) -> None:
        if self._passed_ms > self._most_ms + ANSWER_SECONDS * 1000:
            return  # it has ended long ago
        facts = facts_of_info(self._call(server, _packed("INFO", "clients")))
        if (number(facts, "paused_timeout_milliseconds") or 0) > left_ms + SLACK_MS:
            server.frames = []  # somebody else's
        else:
            self._call(server, _UNPAUSE)

    def _unpause_again(self, server: _Server) -> None:
        """Wait for what was still under way, which may have paused after all."""
        under_way = [call for call in server.frames if not call.is_answered]
        for call in under_way:
            with suppress(Error):
                call.answer()
        if under_way:
            self._call(server, _UNPAUSE)

    def _call(self, server: _Server, packed: Any) -> Any:
        server.send(packed)
        return server.read_soon()

    def _attempt(self, server: _Server, step: Callable[[_Server], None]) -> Error | None:
        """Take a step at a server, unless its connection is closed; return the problem where it fails."""
        try:
            if not server.is_dropped:
                step(server)
        except ResponseError as error:
            return explain(error)
        except (RedisError, OSError) as error:
            server.drop()
            return explain(error)
        except Error as problem:
            return problem
        return None

    def _close(self) -> None:
        for server in self._servers:
            server.drop()


def _divided(calls: Sequence[Call], is_first: Callable[[Call], bool]) -> tuple[list[Call], list[Call]]:
    return [call for call in calls if is_first(call)], [call for call in calls if not is_first(call)]


def _problem_of(call: Call) -> Error | None:
    try:
        answer = call.answer()
    except Error as problem:
        return problem
    return None if answer == b"OK" else Error(f"the server does not answer {call.name} as it should")


NEEDED = (
    ("CLIENT", "PAUSE", "1", "WRITE"),
    ("CLIENT", "UNPAUSE"),
    ("CLIENT", "LIST", "TYPE", "normal"),
    ("CLIENT", "KILL", "ID", "1"),
)


def refused_commands(server: Connection) -> dict[str, Error]:
    """Return why this user may not hold writes or close connections, by the command as ACLs name it. Raises Error.

    Nothing is held or closed: a server refuses what is not permitted as soon as it is queued in a transaction.
    """
    refused: dict[str, Error] = {}
    own = server.beside()
    try:
        own.connect()
        ask(own, "MULTI")
        for command in NEEDED:
            name = "|".join(command[:2]).lower()
            try:
                if ask(own, *command) != b"QUEUED":
                    refused[name] = Error(f"the server does not answer {' '.join(command[:2])} in MULTI as it should")
            except ResponseError as error:
                refused[name] = explain(error)
    except (RedisError, OSError) as error:
        raise explain(error, server.url) from None
    finally:
        with suppress(RedisError, OSError):
            own.disconnect()
    return refused
