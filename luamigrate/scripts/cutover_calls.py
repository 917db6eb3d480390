"""Calls of the script that flips the flag of a cut-over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from luamigrate.scripts.calls import ScriptCall
from luamigrate.server.connection import Connection
from luamigrate.server.errors import explain


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


@dataclass
class Together:
    """Commands that are carried out in one step with a flip, whatever that answers."""

    commands: Sequence[tuple[bytes | str | int, ...]]
    answers: list[Any] = field(default_factory=list)
    """What each was answered, once the flip has been."""


def flip(
    server: Connection,
    flag: bytes,
    record: bytes,
    *,
    value: bytes,
    former: bytes | None,
    deadline: int | None = None,
    changes: bytes | None = None,
    together: Together | None = None,
) -> FlipReply:
    """Call flip.lua: give the flag, which is what `former` says, its new value, and leave the record. Raises Error.

    That is refused after the deadline, and where the changes are not these; None where it does not matter. Where the
    connection is lost, nobody knows whether it was done: the record tells. What goes `together` with it is carried out
    before anybody else's command, however the packet arrives.
    """
    before = () if former is None else (former,)
    return _call(server, "flip", flag, record, deadline, changes, value, *before, together=together)


def flip_back(
    server: Connection,
    flag: bytes,
    record: bytes,
    *,
    value: bytes,
    deadline: int | None = None,
    changes: bytes | None = None,
    together: Together | None = None,
) -> FlipReply:
    """Call flip.lua: set the flag, which has the value, to what the record says that it was, and delete the record."""
    return _call(server, "back", flag, record, deadline, changes, value, together=together)


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
    together: Together | None = None,
) -> FlipReply:
    options: list[bytes | str | int] = [verb, "" if deadline is None else deadline, changes or "", *values]
    if together:
        server.call("MULTI", once=True)
    call = ScriptCall(server, "flip", "EVALSHA", (flag, record), *options, once=True)
    reply = _executed(server, call, together) if together else call.answer()
    if reply not in set(FlipReply):
        raise call.odd()
    return FlipReply(reply)


def _executed(server: Connection, call: ScriptCall, together: Together) -> Any:
    """Have a transaction carried out that begins with the script; return what that answers. Raises Error."""
    for command in together.commands:
        server.call(*command, once=True)
    execution = server.call("EXEC", once=True)
    call.queued()
    answers = execution.answer()
    if not isinstance(answers, list) or len(answers) != len(together.commands) + 1:
        raise call.odd()
    reply, *together.answers = answers
    if isinstance(reply, Exception):
        raise explain(reply)
    return reply
