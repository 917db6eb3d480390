"""What a server tells of itself: INFO, and how many keys it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from luamigrate.errors import Error, Refused
from luamigrate.identity import facts_of_info
from luamigrate.problems import Answered
from luamigrate.servers import Server

_NUMBER = re.compile(r"-?[0-9]{1,20}")
_KEYS = re.compile(r"keys=([0-9]{1,20}),")


def read_info(server: Server, section: str) -> dict[str, str]:
    """Return a section of INFO, empty where the user may not ask."""
    try:
        return facts_of_info(server.call("INFO", section).answer())
    except (Refused, Answered):
        return {}


def number(facts: Mapping[str, str], name: str) -> int | None:
    """Return a number of INFO, None where it is not there. Raises Error where it is no number."""
    text = facts.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise Error(f"the server does not answer INFO as it should: {name} is '{text[:50]}'")
    return int(text)


def read_database_sizes(servers: Iterable[Server]) -> dict[str, int] | None:
    """Return the number of keys by database, or None where a server does not tell."""
    sizes: dict[str, int] = {}
    for server in servers:
        try:
            reply = server.call("INFO", "keyspace").answer()
        except (Refused, Answered):
            return None
        if not reply:
            return None  # where there are no keys there is still the section's heading
        for name, facts in facts_of_info(reply).items():
            if keys := _KEYS.match(facts):
                sizes[name] = sizes.get(name, 0) + int(keys[1])
    return sizes


def read_key_count(servers: Iterable[Server]) -> int | None:
    """Return the number of keys of the database, or None where a server does not tell."""
    count = 0
    for server in servers:
        try:
            size = server.call("DBSIZE").answer()
        except (Refused, Answered):
            return None
        if not isinstance(size, int):
            return None
        count += size
    return count
