"""Calls of the script that flips the flag of a cut-over."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from luamigrate.scripts.calls import ScriptCall
from luamigrate.server.connection import Connection


class FlipReply(bytes, Enum):
    """What flip.lua may say."""

    FLIPPED = b"flipped"
    """It is done."""
    LATE = b"late"
    """Writes may no longer have been held."""
    WRITTEN = b"written"
    """Somebody has written meanwhile, or nobody can tell."""
    OTHER = b"other"
    """Flag or record are not what they are to be before it."""


def _nothing() -> None:
    """Call nothing more."""


def flip(
    server: Connection,
    flag: bytes,
    record: bytes,
    *,
    value: bytes,
    former: bytes | None,
    deadline: int | None = None,
    changes: bytes | None = None,
    behind: Callable[[], None] = _nothing,
) -> FlipReply:
    """Call flip.lua: give the flag, which is what `former` says, its new value, and leave the record. Raises Error.

    That is refused after the deadline, and where the changes are not these; None where it does not matter. Where the
    connection is lost, nobody knows whether it was done: the record tells. What is called `behind` it goes in the same
    packet, and is carried out whatever the script says.
    """
    before = () if former is None else (former,)
    return _call(server, "flip", flag, record, deadline, changes, value, *before, behind=behind)


def flip_back(
    server: Connection,
    flag: bytes,
    record: bytes,
    *,
    value: bytes,
    deadline: int | None = None,
    changes: bytes | None = None,
    behind: Callable[[], None] = _nothing,
) -> FlipReply:
    """Call flip.lua: set the flag, which has the value, to what the record says that it was, and delete the record."""
    return _call(server, "back", flag, record, deadline, changes, value, behind=behind)


def finish(server: Connection, flag: bytes, record: bytes, *, value: bytes) -> FlipReply:
    """Call flip.lua: delete the record of a flip, if the flag still has the value. Raises Error."""
    return _call(server, "finish", flag, record, None, None, value)


def _call(  # noqa: PLR0917  # what the script takes
    server: Connection,
    verb: str,
    flag: bytes,
    record: bytes,
    deadline: int | None,
    changes: bytes | None,
    *values: bytes,
    behind: Callable[[], None] = _nothing,
) -> FlipReply:
    options: list[bytes | str | int] = [verb, "" if deadline is None else deadline, changes or "", *values]
    call = ScriptCall(server, "flip", "EVALSHA", (flag, record), *options, once=True)
    behind()
    reply = call.answer()
    if reply not in set(FlipReply):
        raise call.odd()
    return FlipReply(reply)
