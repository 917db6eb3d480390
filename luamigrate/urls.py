"""URLs of servers: what is one, and how it is shown without its password."""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, urlsplit

import redis

from luamigrate.errors import UsageError, printable

URL_FORMS = "redis://[user:password@]host[:port][/database], rediss://… for TLS, or unix://[user:password@]/path[?db=N]"
URL_OPTIONS = {
    "redis": {"db"},
    "unix": {"db"},
    "rediss": {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"},
}


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
