"""What is known of a cut-over: which side the application writes, how it is to go, and the record it leaves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from luamigrate.model.errors import UsageError, printable
from luamigrate.model.rules import RESERVED

CUTOVERS = RESERVED + b"cutover"
"""The index of all cut-overs of a database, by plan: it points to their records, which may be there or not."""
RECORDS_OF_CUTOVERS = CUTOVERS + b":"
"""Begins the name of the record that a flip leaves."""
LAST_MOMENT = 253_402_300_799_999
"""The end of the year 9999, in milliseconds: what a later one means, nobody can say."""

FREEZE_MS = 500
"""The longest that all writes may be held, unless somebody says otherwise."""
ATTEMPTS = 5
"""As many as there are, unless somebody says otherwise."""
QUIET_SECONDS = 2.0
"""For which nobody may write before a flip without a freeze, unless somebody says otherwise."""
WATCH_SECONDS = 60.0
"""For which a cut-over of a script watches for stragglers, unless somebody says otherwise."""
HOOK_SECONDS = 30.0
"""After which a hook is ended, and has failed."""


class Side(StrEnum):
    """The names that the application writes; the others are mirrored from them."""

    SOURCES = "sources"
    """The old names: before a cut-over, and after the way back."""
    TARGETS = "targets"
    """The new names."""


class Wish(StrEnum):
    """What somebody may wish of a follow, besides that it stops."""

    CUTOVER = "cutover"
    """That the application writes the new names from now on."""
    BACK = "back"
    """That it writes the old ones again."""
    FINISH = "finish"
    """That the old names are left as they are, and the follow ends."""


class Kill(StrEnum):
    """Whose connections are closed at a flip, so that commands that are held are never carried out."""

    ALL = "all"
    """Those of all clients of the plan's databases."""
    HELD = "held"
    """Those of clients whose commands are held, or who wait for something."""
    NONE = "none"
    """Nobody's: whoever has read the flag before it was flipped writes the names that were left."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Commands that are run at moments of a cut-over, as words without a shell; None where there is none."""

    on_cutover: tuple[str, ...] | None = None
    """Before writes are held: where it fails, nothing is flipped."""
    on_flip: tuple[str, ...] | None = None
    """After the flip, once writes go on."""
    on_straggler: tuple[str, ...] | None = None
    """Where names that had been left were written."""
    seconds: float = HOOK_SECONDS
    """For which each may run."""
    without: frozenset[str] = frozenset()
    """Variables of the environment that they do not get, because these may hold passwords."""


@dataclass(frozen=True, kw_only=True)
class CutoverOptions:
    """How a follow cuts over."""

    flag: bytes
    """The key that the application reads before each write."""
    value: bytes
    """What it has once the new names are the ones to write."""
    freeze_ms: int = FREEZE_MS
    """The longest that all writes may be held in one attempt."""
    attempts: int = ATTEMPTS
    kill: Kill = Kill.ALL
    kill_user: str | None = None
    """Of whom alone connections are closed; None for everybody's."""
    prove: bool = False
    """Whether every pair is compared once more before it."""
    freezes: bool = True
    """Whether writes are held. Otherwise nobody may write for `quiet_seconds`."""
    quiet_seconds: float = QUIET_SECONDS
    at_once: bool = False
    """Whether it cuts over by itself as soon as it is in step, watches, and finishes."""
    watch_seconds: float = WATCH_SECONDS
    """For which it watches then."""
    confirmed: bool = False
    """Whether old names may be overwritten and deleted where nobody followed for a while after a cut-over."""
    hooks: Hooks = field(default_factory=Hooks)


