"""How much at once, and how often: batch size, SCAN's COUNT and rate, from measured times. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from luamigrate.model.limits import Limits, Pause

BYTES_PER_MS = 80_000
"""Bytes of a key's memory that a script copies and compares in a millisecond at worst: measured on hashes of small
and of large fields on Redis 6.2, 7.0, 8.2 and Valkey 9.1; compact ones and strings take less."""

SMALLEST_CAPACITY = 20_000
"""One small key, which a script may always take up, however short the pause."""

SCRIPT_SHARE, SCAN_SHARE = 0.4, 0.2
"""Shares of the longest pause for a script and for a SCAN: two scripts and a SCAN that are in flight together may run
one right after the other."""

SCANNED_PER_MS = 1000
"""Keys that a SCAN returns in a millisecond, to begin with; fewer than it passes over."""

SMALLEST_COUNT = 10
LARGEST_COUNT = 1_000_000

BATCHES_PER_SCAN = 4
"""Looked for by one SCAN. A server answers all it has read of a connection at once, so the keys of a
SCAN come no sooner than the script that was sent with it ends: until then there must be others."""

BATCHES_PER_SECOND = 10
"""At least, where a rate is set: a low one is to be a trickle and no succession of gusts."""


CUTS = 4
"""Scripts that were cut short, after which batches become smaller: one alone may have met a large key."""

STEADY_ANSWERS = 100
"""Before a batch that was made smaller for that grows again."""


class Pace:
    """How many pairs the next script gets, and how many keys the next SCAN goes through.

    Both follow what the last ones took: down at once, up again slowly. `round_trip` is what a command
    that does nothing takes, in seconds.
    """

    def __init__(self, limits: Limits, round_trip: float) -> None:
        self._round_trip = round_trip
        self._go_by(limits)
        self.size = self._most
        """The most pairs for the next script."""
        self._cuts: deque[int] = deque(maxlen=CUTS)
        """How many pairs the last scripts that were cut short had time for."""
        self._steady = 0
        """For how many answers batches are not to grow."""
        self.count = self._first_count
        """How many keys the next SCAN is to go through."""

    def _go_by(self, limits: Limits) -> None:
        self._limits = limits
        self._most = limits.batch_size
        if limits.max_rate:
            self._most = max(1, min(self._most, int(limits.max_rate / BATCHES_PER_SECOND)))
        share = limits.max_pause * SCRIPT_SHARE
        self.pause = Pause(int(share * 1000), max(SMALLEST_CAPACITY, int(share * BYTES_PER_MS)))
        first_count = min(BATCHES_PER_SCAN * self._most, int(limits.max_pause * SCAN_SHARE * SCANNED_PER_MS))
        self._first_count = max(SMALLEST_COUNT, first_count)

    def limit(self, limits: Limits) -> None:
        """Go by other limits from now on: where they allow less, at once."""
        share = min(1.0, limits.max_pause / self._limits.max_pause)
        self._go_by(limits)
        self.size = max(1, min(self._most, int(self.size * share)))
        self.count = max(SMALLEST_COUNT, int(self.count * share))

    @property
    def whole_key(self) -> int:
        """The most bytes of a key that a script of its own takes in the longest pause."""
        return max(SMALLEST_CAPACITY, int(self._limits.max_pause * BYTES_PER_MS))

    def answered(self, pairs: int, seconds: float) -> None:
        """Learn what a script took for so many pairs, all that was in flight with it included."""
        self._round_trip = min(self._round_trip, seconds)  # no answer comes sooner
        longest, took = self._limits.max_pause / 1000, seconds - self._round_trip
        if took > longest and pairs > 1:
            self.size = max(1, min(self.size, int(pairs * longest / took / 2)))
        elif self._steady:
            self._steady -= 1
        elif took < longest / 2:
            self.size = min(self._most, self.size + 1 + self.size // 10)

    def cut_short(self, pairs: int) -> None:
        """Learn that a script had time for so many pairs of its batch only.

        The others are sent in a call of their own, for which the server has to wait: smaller batches cost less.
        """
        self._cuts.append(pairs)
        if len(self._cuts) == CUTS:
            fitted = max(self._cuts)
            self.size = max(1, min(self.size, fitted - fitted // 10))
            self._cuts.clear()
            self._steady = STEADY_ANSWERS

    def scanned(self, found: int, seconds: float | None, *, waited: bool = True) -> None:
        """Learn how many keys a SCAN found and what it took; None where it was not alone in flight.

        Where nobody `waited` for it, it took so long at most: that can make COUNT larger, not smaller.
        """
        longest = self._limits.max_pause / 1000 * SCAN_SHARE
        wanted = BATCHES_PER_SCAN * self.size
        if seconds is not None:
            self._round_trip = min(self._round_trip, seconds)
        took = None if seconds is None else seconds - self._round_trip
        if took is not None and waited and took > longest:
            self.count = max(SMALLEST_COUNT, int(self.count * longest / took * 0.8))
        elif found > 2 * wanted:
            self.count = max(SMALLEST_COUNT, self.count // 2)
        elif found >= wanted:
            return
        elif took is not None and took < longest / 2:
            self.count = min(LARGEST_COUNT, 2 * self.count)
        elif took is None or not waited:
            # Not known. Among many matches no SCAN is alone, and what made it small may long be over.
            most = max(self.count, self._first_count) if took is None else LARGEST_COUNT
            self.count = min(most, self.count + 1 + self.count // 8)


class Rate:
    """Keys per second, at most, wherever they are."""

    def __init__(self, limits: Limits) -> None:
        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """Go by another rate from now on."""
        self._most = limits.max_rate
        self._due = -math.inf

    def seconds_to_wait(self, clock: Callable[[], float]) -> float:
        """How long until the next batch may be sent."""
        return max(0.0, self._due - clock()) if self._most else 0.0

    def sent(self, pairs: int, clock: Callable[[], float]) -> None:
        """Count what has been sent."""
        if self._most:
            self._due = max(self._due, clock()) + pairs / self._most
