"""What a server tells of itself: INFO, and how many keys it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from luamigrate.errors import Error, Refused, printable
from luamigrate.problems import Answered
from luamigrate.servers import Server

_NUMBER = re.compile(r"-?[0-9]{1,20}")
_KEYS = re.compile(r"keys=([0-9]{1,20}),")


def read_info(server: Server, section: str) -> dict[str, str]:
    """Return a section of INFO, empty where the user may not ask."""
    try:
        reply = server.call("INFO", section).answer()
    except (Refused, Answered):
        return {}
    if not isinstance(reply, bytes):
        return {}
    lines = [printable(line) for line in reply.splitlines()]
    return dict(line.split(":", 1) for line in lines if ":" in line)


def number(facts: Mapping[str, str], name: str) -> int:
    """Return a number of INFO, 0 where it is not there. Raises Error where it is none."""
    text = facts.get(name, "0")
    if not _NUMBER.fullmatch(text):
        raise Error(f"the server does not answer INFO as it should: {name} is '{text[:50]}'")
    return int(text)


def read_database_sizes(servers: Iterable[Server]) -> dict[str, int] | None:
    """Return the number of keys by database, or None where the user may not ask."""
    sizes: dict[str, int] = {}
    for server in servers:
        keyspace = read_info(server, "keyspace")
        if not keyspace and not read_info(server, "server"):
            return None
        for name, facts in keyspace.items():
            if keys := _KEYS.match(facts):
                sizes[name] = sizes.get(name, 0) + int(keys[1])
    return sizes


def read_key_count(servers: Iterable[Server]) -> int | None:
    """Return the number of keys of the database, or None where the user may not ask."""
    count = 0
    for server in servers:
        try:
            size = server.call("DBSIZE").answer()
        except (Refused, Answered):
            return None
        count += size if isinstance(size, int) else 0
    return count
