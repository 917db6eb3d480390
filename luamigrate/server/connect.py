"""How to get in: a URL, TLS settings and passwords, perhaps by way of Sentinels, become a deployment."""

from __future__ import annotations

import errno
import math
import os
import ssl
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Never

from redis import connection as sockets
from redis.backoff import NoBackoff
from redis.client import Redis
from redis.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from luamigrate.model.errors import Error, UsageError, printable
from luamigrate.server.cluster import Cluster
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import NO_USERS, ConnectionLost, NotReady, Unreachable, advise, is_nobody_there, words
from luamigrate.server.identity import facts_of_pairs
from luamigrate.server.standalone import Standalone
from luamigrate.server.url import ServerUrl, address
from luamigrate.server.waiting import AT_ONCE, Waiting, reach

CONNECT_SECONDS = 5
"""For each of: reaching the server, agreeing on TLS, logging in, saying hello."""
SENTINEL_SECONDS = 2
"""Likewise, for each Sentinel: there are others."""
NOT_IN_URL = "--password-file or REDIS_PASSWORD"
SECONDS_BETWEEN_LOOKS = 1.0
"""After which Sentinels are asked again."""
NO_SENTINEL = "is no Sentinel"
NO_FILE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP))
"""Errors of what names no file at all, perhaps because it is a secret and no name."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """How TLS is spoken, beyond what a URL says; files are in PEM format."""

    ca: Path | None = None
    """Authorities to trust besides the system's."""
    cert: Path | None = None
    """Our own certificate, where the server asks for one."""
    key: Path | None = None
    """Its key, where that is not in the same file."""
    insecure: bool = False
    """Whether any certificate will do: then anybody between here and the server can read and change everything."""


def connect(
    url: str = "redis://localhost:6379",
    *,
    tls: Tls | None = None,
    password: str | None = None,
    sentinel_password: str | None = None,
    waiting: Waiting = AT_ONCE,
) -> Deployment:
    """Connect to the server at `redis://`, `rediss://` or `unix://`, or to the one that `sentinel://` tells of.

    `valkey://` and `valkeys://` mean the same as `redis://` and `rediss://`. A server that is a node of a cluster leads
    to all of it.

    The passwords are for a URL that has none. With `sentinel://`, `tls` asks for TLS as `?tls=true` does.
    `waiting` says how long to wait for a server that is not there or not ready yet: if it is not given, not at all.

    Raises UsageError for what makes no sense, Refused where a permission is lacking, Error where
    the server cannot be reached or does not let us in.
    """
    return connect_to(
        ServerUrl.parse(url), tls=tls, password=password, sentinel_password=sentinel_password, waiting=waiting
    )


def connect_to(
    url: ServerUrl,
    *,
    tls: Tls | None = None,
    password: str | None = None,
    sentinel_password: str | None = None,
    waiting: Waiting = AT_ONCE,
) -> Deployment:
    """Do what `connect` does, with a URL that has been read."""
    pool = pool_for(url, tls=tls, password=password, sentinel_password=sentinel_password)
    return reach(partial(_reach, pool, url.redacted), waiting)


def _reach(pool: ConnectionPool, url: str) -> Deployment:
    entry = (_Named if isinstance(pool, SentinelConnectionPool) else Connection)(pool, url)
    if entry.identity.mode != "cluster":
        return Standalone(entry)
    try:
        return Cluster(entry)
    except Error as problem:
        entry.close()
        if isinstance(problem, Unreachable):
            # A node that others name, and that is not there, will be replaced.
            raise NotReady(str(problem)) from None
        raise


def pool_for(
    url: ServerUrl, *, tls: Tls | None = None, password: str | None = None, sentinel_password: str | None = None
) -> ConnectionPool:
    """Return what `connect` connects with, without connecting. Raises UsageError."""
    with_tls = url.tls or bool(url.service and _is_set(tls))
    security = _tls_settings(tls or Tls(), spoken=with_tls)
    if url.service:
        own_password = _secret(url.sentinel_password, sentinel_password, "SENTINEL_PASSWORD")
        security["ssl"] = with_tls
        theirs = _settings(SENTINEL_SECONDS) | security | _login(url.sentinel_user, own_password)
        asked = _Sentinels(url.places, sentinel_kwargs=theirs)  # type: ignore[no-untyped-call]
    login = _login(url.user, _secret(url.password, password, NOT_IN_URL))
    settings = _settings(CONNECT_SECONDS) | security | login | {"db": url.database}
    if url.service:
        return SentinelConnectionPool(url.service, asked, **settings)
    if url.path:
        return ConnectionPool(UnixDomainSocketConnection, path=url.path, **settings)
    host, port = url.places[0]
    return ConnectionPool(SSLConnection if with_tls else sockets.Connection, host=host, port=port, **settings)


