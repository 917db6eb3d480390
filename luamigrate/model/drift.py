"""What is known about a comparison that goes on: its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from luamigrate.model.following import Rescan
from luamigrate.model.status import Word


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """The figures of a comparison that goes on, at one moment."""

    is_complete: bool = False
    """Whether all pairs have been compared since something may have been missed last."""
    comparisons: int = 0
    """How often it was begun to compare everything."""
    rescans: Mapping[Rescan, int] = field(default_factory=dict)
    """How often more was compared than had been told, by why."""
    told: int = 0
    """Changes of sources and targets that were told."""
    waiting: int = 0
    """Pairs that have changed and wait to be compared."""
    compared: int = 0
    """Pairs that were compared because one of the two had changed."""
    unequal: Mapping[Word, int] = field(default_factory=dict)
    """Pairs that are not equal now, by how they stand."""
    drifted: int = 0
    """How often a pair was found not to be equal that had been equal, or had not been known."""
    healed: int = 0
    """How often such a pair was found to be equal again, or its source to be gone."""
    longest_pause_ms: float = 0.0
    """Milliseconds for which the longest script held the server."""

    @property
    def remaining(self) -> int:
        """How many pairs are not equal now."""
        return sum(self.unequal.values())
