"""Finding source keys: SCAN with MATCH, in batches, the next SCAN on its way meanwhile."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from redis.crc import key_slot

from luamigrate.migration.pace import Pace
from luamigrate.model.errors import Error
from luamigrate.model.patterns import Pattern
from luamigrate.model.rules import RESERVED
from luamigrate.scripts import calls
from luamigrate.scripts.calls import ScriptCall
from luamigrate.server.call import Call
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.info import cursor_and_names
from luamigrate.server.slots import SLOTS, Slots

IN_FLIGHT = 2
"""Batches whose script may be in flight while the next is collected: the server never waits for us."""

FIRST_CURSOR = b"0"

PASSES = 20
"""Over a node, for slots with too many keys to name them at one moment, until none of them is moved meanwhile."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a scan looks for: those that match a pattern and are not the tool's own."""

    pattern: Pattern
    chosen: Callable[[bytes], bool] | None = None
    """Tells them from others that match; None where there are no others."""
    names: Collection[bytes] | None = None
    """All of them, whether they exist or not; None where they are to be searched for."""
    database: int | None = None
    """Where they are; None for the connection's database."""

    def among(self, keys: Iterable[bytes]) -> list[bytes]:
        """Return those of the keys that match which are looked for."""
        names = [key for key in keys if not key.startswith(RESERVED)]
        return list(filter(self.chosen, names)) if self.chosen else names


@dataclass(frozen=True, slots=True)
class Found:
    """Some keys that match, and how far the scan is."""

    server: Connection
    keys: list[bytes]
    """At most a batch; empty where a SCAN brought too few to make one."""
    scanned: float
    """The share of the key space that has been seen, 0 to 1."""
    again: bool = False
    """Whether they may have been found before, in a slot that was moved meanwhile."""


def batches(
    server: Connection,
    wanted: Names,
    pace: Pace,
    stop: Callable[[], bool],
    *,
    most: int | None = None,
    slots: Sequence[int] = (),
) -> Iterator[Found]:
    """Yield the keys that are looked for, at most `most`, in batches as the pace has them, until `stop` says so.

    A key that SCAN returns twice is dropped where its first pair may still be in flight. A node of a cluster is given
    the `slots` that it holds, in order. Raises ServerChanged where the cursor has lost its meaning.
    """
    pattern = wanted.pattern
    waiting: list[bytes] = []
    in_flight: deque[list[bytes]] = deque(maxlen=IN_FLIGHT)
    left = sys.maxsize if most is None else most
    call: Call | ScriptCall | None = _scan(server, wanted, pace.count, FIRST_CURSOR)
    while call and left and not stop():
        cursor, keys = cursor_and_names(call.answer())
        if not all(map(pattern.matches, keys)):
            # What does not match has no target name: cutting one out of it would write to somebody else's key.
            raise Error("the server's SCAN answers names that do not match its MATCH")
        pace.scanned(len(keys), call.seconds if call.alone else None, waited=call.waited)
        finished = cursor == FIRST_CURSOR
        call = None if finished else _scan(server, wanted, pace.count, cursor)
        known = set(waiting).union(*in_flight)
        waiting += wanted.among(key for key in dict.fromkeys(keys) if key not in known)
        scanned = 1.0 if finished else _share(server, int(cursor), slots)
        if len(waiting) < pace.size and not finished:
            yield Found(server, [], scanned)
        while (len(waiting) >= pace.size or (finished and waiting)) and left and not stop():
            size = min(pace.size, left)
            batch, waiting = waiting[:size], waiting[size:]
            left -= len(batch)
            in_flight.append(batch)
            yield Found(server, batch, scanned)


