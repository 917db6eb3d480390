"""URLs of servers: what is one, what one of Sentinels says, and how one is shown without its passwords."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

import redis

from luamigrate.model.errors import UsageError, printable

URL_FORMS = (
    "redis://[user:password@]host[:port][/database], rediss://… for TLS, valkey://… and valkeys://… likewise, "
    "unix://[user:password@]/path[?db=N], or sentinel://[user:password@]host[:port][,host[:port]…]/service[/database]"
)
URL_OPTIONS = {
    "redis": ("db",),
    "unix": ("db",),
    "rediss": ("db",),
    "valkey": ("db",),
    "valkeys": ("db",),
    "sentinel": ("sentinel_password", "sentinel_username", "tls"),
}
SAID_ELSEWHERE = {
    "ssl_ca_certs": "--tls-ca FILE says that",
    "ssl_certfile": "--tls-cert FILE says that",
    "ssl_keyfile": "--tls-key FILE says that",
    "ssl_password": "the key of --tls-key must not be encrypted",
    "username": "the user stands before the @, as in redis://user@host",
    "password": "--password-file FILE or REDIS_PASSWORD says that",
}
"""What other programs take behind the ?, and what says it here."""
BY_DEFAULT = "certificates are verified, host names included: that is the default, leave it out"
SWITCHES = {
    "ssl_cert_reqs": (BY_DEFAULT, "--tls-insecure says that"),
    "ssl_check_hostname": (
        BY_DEFAULT,
        "the host is always verified: give it by a name that its certificate is for",
    ),
    "ssl": ("a URL that begins with rediss:// says that", "a URL that begins with redis:// says that"),
    "tls": ("a URL that begins with rediss:// says that", "a URL that begins with redis:// says that"),
}
"""Likewise: what to do for those who want it, and for those who do not."""
SENTINEL_PORT = 26379

_OFF = frozenset(("none", "cert_none", "false", "no", "off", "0"))
"""Values that switch something off; whoever gives any other wants it on."""

_DATABASE = re.compile("[0-9]{1,9}")
"""What is longer the client may take for none, and use database 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sentinels:
    """What a URL of Sentinels says."""

    places: tuple[tuple[str, int], ...]
    """Host and port of each."""
    service: str
    database: int
    user: str | None
    """Of the data servers."""
    password: str | None = field(repr=False)
    own_user: str | None
    """Of the Sentinels."""
    own_password: str | None = field(repr=False)
    tls: bool


def sentinels(url: str) -> Sentinels | None:
    """Read a URL that is not odd; None where it is not one of Sentinels."""
    parts = urlsplit(url)
    if parts.scheme != "sentinel":
        return None
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = (unquote(part) for part in userinfo.partition(":"))
    service, _, database = parts.path.removeprefix("/").partition("/")
    options = dict(parse_qsl(parts.query))
    return Sentinels(
        places=tuple(_place(host) for host in hosts.split(",")),
        service=unquote(service),
        database=int(database or 0),
        user=user or None,
        password=password or None,
        own_user=options.get("sentinel_username"),
        own_password=options.get("sentinel_password"),
        tls="tls" in options,
    )


def as_redis(url: str) -> str:
    """Return the URL with the scheme that the client knows: Valkey's mean the same as those of Redis."""
    return url.replace("valkey", "redis", 1) if url.startswith(("valkey:", "valkeys:")) else url


def asks_for_tls(url: str) -> bool:
    """Tell whether TLS is, or with an option can be, spoken to where a URL leads."""
    return as_redis(url).startswith(("rediss:", "sentinel:"))


def redacted(url: str) -> str:
    """Return the URL without its passwords. Raises UsageError, which does not show it, where it is none."""
    _refuse_odd_url(url)
    scheme, rest = url.split("://", 1)
    userinfo, at, place = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    # What stands alone before the @ is a user, if it is not a password in the wrong place.
    secret = "***" if at else ""
    place, mark, query = place.partition("?")
    shown = "&".join(map(_redacted_option, query.split("&")))
    return printable(os.fsencode(f"{scheme}://{user if colon else ''}{colon}{secret}{at}{place}{mark}{shown}"))


