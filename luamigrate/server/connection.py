"""One server: calls in flight, reconnecting, and commands that run at one moment."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import hiredis
import redis
from redis import connection as sockets
from redis.connection import AbstractConnection, ConnectionPool, SSLConnection
from redis.exceptions import RedisError, ResponseError

from luamigrate.model.control import NOBODY, Control
from luamigrate.model.errors import Error, Refused, UsageError, printable
from luamigrate.server.call import Call, Watch
from luamigrate.server.errors import Answered, ConnectionLost, ServerChanged, explain, passes
from luamigrate.server.greeting import ask, identify, read
from luamigrate.server.identity import REPLICA, Identity
from luamigrate.server.url import address

ANSWER_SECONDS = 60
"""Far above the longest batch: giving up on a script that still runs would only hide it."""

RECONNECTIONS = 20
"""Allowed while several commands are to be answered at one moment."""

TICK_SECONDS = 1.0
"""How long an answer is waited for before the user is told."""
FIRST_DELAY, LONGEST_DELAY = 0.05, 2.0
"""Seconds between two tries to connect; they double each time."""


Frame = Callable[[Sequence[Call]], tuple[Call, Call, int] | None]
"""Returns what is sent before calls and behind the first so many of them, in one packet with them; None for nothing."""

_OF_ONE_PLACE = frozenset(("path", "connection_pool"))
"""Settings of a connection that belong to one server: its socket, its Sentinels."""


@dataclass(frozen=True, kw_only=True)
class ReconnectPolicy:
    """How long a lost server is waited for, and what kind of server will do in its place."""

    patience: float = 0.0
    """Seconds for which it is waited for."""
    control: Control = NOBODY
    """Ends the waiting, and is told of it."""
    needs_primary: bool = False
    """Whether a replica is not enough."""
    replaced: Callable[[], bool] = lambda: False
    """Whether another server has taken its place, so that waiting for it makes no sense."""


class Connection:
    """One server and one connection to it, on which several calls may be under way.

    Answers come in the order of the calls. The client library never sends anything twice on its own. Where the
    connection is lost, the server is waited for as long as `reconnect_by` says. If the same process is back, the calls
    under way are sent again; otherwise they raise ServerChanged.
    """

    def __init__(self, pool: ConnectionPool, url: str) -> None:
        self.url = url
        """The URL without its password."""
        self.connections = 1
        """How many connections have been made so far: WATCH, for example, ends with its own."""
        self.round_trip = 0.0
        """Seconds that a command takes that does nothing."""
        self._pool = pool
        self._policy = ReconnectPolicy()
        self._watch: Watch | None = None
        self._outgoing: list[Call] = []
        self._under_way: deque[Call] = deque()
        self._last_reply = -math.inf
        self._lost: Error | None = None
        self._silent_since: float | None = None
        """Since when no call has been answered, though connections were made; None after an answer."""
        self._broken: Exception | None = None
        """Why the connection is useless, if that was found while sending, before an answer was read."""
        self.frame: Frame | None = None
        """What is put around each packet while all writes are held but ours."""
        try:
            self._connection: AbstractConnection = pool.get_connection()
            self.identity = self._greet()
        except (ValueError, TypeError) as error:  # a host name or file that cannot be one
            raise UsageError(f"the URL cannot be used: {printable(os.fsencode(str(error)))}") from None
        except (RedisError, OSError) as error:
            raise self._explain(error) from None

    @property
    def client_id(self) -> int | None:
        """By which number the server knows this connection among its clients; None where it does not tell."""
        return self.identity.client_id

    @property
    def is_lost(self) -> bool:
        """Whether waiting for the server was in vain."""
        return self._lost is not None

    def at(self, host: str, port: int) -> Connection:
        """Connect to another server with the same user, TLS, database and time-outs. Raises what `connect` does."""
        tls = issubclass(self._pool.connection_class, SSLConnection)
        return Connection(self._pool_at(host, port), f"{'rediss' if tls else 'redis'}://{address(host, port)}")

    def _pool_at(self, host: str, port: int) -> ConnectionPool:
        settings = {name: value for name, value in self._pool.connection_kwargs.items() if name not in _OF_ONE_PLACE}
        tls = issubclass(self._pool.connection_class, SSLConnection)
        return ConnectionPool(SSLConnection if tls else sockets.Connection, **(settings | {"host": host, "port": port}))

    def beside(self, **settings: Any) -> AbstractConnection:
        """Prepare a connection to the same server, for whoever speaks to it in another way; it is not made yet."""
        pool = self._pool_of_this_server()
        connection: AbstractConnection = pool.connection_class(**(pool.connection_kwargs | settings))
        return connection

    def _pool_of_this_server(self) -> ConnectionPool:
        return self._pool

    def once_more(self) -> Connection:
        """Make another connection to the same server. Raises ConnectionLost where there cannot be another."""
        try:
            pool = self._pool_of_this_server()
            return Connection(ConnectionPool(pool.connection_class, **pool.connection_kwargs), self.url)
        except Error as problem:
            raise ConnectionLost(str(problem)) from None

    @property
    def whereabouts(self) -> str:
        """The address, for people."""
        return self.url

    @property
    def host(self) -> str:
        """The host, without the port."""
        return str(self._pool.connection_kwargs.get("host") or "localhost")

    @property
    def place(self) -> str:
        """Host and port."""
        return address(self.host, int(self._pool.connection_kwargs.get("port") or 0))

    @property
    def database(self) -> int:
        """The number of the database that it has selected."""
        return int(self._pool.connection_kwargs.get("db") or 0)

    def reconnect_by(self, policy: ReconnectPolicy) -> None:
        """From now on, wait for a server that is lost."""
        self._policy = policy

    def call(self, *command: bytes | str | int, once: bool = False) -> Call:
        """Send a command soon: at the latest when an answer is waited for. Raises Error.

        With `once` it is never sent again: it raises ConnectionLost where the connection is lost.
        """
        if self._lost:
            raise self._lost
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub knows 1-tuples only
        watch, self._watch = self._watch, None
        call = Call(self.read_next, watch.packed + packed if watch else packed, once=once, watch=watch)
        self._outgoing.append(call)
        self._under_way.append(call)
        return call

    def watch(self, keys: Sequence[bytes]) -> Watch:
        """Put keys under WATCH together with the next call, in one packet and one measured time."""
        self._watch = Watch(keys)
        return self._watch

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()
        self._pool.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def confirm(self) -> None:
        """Check that it is still the server that is meant: otherwise calls raise ServerChanged from now on."""

    def keep_in_touch(self) -> None:
        """Send a PING: a server may close an idle connection, and a lost one is noticed."""
        with suppress(Refused, Answered):
            self.call("PING").answer()

    def flush(self) -> None:
        """Send all calls now, because another server will be waited for first."""
        if self._broken:
            return
        try:
            self._send()
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            # Otherwise the client library would reconnect by itself, and wait for answers to nothing.
            self._broken = error

    def fileno(self) -> int:
        """Return what `select` waits for, while calls are under way."""
        return int(self._connection._sock.fileno())  # type: ignore[attr-defined]  # noqa: SLF001  # there is no other way

    @property
    def is_waiting(self) -> bool:
        """Whether calls are under way."""
        return bool(self._under_way)

    def poll(self) -> None:
        """Send what is to be sent, and take the answers that have come; wait for none."""
        self.flush()
        while self._under_way and self._can_read_next():
            self.read_next()

    def _can_read_next(self) -> bool:
        """Tell whether the next answer has come, or never will."""
        sent = self._under_way[0].sent
        if sent is not None and time.perf_counter() - sent > ANSWER_SECONDS:
            self._broken = redis.TimeoutError(f"nothing came for {ANSWER_SECONDS} s")
        try:
            return self._broken is not None or bool(self._connection.can_read(timeout=0))
        except (redis.ConnectionError, OSError) as error:
            self._broken = error
            return True

    def read_next(self) -> None:
        """Read the answer to the oldest call under way; where the connection is lost, make another one."""
        try:
            self._raise_if_broken()
            self._send()
            waited = not self._connection.can_read(timeout=0)
            if waited:
                self._wait_for_answer()
            reply = self._receive()
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            self.recover(ConnectionLost(f"{explain(error)} (at {self._under_way[0].name})"))
            return
        except RedisError as error:
            if passes(error):
                self.recover(explain(error))
                return
            reply = error
        self._silent_since = None
        alone = len(self._under_way) == 1
        self._last_reply = self._under_way.popleft().complete(reply, self._last_reply, alone=alone, waited=waited)

    def _raise_if_broken(self) -> None:
        broken, self._broken = self._broken, None
        if broken:
            raise broken

    def recover(self, problem: Error) -> None:
        """Reconnect to a server that is ready, and send the calls under way again.

        Raises nothing. Where the server is lost for good, or has changed and nobody has accepted that yet, the calls
        raise the error: those under way, and those to come.
        """
        former = self.identity.run_id
        self._connection.disconnect()
        calls, self._under_way = self._under_way, deque()
        self._outgoing = []
        self._lost = self._wait_for_server(problem)
        if not self._lost and (not former or self.identity.run_id != former):
            self._lost = ServerChanged("another server answers now: run again")
        for call in calls:
            if self._lost or call.once:
                call.complete(self._lost or ConnectionLost(str(problem)), -math.inf)
            else:
                call.repeated = call.sent is not None
                self._outgoing.append(call)
                self._under_way.append(call)
        if not self._under_way:
            self._silent_since = None  # nothing is to be answered

    def accept_change(self) -> None:
        """Go on with another server process, once nothing is left that was meant for the former."""
        if isinstance(self._lost, ServerChanged):
            self._lost = None

    def _wait_for_server(self, problem: Error) -> Error | None:
        """Reconnect; return the problem where that does not succeed in time."""
        policy, delay = self._policy, FIRST_DELAY
        # A connection that is lost before anything is answered does not end the waiting.
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        else:
            time.sleep(FIRST_DELAY)
        deadline = self._silent_since + policy.patience
        reason = problem
        while time.monotonic() < deadline and not policy.control.stop():
            policy.control.tell(f"waiting for the server: {reason}; {deadline - time.monotonic():.0f} s left")
            try:
                self._connection.connect()
                self.identity = self._greet()
                self.connections += 1
                if self.identity.role != REPLICA or not policy.needs_primary:
                    return None
                reason = Error("role: it is a replica now")
            except (RedisError, OSError) as error:
                reason = self._explain(error)
            except Error as error:
                reason = error
            self._connection.disconnect()
            if policy.replaced():
                return ServerChanged("another node has taken its place: run again")
            time.sleep(min(delay, max(0.0, deadline - time.monotonic())))
            delay = min(2 * delay, LONGEST_DELAY)
        return problem

    def _explain(self, error: Exception) -> Error:
        login = self._pool.connection_kwargs
        return explain(error, self.url, login.get("password"), login.get("username"))

    def _wait_for_answer(self) -> None:
        waited = 0.0
        while not self._connection.can_read(timeout=TICK_SECONDS):
            waited += TICK_SECONDS
            if waited >= ANSWER_SECONDS:
                raise redis.TimeoutError(f"nothing came for {waited:.0f} s")
            self._policy.control.tell(f"waiting for the server: no answer for {waited:.0f} s")

    def _receive(self) -> Any:
        if watch := self._under_way[0].watch:
            for key in watch.keys:
                try:
                    if read(self._connection) != b"OK":
                        watch.refuse(key, Error("the server does not answer WATCH as it should"))
                except ResponseError as error:
                    watch.refuse(key, explain(error))
        return read(self._connection)

    def _send(self) -> None:
        # All at once: a system call for each would cost more than joining them.
        if self._outgoing:
            outgoing, self._outgoing = self._framed(self._outgoing), []
            now = time.perf_counter()
            for call in outgoing:
                call.sent = now
            self._connection.send_packed_command([b"".join(call.packed for call in outgoing)], check_health=False)

    def _framed(self, calls: list[Call]) -> list[Call]:
        """Put the frame around calls that are about to be sent: from then on none of them is sent again."""
        around = self.frame(calls) if self.frame else None
        if not around:
            return calls
        for call in calls:
            call.once = True
        first, last, inside = around
        begin = len(self._under_way) - len(calls)
        self._under_way.insert(begin, first)
        self._under_way.insert(begin + 1 + inside, last)
        return [first, *calls[:inside], last, *calls[inside:]]

    def _greet(self) -> Identity:
        """Ask who the server is, and check that it is ready. Raises RedisError where it is not."""
        identity = identify(self._connection, self.url)
        began = time.perf_counter()
        # Where the server can and the user may, reading does not make sources look used.
        with suppress(ResponseError):
            ask(self._connection, "CLIENT", "NO-TOUCH", "OFF" if identity.crashes_of_no_touch else "ON")
        self.round_trip = time.perf_counter() - began
        # From here on scripts may run, and a slow script is no lost server.
        self._connection.update_current_socket_timeout(ANSWER_SECONDS)
        return identity
