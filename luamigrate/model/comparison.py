"""How a source and its target are compared, and which targets are completed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class Filling(StrEnum):
    """Which targets are completed that only lack a part of their source, as the scripts are told."""

    NOTHING = ""
    SETS = "sets"
    """Hashes and sets."""
    QUEUES = "queues"
    """Sorted sets too: members that consumers took meanwhile would come back."""

    @classmethod
    def of(cls, *, fills: bool, queues: bool) -> Self:
        """Return which targets are completed, where any are, and sorted sets too where `queues` says so."""
        return cls(("queues" if queues else "sets") if fills else "")

    def covers(self, kind: str) -> bool:
        """Tell whether targets of a type are completed."""
        return kind in _FILLED[self]


_FILLED: dict[Filling, tuple[str, ...]] = {
    Filling.NOTHING: (),
    Filling.SETS: ("hash", "set"),
    Filling.QUEUES: ("hash", "set", "zset"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How source and target are compared, and what is told about them."""

    validate: bool = True
    """Whether they are compared: without it, it only counts whether the target is there."""
    ignore_expiry: bool = False
    """Whether equal values with different expiries are `same`."""
    show_values: bool = False
    """Whether notes on what differs hold values."""
    filling: Filling = Filling.NOTHING
    """Which targets are completed; in a dry run, which ones would be."""
    sizes: bool = False
    """Whether the sizes of source and target are told."""
