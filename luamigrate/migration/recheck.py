"""Rechecks: pairs that were not clean wait here until they are compared again.

A writer may have been between its two writes; and what is missing in a target may just be being
deleted on both sides. So nothing is reported, and nothing filled, after one check alone.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from luamigrate.model.rules import Rule
from luamigrate.model.status import KeyOutcome

MOST_WAITING = 10_000
"""When so many wait, the scan waits too."""

MOST_FIRST_CHECKS = 3
"""Where the second check acts: one that finds something else missing than the one before counts as a first one."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """What the last check of a pair found, and how many there have been."""

    rule: Rule
    outcome: KeyOutcome
    number: int
    due: float
    """When the next one is due, by the monotonic clock."""


class RecheckQueue:
    """The queue of pairs that wait to be checked again, `settle` seconds after the last time."""

    def __init__(self, settle: float, *, acts: bool) -> None:
        self._settle, self._acts = settle, acts
        self._waiting: deque[Recheck] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_due(self) -> bool:
        """Whether the scan has to wait: the first one is due, or the queue is full."""
        return len(self._waiting) >= MOST_WAITING or (bool(self._waiting) and not self.seconds_left)

    @property
    def first_rule(self) -> Rule:
        """The rule of the pair that is checked next."""
        return self._waiting[0].rule

    @property
    def seconds_left(self) -> float:
        """Seconds until the next check is due; nothing waits for ever."""
        return max(0.0, self._waiting[0].due - time.monotonic()) if self._waiting else 0.0

    def put(self, rule: Rule, outcome: KeyOutcome, before: Recheck | None) -> bool:
        """Have a pair that is not clean checked again; return False where this check was the last one."""
        number = before.number + 1 if before else 1
        # What a first check found missing is added by the second, also where that comes at once.
        acts = self._acts and bool(outcome.lacking)
        checks = MOST_FIRST_CHECKS + 1 if acts else 2 if self._settle else 1
        if number >= checks:
            return False
        self._waiting.append(Recheck(rule, outcome, number, time.monotonic() + self._settle))
        return True

    def take(self, size: int) -> list[Recheck]:
        """Take pairs whose check is due, all of one rule, at most `size` of them."""
        taken: list[Recheck] = []
        now = time.monotonic()
        while self._waiting and len(taken) < size:
            first = self._waiting[0]
            if first.due > now or (taken and first.rule is not taken[0].rule):
                break
            taken.append(self._waiting.popleft())
        return taken

    def put_back(self, rechecks: list[Recheck]) -> None:
        """Put back, in front, what was taken and could not be checked."""
        self._waiting.extendleft(reversed(rechecks))

    def take_all(self) -> list[Recheck]:
        """Take all, due or not."""
        taken = list(self._waiting)
        self._waiting.clear()
        return taken
