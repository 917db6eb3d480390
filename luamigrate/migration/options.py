"""How a verb is carried out, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass

from luamigrate.model.cutover import CutoverOptions
from luamigrate.model.limits import Limits
from luamigrate.model.patterns import Pattern


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user has said about how to work, besides what is done with each pair."""

    limits: Limits
    settle: float
    """Seconds before what is not clean is checked again; 0 for one check."""
    ignored_checks: frozenset[str]
    """Names of checks and guards that are not to be heard."""
    every_key: bool
    """Whether `Batch.keys` lists all keys, not only those that are not clean."""
    sample: int | None = None
    """How many keys of each rule are compared, at most."""
    extra: bool = False
    """Whether targets without a source are searched for too."""
    cover: tuple[Pattern, ...] = ()
    """Patterns under which keys are searched for that no rule takes."""
    cutover: CutoverOptions | None = None
    """How a follow cuts over; None where it never does."""

    @property
    def flag(self) -> bytes | None:
        """The key that a cut-over flips; None where there is to be none."""
        return self.cutover.flag if self.cutover else None


@dataclass(frozen=True, kw_only=True)
class FollowOptions(Options):
    """What the user has said about how to follow, besides."""

    extra: bool = True
    dry_run: bool = False
    """Whether it only says how it would begin."""
    replace: bool = False
    """Whether targets that are there may be made what their sources are."""
    allow_groups: bool = False
    """Whether streams may have groups, of whose changes nobody is told."""
