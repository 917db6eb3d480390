"""Typed calls of the scripts of lua/: one for each; those of a verb about pairs are in migration/verbs.py."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from luamigrate.model.errors import Error, printable
from luamigrate.model.limits import Pause
from luamigrate.model.rules import Pairs
from luamigrate.scripts import library
from luamigrate.server.call import Call
from luamigrate.server.connection import Connection
from luamigrate.server.errors import ScriptMissing

Answer = bytes | list[object]
"""A script's answer for a pair: a word with its text, or a list of a word and notes."""


_KINDS_OF_ANSWER = {bytes, list}

REGISTRATIONS = 100
"""Tries to have a script kept, where somebody empties the cache all the time."""


class Expiries(StrEnum):
    """What a comparison of values notes of expiries."""

    NONE = ""
    DIFFERENT = "different"
    """Those that are more than a second apart."""
    EXACT = "exact"
    """Those that are a millisecond apart."""
    SOONER = "sooner"
    """Those that come sooner in the source than in the target."""


@dataclass(frozen=True, slots=True)
class Elements:
    """A chunk of a big key: a flat list, and the moments at which fields expire, if any does."""

    flat: list[bytes]
    moments: list[int]

    @property
    def arguments(self) -> tuple[bytes | int, ...]:
        """What chunk/append.lua and chunk/compare_elements.lua take."""
        return (len(self.flat), *self.flat, *self.moments)


class ScriptCall:
    """A registered script that has been called, and its answer.

    Where its keys lie in several `databases`, these are theirs by turns.
    """

    def __init__(
        self,
        server: Connection,
        name: str,
        command: str,
        keys: Sequence[bytes],
        *arguments: bytes | str | int,
        databases: Sequence[int] = (),
        once: bool = False,
    ) -> None:
        self._server, self._name, self._once = server, name, once
        arguments = (*_numbers(databases), *arguments)
        self._command = (command, library.digest(name), len(keys), *keys, *arguments)
        self._call: Call = server.call(*self._command, once=once)

    def advance(self) -> bool:
        """Take no step before the last: a script takes one."""
        return False

    def answer(self) -> Any:
        """Wait for what the script answers, registering it again where the server has lost it."""
        for _ in range(REGISTRATIONS):
            with suppress(ScriptMissing):
                return self._call.answer()
            # Nothing has run, so sending it again repeats nothing.
            library.register(self._server, self._name)
            self._call = self._server.call(*self._command, once=self._once)
        return self._call.answer()

    def answers(self) -> tuple[list[Answer], float]:
        """Wait for the script's answers for pairs; return them, and how long it says it has taken, in seconds.

        That is 0 where no clock moves in a script.
        """
        return self.read(self.answer())

    def queued(self) -> None:
        """See that it was taken into a transaction. Raises Error for any other answer, or what the server says."""
        if self._call.answer() != b"QUEUED":
            raise self.odd()

    def read(self, reply: Any) -> tuple[list[Answer], float]:
        """Read answers for pairs that came by EXEC, or otherwise: see `answers`. Raises Error where they are none."""
        if not isinstance(reply, list) or not reply or not isinstance(microseconds := reply.pop(), int):
            raise self.odd()
        answers: list[Answer] = reply
        if not {*map(type, answers)} <= _KINDS_OF_ANSWER:
            raise self.odd()
        return answers, microseconds / 1e6

    @property
    def is_answered(self) -> bool:
        """Whether its answer has come."""
        return self._call.is_answered

    def odd(self) -> Error:
        """Return the error for an answer that is none."""
        return Error(f"the server does not answer {self._name}.lua as it should")

    @property
    def seconds(self) -> float:
        """How long the script took, seen from here."""
        return self._call.seconds or 0.0

    def busy(self, microseconds: int) -> float:
        """Return how long it kept the server busy, in seconds: as it says, or seen from here where it cannot tell."""
        return microseconds / 1e6 or self.seconds

    @property
    def waited(self) -> bool:
        """Whether we waited for it: else `seconds` are our own."""
        return self._call.waited

    @property
    def alone(self) -> bool:
        """Whether no other call was under way when its answer came."""
        return self._call.alone

    @property
    def repeated(self) -> bool:
        """Whether it was sent again, because the connection was lost before its answer came."""
        return self._call.repeated


def ask_about_pairs(
    server: Connection,
    name: str,
    pairs: Pairs,
    pause: Pause,
    *options: bytes | str | int,
    writes: bool = True,
) -> ScriptCall:
    """Call a verb's script about pairs in one place, or in two databases: the rule's type is its first option."""
    rule = pairs.rule
    databases = () if rule.database is None else (server.database, rule.database)
    return ask_about(server, name, pairs.keys, pause, rule.type, *options, databases=databases, writes=writes)


