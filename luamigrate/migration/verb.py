"""The verbs: what each of them calls, answers and writes, in one slot, across slots and for large keys.

A new verb is a class here, and a command.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

from luamigrate.migration import cross_slot_verbs, large_keys
from luamigrate.migration.chunks import LargePair
from luamigrate.migration.cross_slot import CrossSlotBatch, Steps
from luamigrate.migration.watch import LargeSteps
from luamigrate.model.errors import Error
from luamigrate.model.limits import Pause
from luamigrate.model.rules import Pairs
from luamigrate.model.status import Command, Filling, Stage, Word, unfinished
from luamigrate.scripts import calls
from luamigrate.scripts.calls import ScriptCall
from luamigrate.server.connection import Connection

ALWAYS = frozenset((Word.GONE, Word.FAILED, Word.IGNORED))
COMPARED = frozenset((Word.SAME, Word.EXPIRY, Word.PARTIAL, Word.DIFFERS, Word.MISSING))


@dataclass(frozen=True, kw_only=True)
class Verb(ABC):
    """What is done with every pair of a plan."""

    scripts: ClassVar[tuple[str, ...]]
    """Called for pairs of one slot."""
    stage: ClassVar[Stage] = Stage.SCAN
    """SCAN goes from sources to their targets, EXTRA from targets to their sources."""
    acts_on_recheck: ClassVar[bool] = False
    """Whether what a first look found missing is copied or filled in by the next one."""

    command: Command
    """The command that asks for it."""
    dry_run: bool = False
    """Whether it only tells what the command would do."""
    filling: Filling = Filling.NOTHING
    """Which targets are completed; in a dry run, which ones would be."""
    show_values: bool = False
    """Whether notes on what differs hold values."""

    @property
    @abstractmethod
    def possible(self) -> frozenset[Word]:
        """Return the words that its scripts may answer."""

    @property
    def unfinished(self) -> frozenset[Word]:
        """Return the words that are looked at again, and reported if they stay."""
        return unfinished(self.command, dry_run=self.dry_run)

    @property
    def writes(self) -> bool:
        """Whether it changes anything on the server."""
        return self.command is not Command.VERIFY and not self.dry_run

    @property
    def copies(self) -> bool:
        """Whether it takes memory on the server."""
        return self.writes and self.command is Command.RUN

    @property
    def tells_fillable(self) -> bool:
        """Whether targets are counted that the command would fill."""
        return self.dry_run and self.filling is not Filling.NOTHING

    def rehearsal(self) -> Verb:
        """Return the verb that tells what this one would do, and writes nothing."""
        return self

    @abstractmethod
    def same_slot(self, server: Connection, pairs: Pairs, pause: Pause) -> ScriptCall:
        """Send pairs to a script that decides about each of them atomically."""

    @abstractmethod
    def cross_slot(self, batch: CrossSlotBatch) -> Steps:
        """Decide about pairs of two slots each, yielding between round trips; store one result per pair."""

    @abstractmethod
    def large(self, pair: LargePair) -> LargeSteps:
        """Decide about a pair that is too large for one script, yielding the progress of each chunk."""


@dataclass(frozen=True, kw_only=True)
class Copy(Verb):
    """Copy each source to its target where the target is absent, and compare the two."""

    scripts = ("copy",)
    acts_on_recheck = True

    command: Command = Command.RUN
    validate: bool = True
    """Whether source and target are compared."""
    ignore_expiry: bool = False
    """Whether equal values with different expiries are `same`."""

    @property
    def possible(self) -> frozenset[Word]:
        """Return the words that its scripts may answer."""
        return ALWAYS | COMPARED | {Word.COPIED, Word.EXISTS}

    def rehearsal(self) -> Verb:
        """Return a comparison that tells sizes."""
        return Compare(
            command=self.command,
            dry_run=True,
            filling=self.filling,
            show_values=self.show_values,
            validate=self.validate,
            ignore_expiry=self.ignore_expiry,
            sizes=True,
        )

    def same_slot(self, server: Connection, pairs: Pairs, pause: Pause) -> ScriptCall:
        """Copy and compare in one script."""
        return calls.copy(
            server,
            pairs,
            pause,
            validate=self.validate,
            ignore_expiry=self.ignore_expiry,
            show_values=self.show_values,
        )

    def cross_slot(self, batch: CrossSlotBatch) -> Steps:
        """Restore the source's payload at the target; else compare, and fill."""
        return cross_slot_verbs.copy(
            batch,
            validate=self.validate,
            ignore_expiry=self.ignore_expiry,
            show_values=self.show_values,
            filling=self.filling,
        )

    def large(self, pair: LargePair) -> LargeSteps:
        """Copy in chunks to a staging key, and publish it."""
        return large_keys.copy(pair, validate=self.validate, ignore_expiry=self.ignore_expiry)


@dataclass(frozen=True, kw_only=True)
class Fill(Copy):
    """Copy, compare, and add to a target what two looks, some time apart, found it to lack."""

    scripts = ("fill",)

    filling: Filling = Filling.SETS

    @property
    def possible(self) -> frozenset[Word]:
        """Return the words that its scripts may answer."""
        return ALWAYS | COMPARED | {Word.COPIED, Word.FILLED}

    def same_slot(self, server: Connection, pairs: Pairs, pause: Pause) -> ScriptCall:
        """Copy, compare and fill in one script."""
        return calls.fill(
            server,
            pairs,
            pause,
            ignore_expiry=self.ignore_expiry,
            show_values=self.show_values,
            filling=self.filling,
        )

    def large(self, pair: LargePair) -> LargeSteps:
        """Copy in chunks; else add the missing names, a bounded number at a time."""
        return large_keys.fill(pair, filling=self.filling, ignore_expiry=self.ignore_expiry)


@dataclass(frozen=True, kw_only=True)
class Compare(Verb):
    """Say how each target compares to its source; write nothing."""

    scripts = ("compare",)

    command: Command = Command.VERIFY
    validate: bool = True
    """Whether source and target are compared: else it is only looked whether the target is there."""
    ignore_expiry: bool = False
    """Whether equal values with different expiries are `same`."""
    sizes: bool = False
    """Whether the sizes of source and target are told."""

    @property
    def possible(self) -> frozenset[Word]:
        """Return the words that its scripts may answer."""
        return ALWAYS | COMPARED | (frozenset() if self.validate else {Word.EXISTS})

    def same_slot(self, server: Connection, pairs: Pairs, pause: Pause) -> ScriptCall:
        """Compare in one script."""
        return calls.compare(
            server,
            pairs,
            pause,
            validate=self.validate,
            ignore_expiry=self.ignore_expiry,
            show_values=self.show_values,
            filling=self.filling,
            sizes=self.sizes,
        )

    def cross_slot(self, batch: CrossSlotBatch) -> Steps:
        """Compare payloads, and contents where these differ."""
        return cross_slot_verbs.compare(
            batch,
            validate=self.validate,
            ignore_expiry=self.ignore_expiry,
            show_values=self.show_values,
            filling=self.filling,
            sizes=self.sizes,
        )

    def large(self, pair: LargePair) -> LargeSteps:
        """Compare in chunks."""
        return large_keys.compare(
            pair, validate=self.validate, ignore_expiry=self.ignore_expiry, sizes=self.sizes, filling=self.filling
        )


@dataclass(frozen=True, kw_only=True)
class Remove(Verb):
    """Delete each target that equals its source, if the source lives at least as long."""

    scripts = ("remove",)

    command: Command = Command.ROLLBACK

    @property
    def possible(self) -> frozenset[Word]:
        """Return the words that its scripts may answer."""
        return ALWAYS | {Word.KEPT, Word.MISSING, Word.REMOVED if self.writes else Word.SAME}

    def rehearsal(self) -> Verb:
        """Return the same without deleting: `same` is what would be deleted."""
        return replace(self, dry_run=True)

    def same_slot(self, server: Connection, pairs: Pairs, pause: Pause) -> ScriptCall:
        """Compare and delete in one script."""
        return calls.remove(server, pairs, pause, delete=self.writes, show_values=self.show_values)

    def cross_slot(self, batch: CrossSlotBatch) -> Steps:
        """Compare, read the source last, and delete the target while it is what was compared."""
        return cross_slot_verbs.remove(batch, delete=self.writes, show_values=self.show_values)

    def large(self, pair: LargePair) -> LargeSteps:
        """Compare in chunks, and delete if nobody wrote meanwhile."""
        return large_keys.remove(pair, delete=self.writes)


@dataclass(frozen=True, kw_only=True)
class FindExtra(Verb):
    """Find targets that have no source of the rule's type; write nothing."""

    scripts = ("find_extra",)
    stage = Stage.EXTRA

    command: Command = Command.VERIFY

    @property
    def possible(self) -> frozenset[Word]:
        """Return the words that its scripts may answer."""
        return frozenset((Word.EXTRA, Word.FAILED))

    def same_slot(self, server: Connection, pairs: Pairs, pause: Pause) -> ScriptCall:
        """Look for the sources in one script."""
        return calls.find_extra(server, pairs, pause)

    def cross_slot(self, batch: CrossSlotBatch) -> Steps:
        """Look for each source at its own node."""
        return cross_slot_verbs.find_extra(batch)

    def large(self, pair: LargePair) -> LargeSteps:
        """Raise Error: no size is too large for being looked for."""
        raise Error(f"the script answered 'big {pair.kind}', which is not for it to say")
