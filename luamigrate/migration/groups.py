"""Streams with groups, of whose changes the server tells nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from luamigrate.migration.direction import Direction
from luamigrate.model.rules import ANY
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered
from luamigrate.server.info import cursor_and_names

KEYS_PER_SCAN = 500
KINDS = ("stream", ANY)


def streams_with_groups(
    deployment: Deployment, direction: Direction, stop: Callable[[], bool]
) -> Iterator[tuple[bytes, bytes]]:
    """Yield such streams that the application writes, in the database of the connection, each with its old name."""
    if not any(rule.type in KINDS for rule in direction.plan):
        return
    for server in deployment.primaries:
        for name in _streams(server, stop):
            source = _source_of(direction, name)
            groups = None
            with suppress(Answered):  # it is gone
                groups = source is not None and server.call("XINFO", "GROUPS", name).answer()
            if source is not None and groups:
                yield name, source


def _source_of(direction: Direction, name: bytes) -> bytes | None:
    if direction.is_back:
        origin = direction.plan.origin(name)
        return origin[1] if origin and origin[0].type in KINDS else None
    rule = direction.plan.rule_for(name)
    return name if rule and rule.type in KINDS else None


def _streams(server: Connection, stop: Callable[[], bool]) -> Iterator[bytes]:
    cursor = b"0"
    while True:
        cursor, names = cursor_and_names(server.call("SCAN", cursor, "COUNT", KEYS_PER_SCAN, "TYPE", "stream").answer())
        yield from names
        if cursor == b"0" or stop():
            return
