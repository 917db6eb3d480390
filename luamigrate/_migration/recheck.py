"""Second looks: pairs that were not clean wait here until they are looked at again.

A writer may have been between its two writes; and what is missing in a target may just be being
deleted on both sides. So nothing is reported, and nothing filled, on one look alone.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from luamigrate.outcome import KeyOutcome
from luamigrate.rules import Rule

MOST_WAITING = 10_000
"""When so many wait, the scan waits too."""

MOST_FIRST_LOOKS = 3
"""Where the second look acts: one that finds something else missing than the one before is a new first look."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the last look at a pair found, and how many there have been."""

    rule: Rule
    outcome: KeyOutcome
    number: int
    due: float
    """When the next one is due, by the monotonic clock."""


class Revisits:
    """The queue of pairs that wait for another look, `settle` seconds after the last one."""

    def __init__(self, settle: float, *, acts: bool) -> None:
        self._settle, self._acts = settle, acts
        self._waiting: deque[Look] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether the scan has to wait."""
        return len(self._waiting) >= MOST_WAITING

    @property
    def seconds_left(self) -> float:
        """How long until the next look is due; nothing waits for ever."""
        return max(0.0, self._waiting[0].due - time.monotonic()) if self._waiting else 0.0

    def put(self, rule: Rule, outcome: KeyOutcome, before: Look | None) -> bool:
        """Have a pair that is not clean looked at again; False where this look was the last one."""
        number = before.number + 1 if before else 1
        # What a first look found missing is added by the second, also where that comes at once.
        acts = self._acts and bool(outcome.digest)
        looks = MOST_FIRST_LOOKS + 1 if acts else 2 if self._settle else 1
        if number >= looks:
            return False
        self._waiting.append(Look(rule, outcome, number, time.monotonic() + self._settle))
        return True

    def take(self, size: int) -> list[Look]:
        """Take pairs whose look is due, all of one rule, at most `size` of them."""
        taken: list[Look] = []
        now = time.monotonic()
        while self._waiting and len(taken) < size:
            look = self._waiting[0]
            if look.due > now or (taken and look.rule is not taken[0].rule):
                break
            taken.append(self._waiting.popleft())
        return taken

    def put_back(self, looks: list[Look]) -> None:
        """Put back, in front, what was taken and could not be looked at."""
        self._waiting.extendleft(reversed(looks))

    def take_all(self) -> list[Look]:
        """Take all, due or not."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken
