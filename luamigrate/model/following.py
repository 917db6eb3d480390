"""What is known about a follow: its figures, and what its lease is about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Self

from luamigrate.model.cutover import CutoverNote, Side
from luamigrate.model.errors import printable
from luamigrate.model.plans import Plan
from luamigrate.model.prefixes import source_prefixes, target_prefixes
from luamigrate.model.rules import RESERVED

LEASES = RESERVED + b"follow"
"""The index of all leases of a database, by plan; each lease has the plan's digest behind it."""
TAG = b"{" + LEASES + b"}"
"""Behind a lease and a record in a cluster: there they are in one slot with the index."""
RECORDS = RESERVED + b"followed:"
"""Begins the name of the record that a follow of a plan leaves for the next one."""


class Phase(StrEnum):
    """What a follow is doing."""

    CHECKING = "checking"
    COPYING = "copying"
    FOLLOWING = "following"
    FREEZING = "freezing"
    MIRRORING_BACK = "mirroring back"
    FINISHED = "finished"


class Rescan(StrEnum):
    """Why both sides are scanned again."""

    EMPTIED = "a database was emptied"
    LOST = "a connection was lost"
    OTHER_SERVER = "another server process answers"
    MOVED = "slots were moved"
    TOO_MANY = "too many names changed at once"
    LEASE = "the lease had expired"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lag:
    """How long it took from when changes were told until they were mirrored, in milliseconds."""

    now: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    worst: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Followed:
    """The figures of a follow at one moment."""

    phase: Phase = Phase.CHECKING
    in_step: bool = False
    """Whether every write that was executed before the last barrier is in its target."""
    dirty: int = 0
    """Sources that have changed and wait to be mirrored."""
    in_flight: int = 0
    """Pairs that the server is working on."""
    told: int = 0
    """Changes of sources that were told."""
    copies: int = 0
    """Targets that were made or made again."""
    removed: int = 0
    """Targets that were deleted because their source was gone."""
    rescans: Mapping[Rescan, int] = field(default_factory=dict)
    """How often both sides were scanned again, by why."""
    foreign: int = 0
    """Targets that somebody else has written and that are not what their sources are."""
    foreign_seen: int = 0
    """Targets of which that was so at any time, those that were deleted and are back included."""
    failed: int = 0
    """Sources that cannot be copied at present."""
    extra: int = 0
    """Targets without a source that are not the follow's own."""
    lag: Lag = field(default_factory=Lag)
    stragglers: int = 0
    """Old names that were written after the flip by somebody else: none before a cut-over."""
    freeze_ms: float | None = None
    """Milliseconds for which the last cut-over held writes; None before one."""
    side: Side = Side.SOURCES
    """Which names the application writes."""
    attempts: int = 0
    """Of the cut-over that is wished for, or was the last one."""
    steps: tuple[str, ...] = ()
    """What was done for cut-overs, and why: a line for each step, the last ones."""
    longest_pause_ms: float = 0.0
    """Milliseconds for which the longest script held the server."""
    waiting_for: str | None = None
    """What is waited for, if anything is."""
    was_in_step: bool = False
    """Whether it was in step at any time."""

    @property
    def has_trouble(self) -> bool:
        """Whether there is something for somebody to look at."""
        return bool(self.foreign_seen or self.failed or self.extra or self.stragglers)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseNote:
    """What a lease is about: whose it is, and which names."""

    who: str
    """The process, for people: host and process id."""
    sources: tuple[bytes, ...]
    targets: tuple[bytes, ...]
    """Prefixes that cover those names of the plan that are in one database."""
    side: str = Side.SOURCES
    """Which side is written by the application, and mirrored to the other one."""

    @property
    def mirrored(self) -> tuple[bytes, ...]:
        """Prefixes of the names that the follow writes."""
        return self.sources if self.side == Side.TARGETS else self.targets

    @classmethod
    def read(cls, text: bytes) -> Self | None:
        """Read what the index holds; None where that is nothing of ours."""
        try:
            note: Any = json.loads(text)
            sides = {name: tuple(map(bytes.fromhex, note[name])) for name in ("sources", "targets")}
            return cls(who=printable(str(note["who"]).encode()), side=str(note["side"]), **sides)
        except (ValueError, TypeError, LookupError):
            return None

    def written(self) -> bytes:
        """Return what the index is to hold."""
        sides = {"sources": [each.hex() for each in self.sources], "targets": [each.hex() for each in self.targets]}
        return json.dumps({"who": self.who, "side": self.side, **sides}).encode()


def cutover_notes_of(
    plan: Plan, database: int, who: str, *, flag: bytes, value: bytes, record: bytes
) -> dict[int, CutoverNote]:
    """Return what a cut-over of a plan is about in each of its databases; sources and flag are in this one."""
    return {
        each: CutoverNote(
            who=who,
            flag=flag,
            value=value,
            record=record,
            database=database,
            sources=note.sources,
            targets=note.targets,
        )
        for each, note in notes_of(plan, database, who).items()
    }


def notes_of(plan: Plan, database: int, who: str) -> dict[int, LeaseNote]:
    """Return what a lease of a plan is about in each of its databases, its sources being in this one."""
    sources = {database: source_prefixes(plan)}
    targets = {database if each is None else each: target_prefixes(plan, each) for each in plan.databases}
    return {
        each: LeaseNote(who=who, sources=sources.get(each, ()), targets=targets.get(each, ()))
        for each in dict.fromkeys((database, *targets))
    }


@lru_cache(maxsize=8)
def digest_of(plan: Plan) -> bytes:
    """Return by which a plan is known again, whatever file it came from."""
    digest = hashlib.sha1(str(plan.first_match).encode(), usedforsecurity=False)
    for rule in plan:
        digest.update(f"\n{rule.type} {rule.where} {' '.join(map(str, rule.excepts))}\n".encode())
        if rule.is_table:
            for pair in zip(rule.source_names or (), rule.target_names or (), strict=True):
                digest.update(b"%b\t%b\n" % pair)
        else:
            digest.update(rule.quoted.encode())
    return digest.hexdigest()[:16].encode()


def entry_of(digest: bytes, database: int) -> bytes:
    """Return by which the indexes know the lease of a plan whose sources are in this database."""
    return b"%b@%d" % (digest, database)


def lease_of(digest: bytes) -> bytes:
    """Return the name of the lease of a plan."""
    return LEASES + b":" + digest


def record_of(digest: bytes) -> bytes:
    """Return the name of the record that is kept for a plan."""
    return RECORDS + digest
