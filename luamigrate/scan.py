"""Finding source keys: SCAN with MATCH, in batches, the next SCAN on its way meanwhile."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from luamigrate.pace import Pace
from luamigrate.rules import RESERVED, Pattern
from luamigrate.servers import Call, Server

IN_FLIGHT = 2
"""Batches whose script may be under way while the next is collected: the server never waits for us."""

FIRST_CURSOR = b"0"


@dataclass(frozen=True, slots=True)
class Found:
    """Some keys that match, and how far the scan is."""

    keys: list[bytes]
    """At most a batch; empty where a SCAN brought too few to make one."""
    scanned: float
    """The part of the key space that has been seen, 0 to 1."""


def batches(
    server: Server, pattern: Pattern, pace: Pace, stop: Callable[[], bool], most: int | None = None
) -> Iterator[Found]:
    """Yield the keys that match, at most `most`, in batches as the pace has them, until `stop` says so.

    A key that SCAN returns twice is dropped where its first look may still be under way. A pattern
    without a star is its own only key, and nothing is scanned. Raises ServerChanged where the cursor
    has lost its meaning.
    """
    if not pattern.has_star:
        yield Found([pattern.prefix], 1.0)
        return
    waiting: list[bytes] = []
    under_way: deque[list[bytes]] = deque(maxlen=IN_FLIGHT)
    left = sys.maxsize if most is None else most
    call: Call | None = _scan(server, pattern, pace.count, FIRST_CURSOR)
    while call and left and not stop():
        cursor, keys = call.answer()
        pace.scanned(len(keys), call.seconds if call.alone else None, waited=call.waited)
        finished = cursor == FIRST_CURSOR
        call = None if finished else _scan(server, pattern, pace.count, cursor)
        known = set(waiting).union(*under_way)
        waiting += [key for key in dict.fromkeys(keys) if key not in known and not key.startswith(RESERVED)]
        scanned = 1.0 if finished else part_scanned(int(cursor))
        if len(waiting) < pace.size and not finished:
            yield Found([], scanned)
        while (len(waiting) >= pace.size or (finished and waiting)) and left and not stop():
            size = min(pace.size, left)
            batch, waiting = waiting[:size], waiting[size:]
            left -= len(batch)
            under_way.append(batch)
            yield Found(batch, scanned)


def _scan(server: Server, pattern: Pattern, count: int, cursor: bytes) -> Call:
    return server.call("SCAN", cursor, "MATCH", pattern.glob(), "COUNT", count)


def part_scanned(cursor: int) -> float:
    """Return which part of the key space lies behind a cursor, whatever the size of its table.

    The server counts up from the highest bit of its table's mask downwards: read from the other
    end, the cursor is a binary fraction.
    """
    return int(f"{cursor:064b}"[::-1], 2) / 2**64
