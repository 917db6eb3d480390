"""URLs of servers: reading them, refusing bad ones, and showing them without passwords."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_plus, urlsplit

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
"""Options that other programs take after the ?, and what to use here."""
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
"""The same for switches: what to do to have it on, and off."""
TLS_SCHEMES = ("rediss", "valkeys")
PORT = 6379
SENTINEL_PORT = 26379
"""Ports for URLs without one."""

_OFF = frozenset(("none", "cert_none", "false", "no", "off", "0"))
"""Values that switch something off; every other value switches it on."""

_DATABASE = re.compile("[0-9]{1,9}")
"""The client library may ignore a longer number, and use database 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerUrl:
    """The contents of a URL: the address of the server or of its Sentinels, and the login."""

    redacted: str
    """The URL without its passwords, to be shown."""
    tls: bool
    """Whether the URL itself asks for TLS."""
    places: tuple[tuple[str, int], ...] = ()
    """Host and port of the server, or of each Sentinel."""
    path: str = ""
    """The unix socket, where there is no host."""
    service: str = ""
    """The server's name among the Sentinels; empty where no Sentinel is asked."""
    database: int = 0
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_user: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URL. Raises UsageError, which does not show the URL, where it is bad."""
        scheme, split, places = _split(text)
        options = dict(parse_qsl(split.query))
        service, database = _service_and_database(scheme, split.path)
        user, _, password = (unquote(text) for text in split.netloc.rpartition("@")[0].partition(":"))
        return cls(
            redacted=_redacted(text),
            tls=scheme in TLS_SCHEMES or "tls" in options,
            places=places,
            path=unquote(split.path) if scheme == "unix" else "",
            service=unquote(service),
            database=int(database or options.get("db") or 0),
            user=user or None,
            password=password or None,
            sentinel_user=options.get("sentinel_username"),
            sentinel_password=options.get("sentinel_password"),
        )

    @property
    def takes_tls(self) -> bool:
        """Whether the URL asks for TLS, or an option can."""
        return self.tls or bool(self.service)


def _redacted(url: str) -> str:
    """Return a good URL without its passwords."""
    scheme, rest = url.split("://", 1)
    userinfo, at, place = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    # A single word before the @ is a user, or a password in the wrong place: it is not shown.
    secret = "***" if at else ""
    place, mark, query = place.partition("?")
    shown = "&".join(map(_redacted_option, query.split("&")))
    return printable(os.fsencode(f"{scheme}://{user if colon else ''}{colon}{secret}{at}{place}{mark}{shown}"))


def _redacted_option(option: str) -> str:
    name, _, _ = option.partition("=")
    return f"{name}=***" if unquote_plus(name) == "sentinel_password" else option


def address(host: str, port: int) -> str:
    """Return host and port as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _split(url: str) -> tuple[str, SplitResult, tuple[tuple[str, int], ...]]:
    """Return scheme, components and addresses. Raises UsageError for what a client would misread in silence."""
    problem = UsageError(f"the URL (--url, REDIS_URL) must look like {URL_FORMS}")
    scheme, mark, _ = url.partition("://")
    if scheme not in URL_OPTIONS or not mark:
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
        places = () if scheme == "unix" else _places(scheme, parts.netloc)
    except ValueError:
        raise problem from None
    _refuse_odd_options(scheme, parts.query)
    if any(port == 0 for _, port in places):
        raise UsageError("the URL: there is no port 0")
    _refuse_odd_path(scheme, parts.path, parts.query)
    if not (all(host for host, _ in places) if places else parts.path):
        raise problem
    return scheme, parts, places


def _places(scheme: str, netloc: str) -> tuple[tuple[str, int], ...]:
    """Return hosts and ports; a host may be empty. Raises ValueError."""
    hosts = netloc.rpartition("@")[2]
    if scheme == "sentinel":
        return tuple(_place(host, SENTINEL_PORT) for host in hosts.split(","))
    return (_place(hosts, PORT),)


def _place(text: str, default_port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    host, port = parts.hostname or "", parts.port
    host.encode("idna")  # as the system will when it looks the name up
    return unquote(host), default_port if port is None else port


def _service_and_database(scheme: str, path: str) -> tuple[str, str]:
    """Return service and database from the path of a URL; empty where it has none."""
    path = path.removeprefix("/")
    match scheme:
        case "unix":
            return "", ""
        case "sentinel":
            service, _, database = path.partition("/")
            return service, database
        case _:
            return "", path


def _refuse_odd_path(scheme: str, path: str, query: str) -> None:
    service, database = _service_and_database(scheme, path)
    if scheme == "sentinel" and not service:
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
        if name not in URL_OPTIONS[scheme]:
            if hint := _hint(name, value):
                raise UsageError(f"{shown} is unknown: {hint}")
            if any(other.endswith("password") for other in names):
                raise UsageError("the URL: write the characters & # + % of a password after the ? as %26 %23 %2B %25")
            raise UsageError(f"{shown} is unknown; known are {', '.join(URL_OPTIONS[scheme])}")
        if names.count(name) > 1:
            raise UsageError(f"{shown} is there more than once")
        is_bad = {"db": not _DATABASE.fullmatch(value), "tls": value != "true"}
        if not value or is_bad.get(name):
            raise UsageError(f"{shown} has no good value")


def _hint(name: str, value: str) -> str | None:
    """Return what to use instead of another program's option; None where that is not known."""
    if name in SWITCHES:
        return SWITCHES[name][value.lower() in _OFF]
    return SAID_ELSEWHERE.get(name)
