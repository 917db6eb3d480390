"""Which names of a plan the application writes, and which ones are mirrored from them."""

from __future__ import annotations

from dataclasses import dataclass, field

from luamigrate.migration.standing import Pair
from luamigrate.model.cutover import Side
from luamigrate.model.plans import Plan
from luamigrate.model.rules import Rule


@dataclass
class Direction:
    """The way in which pairs are mirrored. A cut-over turns it round, for all who have been given it.

    A pair is known by its old name, the source of the plan, whichever way it is mirrored.
    """

    plan: Plan
    database: int
    """The number of the database that has the old names."""
    side: Side = Side.SOURCES
    """The names that the application writes."""

    is_guarded: bool = field(init=False)
    """Whether there was a flip: from then on whoever writes the names that were left is a straggler."""

    def __post_init__(self) -> None:
        self.is_guarded = self.is_back

    def turn(self, side: Side) -> None:
        """Have the application write these names from now on."""
        self.side, self.is_guarded = side, True

    @property
    def is_back(self) -> bool:
        """Whether old names are mirrored from new ones."""
        return self.side is Side.TARGETS

    @property
    def left(self) -> str:
        """Which names the application has left by a flip: `old` or `new`; empty where there was none."""
        return ("old" if self.is_back else "new") if self.is_guarded else ""

    def ends(self, pair: Pair) -> tuple[bytes, bytes]:
        """Return the name that the application writes, and the one that is mirrored from it."""
        return (pair.target, pair.source) if self.is_back else (pair.source, pair.target)

    def copy_of(self, pair: Pair) -> bytes:
        """Return the name that is mirrored from the other one."""
        return pair.source if self.is_back else pair.target

    def databases(self, rule: Rule) -> tuple[int, int]:
        """Return the numbers of the databases of those names."""
        other = self.database if rule.database is None else rule.database
        return (other, self.database) if self.is_back else (self.database, other)
