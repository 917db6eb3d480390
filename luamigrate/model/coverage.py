"""Which keys under a pattern no rule takes: so that nobody leaves some of them behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from luamigrate.model.patterns import Pattern

NAMES_SHOWN = 10


@dataclass(slots=True)
class Coverage:
    """What was found under a pattern. Names of the tool's own are left out."""

    pattern: Pattern
    seen: int = 0
    """All keys under it, but targets of the plan."""
    types: Counter[str] = field(default_factory=Counter)
    """The types of the keys that no rule takes."""
    names: list[bytes] = field(default_factory=list)
    """The first of these keys."""
    left_out: int = 0
    """Keys that no rule takes because of an except."""
    targets: int = 0
    """Targets of the plan, which no rule need take."""

    @property
    def untaken(self) -> int:
        """How many keys no rule takes."""
        return self.types.total()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all under the pattern."""
        return not (self.seen or self.targets)

    def add(self, other: Coverage) -> None:
        """Add what else was found under the same pattern."""
        self.seen += other.seen
        self.types.update(other.types)
        self.names = (self.names + other.names)[:NAMES_SHOWN]
        self.left_out += other.left_out
        self.targets += other.targets
