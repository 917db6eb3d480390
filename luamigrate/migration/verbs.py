"""The verbs: what each of them calls, answers and writes, in one slot, across slots and for large keys.

A new verb is a class here, and a command.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar

from luamigrate.migration import cross_slot_verbs, large_key_verbs
from luamigrate.migration.chunks import LargePair
from luamigrate.migration.cross_slot import CrossSlotBatch, Steps
from luamigrate.migration.watch import LargeSteps
from luamigrate.model.comparison import Comparison, Filling
from luamigrate.model.errors import Error
from luamigrate.model.limits import Pause
from luamigrate.model.rules import Pairs
from luamigrate.model.status import Command, Stage, Word, unfinished
from luamigrate.scripts.calls import ScriptCall, ask_about_pairs
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
    """Whether what a first check found missing is copied or filled in by the next one."""

    command: Command
    """The command that asks for it."""
    dry_run: bool = False
    """Whether it only tells what the command would do."""
    comparison: Comparison = field(default_factory=Comparison)
    """How each source is compared with its target."""

    @property
    @abstractmethod
    def possible(self) -> frozenset[Word]:
        """Return the words that its scripts may answer."""

    @property
    def unfinished(self) -> frozenset[Word]:
        """Return the words that are checked again, and reported if they stay."""
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
    def fills(self) -> bool:
        """Whether targets that lack a part of their source are completed, or would be."""
        return self.comparison.filling is not Filling.NOTHING

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

    @property
    def possible(self) -> frozenset[Word]:
        """Return the words that its scripts may answer."""
        return ALWAYS | COMPARED | {Word.COPIED, Word.EXISTS}

    def rehearsal(self) -> Verb:
        """Return a comparison that tells sizes."""
        return Compare(command=self.command, dry_run=True, comparison=replace(self.comparison, sizes=True))

    def same_slot(self, server: Connection, pairs: Pairs, pause: Pause) -> ScriptCall:
        """Copy and compare in one script."""
        how = self.comparison
        options = (int(how.validate), int(how.ignore_expiry), int(how.show_values))
        return ask_about_pairs(server, "copy", pairs, pause, *options, *pairs.digests)

    def cross_slot(self, batch: CrossSlotBatch) -> Steps:
        """Restore the source's payload at the target; else compare, and fill."""
        return cross_slot_verbs.copy(batch, self.comparison)

    def large(self, pair: LargePair) -> LargeSteps:
        """Copy in chunks to a staging key, and publish it."""
        return large_key_verbs.copy(pair, self.comparison)


@dataclass(frozen=True, kw_only=True)
class Fill(Copy):
    """Copy, compare, and add to a target what two checks, some time apart, found it to lack."""

    scripts = ("fill",)

    comparison: Comparison = field(default_factory=lambda: Comparison(filling=Filling.SETS))

    @property
    def possible(self) -> frozenset[Word]:
        """Return the words that its scripts may answer."""
        return ALWAYS | COMPARED | {Word.COPIED, Word.FILLED}

    def same_slot(self, server: Connection, pairs: Pairs, pause: Pause) -> ScriptCall:
        """Copy, compare and fill in one script."""
        how = self.comparison
        options = (int(how.ignore_expiry), int(how.show_values), how.filling)
        return ask_about_pairs(server, "fill", pairs, pause, *options, *pairs.digests)

    def large(self, pair: LargePair) -> LargeSteps:
        """Copy in chunks; else add the missing names, a bounded number at a time."""
        return large_key_verbs.fill(pair, self.comparison)


def copying(comparison: Comparison) -> Copy:
    """Return the verb that copies, and fills too where the comparison is to find what can be filled."""
    return Fill(comparison=comparison) if comparison.filling else Copy(comparison=comparison)


@dataclass(frozen=True, kw_only=True)
class Compare(Verb):
    """Say how each target compares to its source; write nothing."""

    scripts = ("compare",)

    command: Command = Command.VERIFY

    @property
    def possible(self) -> frozenset[Word]:
        """Return the words that its scripts may answer."""
        return ALWAYS | COMPARED | (frozenset() if self.comparison.validate else {Word.EXISTS})

    def same_slot(self, server: Connection, pairs: Pairs, pause: Pause) -> ScriptCall:
        """Compare in one script."""
        how = self.comparison
        options = (int(how.validate), int(how.ignore_expiry), int(how.show_values), how.filling, int(how.sizes))
        return ask_about_pairs(server, "compare", pairs, pause, *options, writes=False)

    def cross_slot(self, batch: CrossSlotBatch) -> Steps:
        """Compare payloads, and contents where these differ."""
        return cross_slot_verbs.compare(batch, self.comparison)

    def large(self, pair: LargePair) -> LargeSteps:
        """Compare in chunks."""
        return large_key_verbs.compare(pair, self.comparison)


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
        options = (int(self.writes), int(self.comparison.show_values))
        return ask_about_pairs(server, "remove", pairs, pause, *options, writes=self.writes)

    def cross_slot(self, batch: CrossSlotBatch) -> Steps:
        """Compare, read the source last, and delete the target while it is what was compared."""
        return cross_slot_verbs.remove(batch, self.comparison, delete=self.writes)

    def large(self, pair: LargePair) -> LargeSteps:
        """Compare in chunks, and delete if nobody wrote meanwhile."""
        return large_key_verbs.remove(pair, delete=self.writes)


@dataclass(frozen=True, kw_only=True)
class FindExtra(Verb):
    """Find targets that have no source of the rule's type; write nothing."""

    scripts = ("find_extra",)
    stage = Stage.EXTRA

    command: Command = Command.VERIFY
    of_all_types: bool = False
    """Whether targets of other types than the rule's count too."""

    @property
    def possible(self) -> frozenset[Word]:
        """Return the words that its scripts may answer."""
        return frozenset((Word.EXTRA, Word.FAILED))

    def same_slot(self, server: Connection, pairs: Pairs, pause: Pause) -> ScriptCall:
        """Look for the sources in one script."""
        return ask_about_pairs(server, "find_extra", pairs, pause, int(self.of_all_types), writes=False)

    def cross_slot(self, batch: CrossSlotBatch) -> Steps:
        """Look for each source at its own node."""
        return cross_slot_verbs.find_extra(batch, of_all_types=self.of_all_types)

    def large(self, pair: LargePair) -> LargeSteps:
        """Raise Error: a key of any size can be searched for."""
        raise Error(f"the script answered 'big {pair.kind}', which is not for it to say")