def _redacted_option(option: str) -> str:
    name, _, _ = option.partition("=")
    return f"{name}=***" if unquote_plus(name) == "sentinel_password" else option


def address(host: str, port: int) -> str:
    """Return host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _refuse_odd_url(url: str) -> None:
    """Refuse what the client would silently take for something else."""
    problem = UsageError(f"the URL (--url, REDIS_URL) must look like {URL_FORMS}")
    scheme = url.partition("://")[0]
    if scheme not in URL_OPTIONS:
        raise problem
    odd_characters = UsageError(
        "the URL: write the characters # / ? @ : [ ] of a user name or password as %23 %2F %3F %40 %3A %5B %5D"
    )
    if re.search(r"[\[\]]", url.rpartition("@")[0]):
        raise odd_characters
    try:
        parts = urlsplit(url)
        if parts.fragment or ("@" in parts.netloc) != ("@" in url):
            raise odd_characters
        places = [] if scheme == "unix" else _places(scheme, parts.netloc)
        if scheme != "sentinel":
            redis.connection.parse_url(as_redis(url))
    except ValueError:
        raise problem from None
    _refuse_odd_options(scheme, parts.query)
    if scheme == "unix":
        if not parts.path:
            raise problem
        return
    if any(port == 0 for _, port in places):
        raise UsageError("the URL: there is no port 0")
    _refuse_odd_path(scheme, parts.path, parts.query)
    if not all(host for host, _ in places):
        raise problem


def _places(scheme: str, netloc: str) -> list[tuple[str, int]]:
    """Return the hosts and ports; a host may be empty. Raises ValueError."""
    hosts = netloc.rpartition("@")[2]
    return [_place(host) for host in (hosts.split(",") if scheme == "sentinel" else [hosts])]


def _place(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    host, port = parts.hostname or "", parts.port
    host.encode("idna")  # as the system will when it looks the name up
    return host, SENTINEL_PORT if port is None else port


def _refuse_odd_path(scheme: str, path: str, query: str) -> None:
    database = path.removeprefix("/")
    if scheme == "sentinel":
        service, _, database = database.partition("/")
        if not service:
            raise UsageError("the URL: the service follows the Sentinels, as in sentinel://localhost:26379/mymaster")
    if database and "db" in dict(parse_qsl(query)):
        raise UsageError("the URL: the database stands behind the host or after ?db=, not both")
    if database and not _DATABASE.fullmatch(database):
        raise UsageError("the URL: the database at its end must be a number, as in redis://localhost:6379/0")


def _refuse_odd_options(scheme: str, query: str) -> None:
    options = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    names = [name for name, _ in options]
    for name, value in options:
        shown = f"the URL: option '{printable(os.fsencode(name))}' after the ?"
        if name not in URL_OPTIONS[scheme] and (hint := _hint(name, value)):
            raise UsageError(f"{shown} is unknown: {hint}")
        if name not in URL_OPTIONS[scheme] and any(other.endswith("password") for other in names):
            raise UsageError("the URL: write the characters & # + % of a password after the ? as %26 %23 %2B %25")
        if name not in URL_OPTIONS[scheme]:
            raise UsageError(f"{shown} is unknown; known are {', '.join(URL_OPTIONS[scheme])}")
        if names.count(name) > 1:
            raise UsageError(f"{shown} is there more than once")
        if not value or not _is_good(name, value):
            raise UsageError(f"{shown} has no good value")


def _hint(name: str, value: str) -> str | None:
    """Say what to do in place of an option of other programs; None where it is not known."""
    if name in SWITCHES:
        return SWITCHES[name][value.lower() in _OFF]
    return SAID_ELSEWHERE.get(name)


def _is_good(name: str, value: str) -> bool:
    match name:
        case "db":
            return _DATABASE.fullmatch(value) is not None
        case "tls":
            return value == "true"
        case _:
            return True
