"""From a URL to a server: connecting, who it is, calls in flight, errors in plain words."""

from __future__ import annotations

import os
import ssl
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionInterface, ConnectionPool
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from luamigrate.errors import Error, Refused, UsageError, printable

CONNECT_SECONDS = 5
"""For each of: reaching the server, agreeing on TLS, logging in, saying hello."""
ANSWER_SECONDS = 60
"""Far above the longest batch: giving up on a script that still runs would only hide it."""

URL_FORMS = "redis://[user:password@]host[:port][/database], rediss://… for TLS, or unix://[user:password@]/path[?db=N]"
URL_OPTIONS = {
    "redis": {"db"},
    "unix": {"db"},
    "rediss": {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"},
}


class ScriptMissing(Error):
    """The server does not have the script (any more)."""


class Call:
    """A command on its way; its answer is read when it is asked for."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._sent = time.perf_counter()
        self._reply: Any = None
        self.seconds: float | None = None
        """From when the server could begin with it to its answer; None while it is under way."""

    def answer(self) -> Any:
        """Wait for the answer and return it. Raises Error."""
        while self.seconds is None:
            self._server.read_next()
        if isinstance(self._reply, Exception):
            raise explain(self._reply) from None
        return self._reply

    def complete(self, reply: Any, began: float) -> float:
        """Take the reply to a command that the server could begin at `began`; return the time."""
        now = time.perf_counter()
        self._reply, self.seconds = reply, now - max(began, self._sent)
        return now


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a server says it is."""

    product: str
    version: str
    mode: str
    role: str

    def is_at_least(self, redis: tuple[int, int], valkey: tuple[int, int]) -> bool:
        """Compare the version, by product."""
        wanted = valkey if self.product == "valkey" else redis
        numbers = tuple(int(part) for part in self.version.split(".")[:2] if part.isdigit())
        return numbers >= wanted


class Server:
    """One server and one connection to it, on which several calls may be under way.

    Answers come in the order of the calls. Nothing is ever sent twice: a client that repeats a
    script whose answer was lost is told that its own copies had been there before.
    """

    def __init__(self, pool: ConnectionPool, url: str) -> None:
        self.url = url
        """The URL without its password."""
        self._pool = pool
        self._outgoing: list[bytes] = []
        self._under_way: deque[Call] = deque()
        self._last_reply = 0.0
        self._lost: Exception | None = None
        try:
            self._connection: ConnectionInterface = pool.get_connection()
        except (ValueError, TypeError) as error:  # a host name or file that cannot be one
            raise UsageError(f"the URL cannot be used: {printable(os.fsencode(str(error)))}") from None
        except (RedisError, OSError) as error:
            raise explain(error, url) from None
        self.identity = self._identify()
        # From here on scripts may run, and a slow one is not a lost server.
        self._connection.update_current_socket_timeout(ANSWER_SECONDS)
        # Where the server knows it and lets us, reading does not make sources look used.
        with suppress(Error):
            self.call("CLIENT", "NO-TOUCH", "ON").answer()

    def call(self, *command: bytes | str | int) -> Call:
        """Put a command on its way, at the latest when an answer is waited for. Raises Error."""
        if self._lost:
            raise explain(self._lost)
        self._outgoing.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows 1-tuples only
        call = Call(self)
        self._under_way.append(call)
        return call

    def close(self) -> None:
        """End the connection."""
        self._connection.disconnect()
        self._pool.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_next(self) -> None:
        """Read the answer to the oldest call under way."""
        call = self._under_way.popleft()
        reply: Any = self._lost
        if not self._lost:
            try:
                self._send()
                reply = self._connection.read_response(disable_decoding=True)
            except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
                reply = error
                # The client would connect again by itself, perhaps to a server that has been promoted.
                self._lost = None if isinstance(error, BusyLoadingError) else error
            except RedisError as error:
                reply = error
        self._last_reply = call.complete(reply, self._last_reply)

    def _send(self) -> None:
        # All at once: a system call for each would cost more than packing does.
        if self._outgoing:
            self._connection.send_packed_command([b"".join(self._outgoing)], check_health=False)
            self._outgoing.clear()

    def _identify(self) -> Identity:
        # HELLO tells without any permission what INFO tells only to a user who may call it.
        reply = self.call("HELLO").answer()
        facts = zip(reply[::2], reply[1::2], strict=False) if isinstance(reply, list) else ()
        texts = {
            name: printable(value) for name, value in facts if isinstance(name, bytes) and isinstance(value, bytes)
        }
        if b"server" not in texts:
            raise Error(f"what answers at {self.url} is neither Redis nor Valkey")
        return Identity(texts[b"server"], texts.get(b"version", ""), texts.get(b"mode", ""), texts.get(b"role", ""))


def connect(url: str = "redis://localhost:6379") -> Server:
    """Connect to the server at `redis://`, `rediss://` or `unix://`.

    Raises UsageError for a URL that is none, Refused where a permission is lacking, Error where
    the server cannot be reached or does not let us in.
    """
    shown = redacted(url)
    pool = ConnectionPool.from_url(
        url,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=CONNECT_SECONDS,
        health_check_interval=0,
    )
    return Server(pool, shown)


def redacted(url: str) -> str:
    """Return the URL without its password. Raises UsageError, which does not show it, where it is none."""
    _refuse_odd_url(url)
    scheme, rest = url.split("://", 1)
    userinfo, at, place = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    # What stands alone before the @ is a user, if it is not a password in the wrong place.
    secret = "***" if at else ""
    return printable(os.fsencode(f"{scheme}://{user if colon else ''}{colon}{secret}{at}{place}"))


def _refuse_odd_url(url: str) -> None:
    """Refuse what the client would silently take for something else."""
    problem = UsageError(f"the URL (--url, REDIS_URL) must look like {URL_FORMS}")
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # as the system will when it looks the name up
        options = redis.connection.parse_url(url)
    except ValueError:
        raise problem from None
    if parts.fragment or ("@" in parts.netloc) != ("@" in url):
        raise UsageError("the URL: write the characters # / ? @ : of a user name or password as %23 %2F %3F %40 %3A")
    _refuse_odd_options(parts.scheme, parts.query)
    if parts.scheme == "unix":
        if not options.get("path"):
            raise problem
        return
    if port == 0:
        raise UsageError("the URL: there is no port 0")
    database = parts.path.removeprefix("/")
    if database and "db" in dict(parse_qsl(parts.query)):
        raise UsageError("the URL: the database stands behind the host or after ?db=, not both")
    if database and not (database.isascii() and database.isdigit()):
        raise UsageError("the URL: the database after the host must be a number, as in redis://localhost:6379/0")
    if not parts.hostname:
        raise problem


def _refuse_odd_options(scheme: str, query: str) -> None:
    options = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    names = [name for name, _ in options]
    for name, value in options:
        shown = f"the URL: option '{printable(os.fsencode(name))}' after the ?"
        if name not in URL_OPTIONS[scheme]:
            raise UsageError(f"{shown} is unknown; known are {', '.join(sorted(URL_OPTIONS[scheme]))}")
        if names.count(name) > 1:
            raise UsageError(f"{shown} is there more than once")
        if not value or (name == "db" and not (value.isascii() and value.isdigit())):
            raise UsageError(f"{shown} has no good value")
    if "ssl_keyfile" in names and "ssl_certfile" not in names:
        raise UsageError("the URL: ssl_keyfile needs ssl_certfile")


def explain(error: Exception, url: str = "") -> Error:  # noqa: C901  # a table of cases
    """Turn what the client raised into one line that says what to do."""
    text = printable(str(error).strip().rstrip(".").encode("utf-8", "surrogateescape"))
    at = f" at {url}" if url else ""
    match error:
        case NoScriptError():
            return ScriptMissing(text)
        case NoPermissionError():
            return Refused(f"permissions: {text}; grant it (ACL SETUSER)")
        case RedisError() if "Authentication required" in text or "HELLO must be called" in text:
            return Error(f"the server{at} asks for a password: put it into the URL")
        case AuthenticationError():
            return Error(f"the server{at} refuses the user or password of the URL: {text}")
        case RedisError() if "without any password configured" in text:
            return Error(f"the server{at} has no password: leave it out of the URL")
        case BusyLoadingError():
            return Error("the server is loading its data set: run again when it has finished")
        case redis.TimeoutError():
            hint = "; does it speak TLS? If not, use redis://" if at and url.startswith("rediss:") else ""
            return Error(f"no answer from the server{at}: {text}{hint}")
        case redis.ConnectionError() if not url:
            return Error(f"the connection was lost: {text}")
        case redis.ConnectionError() | OSError():
            return Error(f"cannot connect to the server{at}: {_tls_hint(error, text)}; is it there, and the URL right?")
        case ResponseError() if "unknown command" in text:
            return Refused(f"version: {text}; luamigrate needs Redis 6.2 or Valkey 7.2 at least, with EVALSHA and COPY")
        case _:
            return Error(f"the server{at} answered: {text}")


def _tls_hint(error: Exception, text: str) -> str:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"{text}; its certificate is not trusted here: add ?ssl_ca_certs=FILE to the URL"
    if isinstance(cause, ssl.SSLError):
        return f"{text}; does it speak TLS? If not, use redis://"
    return text


def read_info(server: Server, section: str) -> dict[str, str]:
    """Return a section of INFO, empty where the user may not ask."""
    try:
        reply = server.call("INFO", section).answer()
    except Error:
        return {}
    if not isinstance(reply, bytes):
        return {}
    lines = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def read_database_sizes(server: Server) -> dict[str, int] | None:
    """Return the number of keys by database, or None where the user may not ask."""
    keyspace = read_info(server, "keyspace")
    if not keyspace and not read_info(server, "server"):
        return None
    return {name: int(facts.removeprefix("keys=").partition(",")[0]) for name, facts in keyspace.items()}
