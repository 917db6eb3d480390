"""Names that have changed and wait to be mirrored, in order and bounded; how long changes took to be mirrored. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from luamigrate.model.following import Lag

MOST_NAMES = 1_000_000
"""Beyond that it is cheaper to scan again than to remember."""

UNTOLD = math.inf
"""The moment of a name that is to be looked at though nobody told that it changed."""
SEEN = math.nextafter(UNTOLD, 0)
"""The same of a source that a scan has seen: it was there."""

_STEPS = 20
"""Steps in which lags are counted, for each doubling."""
_SHORTEST = 1e-6


class DirtyNames:
    """Names of sources whose targets may be something else, each with the moment of the first change that was told.

    Where none was, the moment is SEEN or UNTOLD, which are later than all others.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = MOST_NAMES if most is None else most
        self._moments: dict[bytes, float] = {}
        self._first: dict[bytes, float] = {}
        """Names that were taken and put back: they come before the others."""

    def __len__(self) -> int:
        return len(self._moments) + len(self._first)

    def __contains__(self, name: bytes) -> bool:
        return name in self._moments or name in self._first

    @property
    def is_full(self) -> bool:
        """Whether there are more than may be remembered."""
        return len(self) > self._most

    def told(self) -> Iterator[bytes]:
        """Yield the names that the server told of."""
        waiting = chain(self._first.items(), self._moments.items())
        return (name for name, moment in waiting if moment < SEEN)

    def put(self, name: bytes, moment: float) -> None:
        """Add a name that changed; one that waits keeps its place and its first moment."""
        moments = self._first if name in self._first else self._moments
        known = moments.get(name)
        if known is None or (known >= SEEN and moment < known):
            moments[name] = moment

    def put_back(self, name: bytes, moment: float) -> None:
        """Put back, in front, a name that was taken and not looked at."""
        later = self._moments.pop(name, UNTOLD)
        self._first[name] = min(moment, later, self._first.get(name, UNTOLD))

    def take(self, count: int) -> list[tuple[bytes, float]]:
        """Take out the names that have waited longest, at most `count` of them."""
        taken = _taken(self._first, count) if self._first else []
        return taken + _taken(self._moments, count - len(taken))

    def clear(self) -> None:
        """Forget all names."""
        self._moments.clear()
        self._first.clear()


def _taken(moments: dict[bytes, float], count: int) -> list[tuple[bytes, float]]:
    if len(moments) <= count:
        taken = list(moments.items())
        moments.clear()
        return taken
    names = [name for name, _ in zip(moments, range(count), strict=False)]
    return [(name, moments.pop(name)) for name in names]


class Lags:
    """From when changes were told until they were mirrored, in seconds: counted in steps of some percent."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.worst = 0.0
        self.now = 0.0
        """The last one."""

    def add(self, seconds: float) -> None:
        """Count one."""
        self._counts[round(_STEPS * math.log2(max(seconds, _SHORTEST)))] += 1
        self.now, self.worst = seconds, max(self.worst, seconds)

    @property
    def figures(self) -> Lag:
        """Return what is told of them, in milliseconds."""
        shares = {"now": self.now, "p50": self.quantile(0.5), "p99": self.quantile(0.99), "worst": self.worst}
        return Lag(**{name: round(seconds * 1000, 3) for name, seconds in shares.items()})

    def quantile(self, share: float) -> float:
        """Return what this share of them did not exceed, 0 where there are none."""
        left = share * self._counts.total()
        for step in sorted(self._counts):
            left -= self._counts[step]
            if left <= 0:
                return min(self.worst, math.exp2(step / _STEPS))
        return 0.0