@dataclass(frozen=True, kw_only=True, slots=True)
class CutoverProgress:
    """How far a follow is with a cut-over."""

    attempts: int = 0
    """Of the cut-over that is under way, or was the last one."""
    freeze_ms: float | None = None
    """Milliseconds for which the last flip held writes; None before one."""
    steps: tuple[str, ...] = ()
    """What was done, and why: a line for each step, the last ones."""
    waiting_for: str = ""
    """What is waited for; empty where that is nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CutoverRecord:
    """What a flip leaves beside the flag until the way back, or until it is finished."""

    flag: bytes
    value: bytes
    former: bytes | None
    """What the flag had before; None where there was none."""
    moment: int
    """When it was flipped, by the server's clock: milliseconds since 1970."""

    @classmethod
    def read(cls, reply: object) -> Self | None:
        """Read what HGETALL answers, fields and values by turns; None where that is not what a flip leaves."""
        fields = _fields(reply)
        if not {b"flag", b"value", b"moment"} <= fields.keys() <= {b"flag", b"value", b"former", b"moment"}:
            return None
        moment = fields[b"moment"]
        if not fields[b"flag"] or not fields[b"value"] or not moment.isdigit() or int(moment) > LAST_MOMENT:
            return None
        return cls(flag=fields[b"flag"], value=fields[b"value"], former=fields.get(b"former"), moment=int(moment))


@dataclass(frozen=True, kw_only=True, slots=True)
class CutoverNote:
    """What the index tells of a cut-over: which names it is about, and where the record is, if there is one."""

    who: str
    """The process, for people: host and process id."""
    flag: bytes
    value: bytes
    """What the flag has once the new names are the ones to write."""
    record: bytes
    """The name of the record: only where it is there, something was flipped."""
    database: int
    """That of the flag, and of the record."""
    sources: tuple[bytes, ...]
    targets: tuple[bytes, ...]
    """Prefixes that cover those names of the plan that are in the index's database."""

    @classmethod
    def read(cls, text: object) -> Self | None:
        """Read what the index holds; None where nobody knows what that is."""
        try:
            note: Any = json.loads(text)  # type: ignore[arg-type]  # whatever a server may answer
            names = {name: bytes.fromhex(note[name]) for name in ("flag", "value", "record")}
            sides = {name: tuple(map(bytes.fromhex, note[name])) for name in ("sources", "targets")}
            who, database = printable(str(note["who"]).encode()), int(note["database"])
        except (ValueError, TypeError, LookupError):
            return None
        if not names["record"].startswith(RECORDS_OF_CUTOVERS) or database < 0:
            return None
        return cls(who=who, database=database, **names, **sides)  # type: ignore[arg-type]  # by their names

    def written(self) -> bytes:
        """Return what the index is to hold."""
        names = {"flag": self.flag.hex(), "value": self.value.hex(), "record": self.record.hex()}
        sides = {"sources": [each.hex() for each in self.sources], "targets": [each.hex() for each in self.targets]}
        return json.dumps({"who": self.who, "database": self.database, **names, **sides}).encode()


def cutover_record_of(digest: bytes, flag: bytes, *, is_cluster: bool) -> bytes:
    """Return the name of the record that a flip leaves for a plan with this digest.

    In a cluster it is in the flag's slot, so that both are written in one step. Raises UsageError where no name can be.
    """
    name = RECORDS_OF_CUTOVERS + digest
    if not is_cluster:
        return name
    tag = hash_tag_of(flag)
    if tag is None:
        raise UsageError(
            f"cut-over: in a cluster the flag '{printable(flag)}' can share its slot with no other key, because of its "
            "braces: give it another name"
        )
    return name + b":{" + tag + b"}"


def hash_tag_of(name: bytes) -> bytes | None:
    """Return what another key needs between braces to be in the same slot of a cluster; None where nothing does."""
    _, opened, rest = name.partition(b"{")
    tag, closed, _ = rest.partition(b"}")
    if opened and closed and tag:
        return tag
    # The whole name decides then: as a tag it would end at its first brace.
    return None if b"}" in name or not name else name


def _fields(reply: object) -> dict[bytes, bytes]:
    """Return the fields of a hash; empty where the reply is not made of such."""
    if not isinstance(reply, Sequence) or isinstance(reply, (bytes, str)) or len(reply) % 2:
        return {}
    if not all(isinstance(each, bytes) for each in reply):
        return {}
    return dict(zip(reply[::2], reply[1::2], strict=True))
