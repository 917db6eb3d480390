"""Which sources are known, and whose writes of targets are told. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

_RECENT = 32_768
"""Names that are added or taken out before they are sorted into the arrays."""
_LIMIT = 2**64


class KnownNames:
    """A set of names that takes eight bytes for each: their 64-bit hashes, in sorted arrays.

    Python's hash of bytes depends on a secret of this process, so nobody can choose names that collide.
    """

    def __init__(self) -> None:
        self._arrays: list[array[int]] = []
        self._added: set[int] = set()
        self._removed: set[int] = set()

    def __len__(self) -> int:
        return sum(map(len, self._arrays)) + len(self._added) - len(self._removed)

    def __contains__(self, name: bytes) -> bool:
        if not self.is_used:
            return False
        number = hash(name) % _LIMIT
        return number in self._added or (number not in self._removed and self._is_sorted_in(number))

    @property
    def is_used(self) -> bool:
        """Whether it may have any names."""
        return bool(self._added or self._arrays)

    def add(self, name: bytes) -> None:
        """Add a name."""
        number = hash(name) % _LIMIT
        if number in self._removed:
            self._removed.discard(number)
        elif number not in self._added and not self._is_sorted_in(number):
            self._added.add(number)
            if len(self._added) >= _RECENT:
                self._sort_in()

    def discard(self, name: bytes) -> None:
        """Take a name out."""
        number = hash(name) % _LIMIT
        if number in self._added:
            self._added.discard(number)
        elif self._is_sorted_in(number):
            self._removed.add(number)
            if len(self._removed) >= _RECENT:
                self._arrays = [array("Q", sorted(self._left()))]
                self._removed = set()

    def clear(self) -> None:
        """Take all names out."""
        self._arrays, self._added, self._removed = [], set(), set()

    def _left(self) -> set[int]:
        return {number for each in self._arrays for number in each} - self._removed

    def _is_sorted_in(self, number: int) -> bool:
        for each in self._arrays:
            place = bisect_left(each, number)
            if place < len(each) and each[place] == number:
                return True
        return False

    def _sort_in(self) -> None:
        """Make an array of what was added; join it with those before that are not much longer."""
        latest = array("Q", sorted(self._added))
        self._added = set()
        while self._arrays and len(self._arrays[-1]) < 2 * len(latest):
            latest = array("Q", sorted((*self._arrays.pop(), *latest)))
        self._arrays.append(latest)


@dataclass(slots=True)
class _Writes:
    in_flight: int = 0
    told: int = 0
    """How often the target was told while we did not know yet whether we had written it."""
    owed: int = 0
    """Writes of ours that have not been told yet."""
    barrier: int = 0
    """The one after which all of them have been told."""


class OwnWrites:
    """Tells our own writes of targets from those of others: the server tells one of a turn of its loop, once.

    What is told of a target more often than we have written it was written by somebody else. That somebody writes it
    in the very turn in which we do is not seen.
    """

    def __init__(self) -> None:
        self._writes: dict[bytes, _Writes] = {}
        self._due: deque[tuple[int, bytes]] = deque()

    def __contains__(self, target: bytes) -> bool:
        return target in self._writes

    def sent(self, target: bytes) -> None:
        """Note that a target may be about to be written."""
        writes = self._writes.get(target)
        if writes is None:
            self._writes[target] = _Writes(in_flight=1)
        else:
            writes.in_flight += 1

    def told(self, target: bytes) -> bool:
        """Return whether a target that is told was written by somebody else, as far as that is known yet."""
        writes = self._writes.get(target)
        if not writes:
            return True
        if writes.in_flight:
            writes.told += 1
        else:
            writes.owed -= 1
            self._forget_if_even(target, writes)
        return False

    def answered(self, target: bytes, barrier: int, *, wrote: int) -> bool:
        """Note how often at most we wrote it; all is told once this barrier has passed.

        Return whether others wrote it too.
        """
        writes = self._writes.get(target)
        if writes is None:
            # One that was sent before we listened on this connection is not known.
            writes = self._writes[target] = _Writes(in_flight=1)
        writes.in_flight -= 1
        writes.owed += wrote
        if wrote:
            writes.barrier = barrier
            self._due.append((barrier, target))
        if writes.in_flight:
            return False
        told, writes.told = writes.told, 0
        is_foreign = told > writes.owed
        writes.owed = 0 if is_foreign else writes.owed - told
        self._forget_if_even(target, writes)
        return is_foreign

    def passed(self, barrier: int) -> None:
        """Forget what had to be told by now: two writes in one turn are told as one."""
        while self._due and self._due[0][0] <= barrier:
            _, target = self._due.popleft()
            writes = self._writes.get(target)
            if writes and writes.barrier <= barrier:
                # What was told while the next one was in flight was told of these.
                writes.told -= min(writes.told, writes.owed)
                writes.owed = 0
                self._forget_if_even(target, writes)

    def _forget_if_even(self, target: bytes, writes: _Writes) -> None:
        if not writes.in_flight and writes.owed <= 0:
            del self._writes[target]
