"""Facts that a server tells: INFO, the number of its keys, SCAN replies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from luamigrate.model.errors import Error, Refused
from luamigrate.server.connection import Connection
from luamigrate.server.errors import Answered
from luamigrate.server.identity import facts_of_info

_CURSOR = re.compile(rb"\d{1,20}")
"""A cursor has 64 bits; this is decimal."""
_REPLICA = re.compile(r"ip=(?P<ip>[^,]*),port=(?P<port>\d+),.*offset=(?P<offset>\d{1,20})\b")
_NUMBER = re.compile(r"-?[0-9]{1,20}")
_KEYS = re.compile(r"keys=([0-9]{1,20}),")


def read_info(server: Connection, section: str) -> dict[str, str]:
    """Return a section of INFO, empty where the user may not ask."""
    try:
        return facts_of_info(server.call("INFO", section).answer())
    except (Refused, Answered):
        return {}


def number(facts: Mapping[str, str], name: str) -> int | None:
    """Return a number from INFO; None where it is missing. Raises Error where it is no number."""
    text = facts.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise Error(f"the server does not answer INFO as it should: {name} is '{text[:50]}'")
    return int(text)


def connected_replicas(server: Connection) -> int:
    """Return how many replicas a server has; 0 where the user may not ask."""
    return number(read_info(server, "replication"), "connected_slaves") or 0


def read_database_sizes(servers: Iterable[Connection]) -> dict[str, int] | None:
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


def read_key_count(servers: Iterable[Connection]) -> int | None:
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


def read_time_ms(server: Connection) -> int:
    """Return the server's time, in milliseconds since 1970. Raises Error where it does not tell it."""
    return milliseconds_of(server.call("TIME").answer())


def milliseconds_of(time: Any) -> int:
    """Return what TIME answers in milliseconds since 1970. Raises Error for any other answer."""
    try:
        seconds, microseconds = map(int, time)
    except (TypeError, ValueError):
        raise Error("the server does not answer TIME as it should") from None
    return seconds * 1000 + microseconds // 1000


def cursor_and_names(answer: Any) -> tuple[bytes, list[bytes]]:
    """Return the next cursor and the names that a SCAN answers. Raises Error for any other answer."""
    match answer:
        case [bytes() as cursor, list() as keys] if _CURSOR.fullmatch(cursor):
            if all(isinstance(key, bytes) for key in keys):
                return cursor, keys
    raise Error("the server does not answer SCAN as it should")


def tells_how_far_replicas_are(facts: dict[str, str]) -> bool:
    """Tell whether INFO replication has the offsets of the server and of each replica."""
    replicas = _replicas(facts)
    counted = bool(replicas) or not number(facts, "connected_slaves")
    return "master_repl_offset" in facts and counted and all(map(_REPLICA.search, replicas))


def _replicas(facts: dict[str, str]) -> list[str]:
    return [text for name, text in facts.items() if re.fullmatch(r"slave\d+", name)]


def behind_by(facts: dict[str, str]) -> dict[str, int]:
    """Return how many bytes each replica is behind, as far as that is known."""
    written = number(facts, "master_repl_offset")
    if written is None:
        return {}
    told = filter(None, map(_REPLICA.search, _replicas(facts)))
    return {f"{match['ip']}:{match['port']}": written - int(match["offset"]) for match in told}