def ask_about(
    server: Connection,
    name: str,
    keys: Sequence[bytes],
    pause: Pause,
    *options: bytes | str | int,
    databases: Sequence[int] = (),
    writes: bool = True,
    alone: bool = False,
) -> ScriptCall:
    """Call a script about keys, many at once, with its options: each verb knows those of its own script.

    In a cluster the keys are of many slots and not declared, unless it is one `alone`; and no script can select
    `databases` there. What does not write is held to that by the server, where it can.
    """
    command = "EVALSHA" if writes else _reading_command(server)
    arguments = (pause.microseconds, pause.capacity, *options)
    if server.identity.mode != "cluster" or alone or databases:
        return ScriptCall(server, name, command, keys, *arguments, databases=databases)
    return ScriptCall(server, name, command, (), "names", len(keys), *keys, *arguments)


def chunk_stage(
    server: Connection,
    keys: tuple[bytes, bytes],
    pause: Pause,
    *,
    kind: str,
    position: bytes,
    step: int,
    lifetime_ms: int,
    databases: Sequence[int] = (),
) -> ScriptCall:
    """Call chunk/stage.lua: copy a chunk of the source, the first key, to the staging key, the second one."""
    arguments = (pause.microseconds, pause.capacity, kind, position, step, lifetime_ms)
    return ScriptCall(server, "chunk/stage", "EVALSHA", keys, *arguments, databases=databases, once=True)


def chunk_compare(
    server: Connection,
    keys: tuple[bytes, bytes],
    pause: Pause,
    *,
    kind: str,
    position: bytes,
    step: int,
    expiries: Expiries,
    names: int,
    databases: Sequence[int] = (),
) -> ScriptCall:
    """Call chunk/compare.lua: compare a chunk of the first key with the second one; reads only."""
    arguments = (pause.microseconds, pause.capacity, kind, position, step, expiries, names)
    command = _reading_command(server)
    return ScriptCall(server, "chunk/compare", command, keys, *arguments, databases=databases, once=True)


def chunk_read(server: Connection, key: bytes, pause: Pause, *, kind: str, position: bytes, step: int) -> ScriptCall:
    """Call chunk/read.lua: read a chunk of a key."""
    arguments = (pause.microseconds, pause.capacity, kind, position, step)
    return ScriptCall(server, "chunk/read", _reading_command(server), [key], *arguments, once=True)


def chunk_append(
    server: Connection, staging: bytes, elements: Elements, *, kind: str, lifetime_ms: int, is_first: bool
) -> ScriptCall:
    """Call chunk/append.lua: add what was read to a staging key."""
    return ScriptCall(
        server, "chunk/append", "EVALSHA", [staging], kind, lifetime_ms, int(is_first), *elements.arguments, once=True
    )


def chunk_compare_elements(
    server: Connection,
    key: bytes,
    elements: Elements,
    *,
    kind: str,
    position: bytes,
    expires_at: int,
    expiries: Expiries,
    names: int,
) -> ScriptCall:
    """Call chunk/compare_elements.lua: compare what was read with another key; reads only."""
    options = (kind, position, expiries, names, expires_at)
    return ScriptCall(
        server, "chunk/compare_elements", _reading_command(server), [key], *options, *elements.arguments, once=True
    )


def chunk_read_fields(
    server: Connection, source: bytes, pause: Pause, *, kind: str, names: Sequence[bytes]
) -> ScriptCall:
    """Call chunk/read_fields.lua: read the values that a source has under some names."""
    options = (pause.microseconds, pause.capacity, kind)
    return ScriptCall(server, "chunk/read_fields", _reading_command(server), [source], *options, *names)


def chunk_add_fields(
    server: Connection,
    keys: Sequence[bytes],
    pause: Pause,
    *,
    kind: str,
    names: Sequence[bytes | int],
    databases: Sequence[int] = (),
) -> ScriptCall:
    """Call chunk/add_fields.lua: add to the target, the first key, those of the names that it still lacks.

    Where there is no source, the second key, the names are what chunk/read_fields.lua answers.
    """
    arguments = (pause.microseconds, pause.capacity, kind, *names)
    return ScriptCall(server, "chunk/add_fields", "EVALSHA", keys, *arguments, databases=databases)


