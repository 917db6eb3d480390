"""Connecting: a URL, TLS settings and passwords become a deployment."""

from __future__ import annotations

from functools import partial
from typing import Any

from redis import connection as sockets
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from luamigrate.model.errors import Error, UsageError
from luamigrate.server.cluster import Cluster
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import NotReady, Unreachable
from luamigrate.server.sentinel import SentinelPrimary, Sentinels
from luamigrate.server.standalone import Standalone
from luamigrate.server.tls import Tls, tls_settings
from luamigrate.server.url import ServerUrl
from luamigrate.server.waiting import AT_ONCE, Waiting, reach

CONNECT_SECONDS = 5
"""Time for each of: reaching the server, agreeing on TLS, logging in, saying hello."""
SENTINEL_SECONDS = 2
"""Time-out for each step of connecting to a Sentinel; short, because there are others."""


def connect(
    url: str = "redis://localhost:6379",
    *,
    tls: Tls | None = None,
    password: str | None = None,
    sentinel_password: str | None = None,
    waiting: Waiting = AT_ONCE,
) -> Deployment:
    """Connect to the server at `redis://`, `rediss://` or `unix://`, or to the primary that `sentinel://` names.

    `valkey://` and `valkeys://` mean the same as `redis://` and `rediss://`. A node of a cluster leads to the whole
    cluster.

    The passwords are for a URL that has none. With `sentinel://`, `tls` asks for TLS as `?tls=true` does.
    `waiting` says how long to wait for a server that is not there or not ready yet: if it is not given, not at all.

    Raises UsageError for what makes no sense, Refused where a permission is lacking, Error where
    the server cannot be reached or does not let us in.
    """
    read = ServerUrl.parse(url)
    return connect_by(pool_for(read, tls=tls, password=password, sentinel_password=sentinel_password), read, waiting)


def connect_by(pool: ConnectionPool, url: ServerUrl, waiting: Waiting) -> Deployment:
    """Do what `connect` does, with the connections that `pool_for` has prepared for a URL."""
    return reach(partial(_enter, pool, url.redacted), waiting)


def _enter(pool: ConnectionPool, url: str) -> Deployment:
    entry = (SentinelPrimary if isinstance(pool, SentinelConnectionPool) else Connection)(pool, url)
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
    """Prepare connections without making one. Raises UsageError for what makes no sense."""
    tls = tls or Tls()
    with_tls = url.tls or bool(url.service and tls != Tls())
    security = tls_settings(tls, spoken=with_tls)
    secret = _secret(url.sentinel_password, sentinel_password, "SENTINEL_PASSWORD") if url.service else None
    login = {"username": url.user, "password": _secret(url.password, password, "--password-file or REDIS_PASSWORD")}
    settings = _settings(CONNECT_SECONDS) | security | login | {"db": url.database}
    if url.service:
        tls_flag = {"ssl": with_tls}
        theirs = _settings(SENTINEL_SECONDS) | security | {"username": url.sentinel_user, "password": secret}
        sentinels = Sentinels(url.places, sentinel_kwargs=theirs | tls_flag)  # type: ignore[no-untyped-call]
        return SentinelConnectionPool(url.service, sentinels, **settings, **tls_flag)
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


def _secret(in_url: str | None, given: str | None, origin: str) -> str | None:
    """Return the password, from wherever it comes. Raises UsageError, which does not show it, for an impossible one."""
    if in_url and given not in (None, in_url):
        raise UsageError(f"there are two passwords: one in the URL, one by {origin}")
    try:
        (in_url or given or "").encode()
    except UnicodeEncodeError:
        raise UsageError("the password is not UTF-8") from None
    return in_url or given