def everywhere(
    deployment: Deployment,
    wanted: Names,
    pace_of: Callable[[Connection], Pace],
    stop: Callable[[], bool],
    most: int | None = None,
) -> Iterator[Found]:
    """Yield the keys that are looked for of a server, or of all primaries of a cluster at once, each at its own pace.

    In a cluster, slots that were moved meanwhile are scanned again: their keys may come twice.
    """
    if wanted.names is not None:
        yield from _named(deployment, wanted, pace_of, stop, most)
        return
    slots = deployment.slots
    before = slots.layout() if slots else None
    servers = deployment.primaries
    scans = deque(
        (
            server,
            batches(server, wanted, pace_of(server), stop, most=most, slots=slots.slots_of(server) if slots else ()),
        )
        for server in servers
    )
    parts = dict.fromkeys(servers, 0.0)
    left = sys.maxsize if most is None else most
    while scans and left:
        server, scan = scans.popleft()
        found = next(scan, None)
        parts[server] = found.scanned if found else 1.0
        if found:
            scans.append((server, scan))
            keys = found.keys[:left]
            left -= len(keys)
            yield Found(server, keys, sum(parts.values()) / len(parts))
    if slots and before and most is None and not stop():
        yield from _of_moved_slots(slots, wanted, pace_of, stop, slots.moved_since(before))


def _named(
    deployment: Deployment,
    wanted: Names,
    pace_of: Callable[[Connection], Pace],
    stop: Callable[[], bool],
    most: int | None,
) -> Iterator[Found]:
    """Yield names that are known, without a scan: a batch for each primary at once."""
    names = wanted.names or ()
    left, done = iter(names if most is None else islice(names, most)), 0
    server = deployment.primaries[0]
    while not stop() and (batch := [*islice(left, pace_of(server).size * len(deployment.primaries))]):
        done += len(batch)
        yield Found(server, wanted.among(batch), done / len(names))


def _of_moved_slots(
    slots: Slots,
    wanted: Names,
    pace_of: Callable[[Connection], Pace],
    stop: Callable[[], bool],
    moved: list[int],
) -> Iterator[Found]:
    """Scan slots again that were moved during a scan: a key of theirs may have been away from both nodes."""
    naming = slots.keys_of(moved)
    crowded: list[int] = []
    while not stop():
        try:
            server, keys = next(naming)
        except StopIteration as end:
            crowded = end.value
            break
        names = wanted.among(filter(wanted.pattern.matches, keys))
        size = pace_of(server).size
        for first in range(0, len(names), size):
            yield Found(server, names[first : first + size], 1.0, again=True)
    for _ in range(PASSES):
        if not crowded:
            return
        before = slots.layout()
        for server in dict.fromkeys(slots.node_of(slot) for slot in crowded):
            yield from _of_slots(batches(server, wanted, pace_of(server), stop), crowded)
        crowded = [slot for slot in slots.moved_since(before) if slot in crowded and not stop()]
    raise Error(f"slot {crowded[0]} and others do not come to rest: run again when no slots are being moved")


def _of_slots(scan: Iterator[Found], slots: list[int]) -> Iterator[Found]:
    for found in scan:
        keys = [key for key in found.keys if key_slot(key) in slots]
        yield Found(found.server, keys, 1.0, again=True)


def _scan(server: Connection, wanted: Names, count: int, cursor: bytes) -> Call | ScriptCall:
    command = ("SCAN", cursor, "MATCH", wanted.pattern.glob(), "COUNT", count)
    if wanted.database is None:
        return server.call(*command)
    return calls.in_database(server, wanted.database, *command, writes=False)


def _share(server: Connection, cursor: int, slots: Sequence[int]) -> float:
    """Return the share of its keys that a server has gone through."""
    if slots and server.identity.is_at_least(redis=(7, 4), valkey=(8, 0)):
        # It goes slot by slot, and says in which one it is.
        return bisect_left(slots, cursor % SLOTS) / len(slots)
    return share_scanned(cursor)


def share_scanned(cursor: int) -> float:
    """Return the share of the key space that lies behind a cursor, whatever the size of its table.

    The server counts up from the highest bit of its table's mask downwards: read from the other
    end, the cursor is a binary fraction.
    """
    return int(f"{cursor:064b}"[::-1], 2) / 2**64