def chunk_publish(
    server: Connection,
    staging: bytes,
    target: bytes,
    *,
    source: bytes | int,
    lease: tuple[bytes, bytes] | int | None = None,
    databases: Sequence[int] = (),
) -> Call:
    """Have chunk/publish.lua run by the EXEC that follows; it must have been registered.

    Where the `source` lives elsewhere, it is the moment at which it expires. While the `lease` is held (name and value,
    or until when it is), a target that is there is replaced.
    """
    keys: list[bytes] = [staging, target] if isinstance(source, int) else [staging, target, source]
    arguments: list[bytes | str | int] = [source if isinstance(source, int) else ""]
    if isinstance(lease, int):
        arguments += ("until", lease)
    elif lease:
        keys.append(lease[0])
        arguments += ("value", lease[1])
    digest = library.digest("chunk/publish")
    return server.call("EVALSHA", digest, len(keys), *keys, *_numbers(databases), *arguments, once=True)


def in_database(
    server: Connection, database: int, *command: bytes | str | int, keys: Sequence[bytes] = (), writes: bool
) -> ScriptCall:
    """Call in_database.lua: have a command run in another database than the connection's."""
    how = "EVALSHA" if writes else _reading_command(server)
    return ScriptCall(server, "in_database", how, keys, database, *command)


def unlink_in_database(server: Connection, database: int, key: bytes) -> Call:
    """Have in_database.lua delete a key by the EXEC that follows; it must have been registered."""
    return server.call("EVALSHA", library.digest("in_database"), 1, key, database, "UNLINK", key, once=True)


def probe(
    server: Connection, keys: Sequence[bytes], absent: bytes, commands: Sequence[str], *, reads_only: bool
) -> dict[str, str]:
    """Call probe.lua: return 'ok', 'denied', 'unknown' or 'refused …' for each command."""
    command = _reading_command(server) if reads_only else "EVALSHA"
    call = ScriptCall(server, "probe", command, keys, absent, *commands)
    answers = call.answer()
    texts = [printable(answer) for answer in answers if isinstance(answer, bytes)] if isinstance(answers, list) else []
    if len(texts) != len(commands):
        raise call.odd()
    return dict(zip(commands, texts, strict=True))


def cross_slot_read(
    server: Connection,
    names: Sequence[bytes],
    pause: Pause,
    *,
    kind: str,
    beside: str = "",
    known: Sequence[bytes] = (),
    steadily: bool = False,
    alone: bool = False,
) -> ScriptCall:
    """Call cross_slot/read.lua: read keys whose pair has its other key in another slot.

    A node that hands its slots over to its replica still answers for a moment, though there are newer writes at
    the replica; what is read `steadily` it lets wait until then, as it does with everything that could write.
    """
    writes = steadily and not alone
    return ask_about(server, "cross_slot/read", names, pause, kind, beside, *known, writes=writes, alone=alone)


def cross_slot_create(
    server: Connection, targets: Sequence[bytes], pause: Pause, *payloads: bytes | int, alone: bool = False
) -> ScriptCall:
    """Call cross_slot/create.lua: make targets of payloads where there is none.

    Each payload is followed by its expiry and weight.
    """
    return ask_about(server, "cross_slot/create", targets, pause, *payloads, alone=alone)


def cross_slot_replace(
    server: Connection, targets: Sequence[bytes], pause: Pause, *payloads: bytes | int, alone: bool = False
) -> ScriptCall:
    """Call cross_slot/replace.lua: replace targets while they are as they were.

    What each was, digest and expiry, is followed by its new payload, expiry and weight.
    """
    return ask_about(server, "cross_slot/replace", targets, pause, *payloads, alone=alone)


def cross_slot_compare(
    server: Connection,
    targets: Sequence[bytes],
    pause: Pause,
    *contents: bytes | str | int,
    expiries: Expiries,
    show_values: bool,
    filling: str,
    writes: bool,
    alone: bool = False,
) -> ScriptCall:
    """Call cross_slot/compare.lua: compare targets with the contents of sources, and fill them."""
    arguments = (expiries, int(show_values), filling, *contents)
    return ask_about(server, "cross_slot/compare", targets, pause, *arguments, writes=writes, alone=alone)


def _numbers(databases: Sequence[int]) -> tuple[str | int, ...]:
    """Return what lua/lib/request.lua takes for the databases of the keys."""
    return ("databases", len(databases), *databases) if databases else ()


def _reading_command(server: Connection) -> str:
    return "EVALSHA_RO" if server.identity.is_at_least(redis=(7, 0), valkey=(7, 2)) else "EVALSHA"