def _settings(seconds: float) -> dict[str, Any]:
    return {
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": seconds,
        "socket_timeout": seconds,
        "health_check_interval": 0,
    }


def _login(user: str | None, password: str | None) -> dict[str, Any]:
    return {"username": user, "password": password}


def _secret(in_url: str | None, given: str | None, origin: str) -> str | None:
    """Return the password that there is. Raises UsageError, which does not show it, where it cannot be one."""
    if in_url and given not in (None, in_url):
        raise UsageError(f"there are two passwords: one in the URL, one by {origin}")
    try:
        (in_url or given or "").encode()
    except UnicodeEncodeError:
        raise UsageError("the password is not UTF-8") from None
    return in_url or given


def _is_set(tls: Tls | None) -> bool:
    return tls not in (None, Tls())


def _tls_settings(tls: Tls, *, spoken: bool) -> dict[str, Any]:
    """Return what the client calls them. Raises UsageError for those that cannot be."""
    files = {"--tls-ca": tls.ca, "--tls-cert": tls.cert, "--tls-key": tls.key}
    given = [*(name for name, path in files.items() if path), *(["--tls-insecure"] if tls.insecure else [])]
    if given and not spoken:
        raise UsageError(f"{given[0]}: TLS needs a URL that begins with rediss:// or sentinel://")
    if tls.key and not tls.cert:
        raise UsageError("--tls-key needs --tls-cert (in the environment: TLS_KEY needs TLS_CERT)")
    if tls.ca and tls.insecure:
        raise UsageError("--tls-insecure looks at no certificate: it excludes --tls-ca")
    _refuse_bad_files(tls)
    names = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
    settings: dict[str, Any] = {name: str(path) for name, path in zip(names, files.values(), strict=True) if path}
    return settings | ({"ssl_cert_reqs": "none"} if tls.insecure else {})


def _refuse_bad_files(tls: Tls) -> None:
    """Raise UsageError for files that the client would stumble over at each connection."""
    scratch = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for option, path in (("--tls-ca (TLS_CA)", tls.ca), ("--tls-cert (TLS_CERT)", tls.cert)):
        if path:
            _read(option, "certificate in PEM format", partial(scratch.load_verify_locations, path))
    if tls.cert:
        option = "--tls-key (TLS_KEY)" if tls.key else "--tls-cert (TLS_CERT)"
        load = partial(scratch.load_cert_chain, tls.cert, tls.key, password=_refuse_passphrase)
        _read(option, "key in PEM format that fits the certificate", load)


def _read(option: str, what: str, load: Callable[[], None]) -> None:
    try:
        load()
    except ssl.SSLError:
        raise UsageError(f"{option} names a file that holds no {what}") from None
    except (OSError, ValueError) as error:
        raise unreadable(option, error, f"the {what.partition(' ')[0]} itself") from None


def unreadable(option: str, error: Exception, held: str) -> UsageError:
    """Return what to raise where a secret's file cannot be read.

    The value of the option is not shown, for it may be the secret itself, as `held` says.
    """
    if not isinstance(error, OSError) or error.errno in NO_FILE:
        return UsageError(f"{option} names no file (does it hold {held}?)")
    return UsageError(f"{option} names a file that cannot be read: {error.strerror}")


def _refuse_passphrase() -> Never:
    raise UsageError("--tls-key, --tls-cert: the key is encrypted, and nobody is asked for its passphrase")


class _Named(Connection):
    """The primary that Sentinels name; whether they still do is asked again and again.

    One that has been replaced may go on taking writes, which are lost, for as long as twenty seconds.
    """

    _asked_next = -math.inf

    def _explain(self, error: Exception) -> Error:
        problem = super()._explain(error)
        # Whom Sentinels name, and who is not there or just going, will be replaced.
        is_going = isinstance(error.__cause__ or error.__context__ or error, ConnectionResetError)
        return NotReady(str(problem)) if is_going or isinstance(problem, Unreachable) else problem

    @property
    def whereabouts(self) -> str:
        """The Sentinels, and the primary."""
        return f"{self.url} (primary {address(*self._primary)})"

    def read_next(self) -> None:
        """Read the answer to the oldest call under way, or go to another primary."""
        if time.monotonic() >= self._asked_next and self._is_replaced():
            self.recover(ConnectionLost("the Sentinels name another primary"))
        else:
            super().read_next()

    def confirm(self) -> None:
        """Ask now."""
        self._asked_next = -math.inf
        self.keep_in_touch()

    @property
    def _primary(self) -> tuple[str, int]:
        connection: Any = self._connection
        return connection.host, connection.port

    def _is_replaced(self) -> bool:
        """Ask; Sentinels that do not know at present change nothing."""
        pool: Any = self._pool
        began = time.monotonic()
        try:
            return bool(pool.get_master_address() != self._primary)
        except _HandedOver:
            return True
        except Error:
            return False
        finally:
            now = time.monotonic()
            self._asked_next = now + max(SECONDS_BETWEEN_LOOKS, 10 * (now - began))


