"""Calls of the scripts of a follow: those that mirror, and the one that keeps its lease."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from luamigrate.model.limits import Pause
from luamigrate.scripts import library
from luamigrate.scripts.calls import ScriptCall, ask_about, in_database
from luamigrate.server.call import Call
from luamigrate.server.connection import Connection


class LeaseReply(bytes, Enum):
    """What lease.lua may say."""

    HELD = b"held"
    """The lease is the caller's."""
    LOST = b"lost"
    """There is none, though there should be."""
    TAKEN = b"taken"
    """It is somebody else's."""


def mirror(
    server: Connection,
    keys: Sequence[bytes],
    pause: Pause,
    *,
    lease: tuple[bytes, bytes],
    away: int | None,
    may_wait: int | None = None,
    how: Sequence[str],
    databases: Sequence[int] = (),
) -> ScriptCall:
    """Call mirror.lua: make targets what their sources are, while the lease has this value.

    `away`, `may_wait`, and `how`, two texts for each pair: see there.
    """
    name, value = lease
    options = (
        pause.microseconds,
        pause.capacity,
        value,
        "" if away is None else away,
        "" if may_wait is None else may_wait,
        *how,
    )
    return ScriptCall(server, "mirror", "EVALSHA", (*keys, name), *options, databases=databases)


def mirror_plain(
    server: Connection, keys: Sequence[bytes], pause: Pause, *, lease: tuple[bytes, bytes], how: Sequence[str]
) -> ScriptCall:
    """Call mirror_plain.lua: as mirror.lua, for pairs of one database that are mostly plain and small."""
    name, value = lease
    options: list[bytes | str | int] = [pause.microseconds, pause.capacity, value, *how]
    return ScriptCall(server, "mirror_plain", "EVALSHA", (*keys, name), *options)


def cross_slot_mirror(
    server: Connection,
    targets: Sequence[bytes],
    pause: Pause,
    *payloads: bytes | str | int,
    kind: str,
    held_until: int,
    may_wait: int | None = None,
    untold: int | None = None,
    alone: bool = False,
) -> ScriptCall:
    """Call cross_slot/mirror.lua: make targets what their sources, of a `kind`, were, while the lease is held.

    Each payload is followed by its expiry, weight and type, and by whose the target is. `may_wait` and `untold` are
    what they are there.
    """
    limits = ["" if limit is None else limit for limit in (may_wait, untold)]
    return ask_about(server, "cross_slot/mirror", targets, pause, held_until, kind, *limits, *payloads, alone=alone)


def read_hash(server: Connection, name: bytes, *, database: int) -> Call | ScriptCall:
    """Call HGETALL, or have in_database.lua do so where the hash is in another database than the connection's."""
    if database == server.database:
        return server.call("HGETALL", name)
    library.register(server, "in_database")
    return in_database(server, database, "HGETALL", name, keys=(name,), writes=False)


def lease(
    server: Connection,
    verb: str,
    keys: Sequence[bytes],
    *,
    value: bytes,
    plan: bytes,
    about: Sequence[bytes],
    lease_ms: int,
    record_ms: int,
    known: str,
    databases: Sequence[int] = (),
) -> LeaseReply:
    """Call lease.lua: take, renew or release the lease of a follow. Raises Error."""
    options: list[bytes | str | int] = [verb, value, plan, lease_ms, record_ms, known, *about]
    call = ScriptCall(server, "lease", "EVALSHA", keys, *options, databases=databases)
    reply = call.answer()
    if reply not in set(LeaseReply):
        raise call.odd()
    return LeaseReply(reply)
