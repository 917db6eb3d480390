"""Names that have changed and wait until nobody has changed them for a while. Pure but for chance."""

from __future__ import annotations

import heapq
import random
from collections import OrderedDict

TIMES_AS_LONG = 5
"""A name that changes without a pause waits for so many times the time to settle, and no longer."""


class SettlingNames:
    """Names of sources whose pairs are to be compared once they have been quiet for `settle` seconds.

    Those that never are quiet are compared at moments that chance decides: any moment that follows from a
    change would find many an application between its two writes.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._waiting: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        """When each was told first and last, in the order of the last times."""
        self._busy: dict[bytes, float] = {}
        """Names that are not waited for any longer, and when each is due."""
        self._moments: list[tuple[float, bytes]] = []
        """The same as a heap."""

    def __len__(self) -> int:
        return len(self._waiting) + len(self._busy)

    def __contains__(self, name: bytes) -> bool:
        return name in self._waiting or name in self._busy

    def put(self, name: bytes, now: float) -> None:
        """Add a name that has changed now; one that waits goes on waiting for quiet, but not for ever."""
        if name in self._busy:
            return
        first, _ = self._waiting.pop(name, (now, now))
        if self._settle and now - first >= TIMES_AS_LONG * self._settle:
            self.put_busy(name, now)
        else:
            self._waiting[name] = (first, now)

    def put_busy(self, name: bytes, now: float) -> None:
        """Add a name that is to be looked at soon, however often it changes."""
        self._waiting.pop(name, None)
        self._busy[name] = now + self._settle * random.random()  # noqa: S311  # it need not be secret
        heapq.heappush(self._moments, (self._busy[name], name))

    def seconds_left(self, now: float) -> float | None:
        """Return in how many seconds the next one is due; None where none waits."""
        moments = [last + self._settle for _, last in self._first_waiting()] + [due for due, _ in self._moments[:1]]
        return max(0.0, min(moments) - now) if moments else None

    def _first_waiting(self) -> list[tuple[float, float]]:
        return [self._waiting[next(iter(self._waiting))]] if self._waiting else []

    def take_quiet(self, now: float, count: int) -> list[bytes]:
        """Take out names that have been quiet for long enough, at most `count` of them."""
        taken: list[bytes] = []
        while len(taken) < count and any(last + self._settle <= now for _, last in self._first_waiting()):
            taken.append(self._waiting.popitem(last=False)[0])
        return taken

    def take_busy(self, now: float, count: int) -> list[bytes]:
        """Take out names that are due though they are not quiet, at most `count` of them."""
        taken: list[bytes] = []
        while len(taken) < count and self._moments and self._moments[0][0] <= now:
            _, name = heapq.heappop(self._moments)
            del self._busy[name]
            taken.append(name)
        return taken

    def clear(self) -> None:
        """Forget all names."""
        self._waiting.clear()
        self._busy.clear()
        self._moments.clear()