class _HandedOver(NotReady):
    """A replica is just becoming the primary."""


class _Sentinels(Sentinel):
    """Asks one Sentinel after the other for the primary."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return host and port of the primary. Raises Error, with what each Sentinel said."""
        said, problems = [], set[type[Error]]()
        for sentinel in list(self.sentinels):
            place = sentinel.connection_pool.connection_kwargs
            try:
                with closing(sentinel):
                    primary = _ask(sentinel, service_name)
            except _HandedOver as problem:
                raise _HandedOver(f"the Sentinel {_shown(address(place['host'], place['port']))} {problem}") from None
            except Error as problem:
                problems.add(type(problem))
                said.append(f"{_shown(address(place['host'], place['port']))} {problem}")
            else:
                # Who has answered is asked first the next time: the others may cost time.
                self.sentinels.remove(sentinel)
                self.sentinels.insert(0, sentinel)
                return primary
        kind = NotReady if NotReady in problems else Unreachable if problems == {Unreachable} else Error
        raise kind(f"no Sentinel knows a primary of '{_shown(service_name)}' that is up: {'; '.join(said)}")


def _ask(sentinel: Redis, service: str) -> tuple[str, int]:
    """Return the primary. Raises Error, in words that follow the Sentinel's address."""
    try:
        # Of one service, not of all: more is not permitted to a careful user.
        state: Any = sentinel.execute_command("SENTINEL", "MASTER", service)
        host, port = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        named = host.decode(), int(port)
    except (RedisError, OSError) as error:
        raise (Unreachable if is_nobody_there(error) else Error)(_why_not(error, sentinel)) from None
    except (AttributeError, LookupError, TypeError, ValueError):
        raise Error(NO_SENTINEL) from None
    # What stands in for a Sentinel may name the primary and tell nothing else of it: that is no reason to refuse it.
    facts = facts_of_pairs(state)
    flags = facts.get("flags", "").split(",")
    down = "s_down" in flags or "o_down" in flags
    if (facts.get("ip", named[0]), facts.get("port", str(named[1]))) != (named[0], str(named[1])):
        return named  # promoted, though other replicas do not follow yet
    shown = _shown(address(*named))
    if "failover_in_progress" in flags:
        raise _HandedOver(f"is having {shown}{', which is down,' if down else ''} replaced by a replica")
    if down:
        raise NotReady(f"says that {shown} is down")
    return named


def _why_not(error: Exception, sentinel: Redis) -> str:
    """Say in words that follow its address why a Sentinel does not tell."""
    text = words(error, sentinel.connection_pool.connection_kwargs.get("password"))
    match error:
        case RedisError() if "without any password configured" in text:
            return "has no password, and was given one (SENTINEL_PASSWORD, ?sentinel_password=)"
        case AuthenticationError() if "Authentication required" in text:
            return "asks for a password (SENTINEL_PASSWORD, ?sentinel_password=)"
        case AuthenticationError():
            hint = f"; {NO_USERS}" if sentinel.connection_pool.connection_kwargs.get("username") else ""
            options = "SENTINEL_PASSWORD, ?sentinel_username=, ?sentinel_password="
            return f"refuses the user or password ({options}): {text}{hint}"
        case NoPermissionError():
            return f"does not answer this user: {text}; grant it (+sentinel|master)"
        case ResponseError() if "No such master" in text:
            return f"watches no service of that name{_services(sentinel)}"
        case ResponseError() if "unknown command" in text.lower():
            return NO_SENTINEL
        case ResponseError():
            return f"answered: {text}"
        case _:
            return f"cannot be asked: {advise(error, text)}"


def _services(sentinel: Redis) -> str:
    with suppress(RedisError, OSError):
        names: Any = sentinel.sentinel_masters()
        return f", but {', '.join(_shown(name) for name in names)}" if names else ", nor any other"
    return ""


def _shown(text: str) -> str:
    return printable(os.fsencode(text))
