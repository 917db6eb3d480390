"""The pairs that are known not to be equal, and what becomes of them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from luamigrate.model.errors import Stopped
from luamigrate.model.status import KeyOutcome, Word

MOST_UNEQUAL = 1_000_000
"""More than that is no drift."""


class UnequalPairs:
    """How each pair stands that is not equal; turns the results of comparisons into news."""

    def __init__(self, now: Callable[[], int]) -> None:
        """`now` tells the time that news have, in milliseconds since 1970."""
        self._now = now
        self._words: dict[bytes, Word] = {}
        """How each pair stands that is not equal, by its source."""
        self.counts: Counter[Word] = Counter()
        self.drifted = self.healed = 0

    def __contains__(self, source: bytes) -> bool:
        return source in self._words

    @property
    def sources(self) -> list[bytes]:
        """The sources of all of them."""
        return [*self._words]

    @property
    def failed(self) -> list[bytes]:
        """Sources of pairs that could not be compared."""
        return [source for source, word in self._words.items() if word is Word.FAILED]

    def judged(self, outcome: KeyOutcome) -> KeyOutcome | None:
        """Take what a comparison has found; return it with the time where it is news. Raises Stopped for too many."""
        before = self._words.pop(outcome.source, None)
        if before:
            self.counts[before] -= 1
        if outcome.clean:
            self.healed += before is not None
            return replace(outcome, was=before, moment=self._now()) if before else None
        self._words[outcome.source] = outcome.word
        self.counts[outcome.word] += 1
        self.drifted += before is None
        if len(self._words) > MOST_UNEQUAL:
            raise Stopped(
                f"drift: more than {MOST_UNEQUAL:,} pairs are not equal: compare them once, without --follow, and "
                "make them equal first"
            )
        return replace(outcome, moment=self._now()) if before is not outcome.word else None
