"""What both guarded mirrors rest on: who still owns a copy, and since when that may have changed without being told."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Protocol

from luamigrate.migration.standing import Pair

SLACK_SECONDS = 3
"""By which the server's idle times are off, and its answers late."""


class Guard(Protocol):
    """Knows who has written what."""

    def barrier(self) -> int:
        """Begin a barrier; return how many will have passed after it."""

    @property
    def passed(self) -> int:
        """How many barriers there have been."""

    def still_owns(self, pair: Pair) -> bool:
        """Tell, after a barrier, whether nobody else has written the copy; then it is about to be written."""


def divided(pairs: Iterable[Pair], guard: Guard) -> tuple[list[Pair], list[Pair]]:
    """Return, after a barrier, the pairs whose copies are still our own, and those that somebody else has written."""
    owned, left_alone = list[Pair](), list[Pair]()
    for pair in pairs:
        (owned if guard.still_owns(pair) else left_alone).append(pair)
    return owned, left_alone


class Gap:
    """A time in which copies may have been written without being told; it lasts until all pairs have been looked at."""

    def __init__(self) -> None:
        self._since: float | None = None

    def begins(self, moment: float) -> None:
        """Note that nobody has been told since a moment, by `time.monotonic`; an earlier one stays."""
        self._since = min(moment, self._since or moment)

    def ends(self) -> None:
        """Note that all pairs have been looked at since."""
        self._since = None

    @property
    def seconds(self) -> int | None:
        """How long ago it began, at most; None where there is none."""
        return None if self._since is None else math.ceil(time.monotonic() - self._since + SLACK_SECONDS)
