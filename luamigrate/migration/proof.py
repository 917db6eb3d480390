"""The proof before a cut-over: every pair is compared once more, and none may be unequal of which nobody was told."""

from __future__ import annotations

from collections.abc import Collection

from luamigrate.migration.dirty import SEEN
from luamigrate.migration.mirror import WROTE, Result
from luamigrate.model.status import KeyOutcome, Word

_UNEQUAL = WROTE | {Word.FOREIGN, Word.EXTRA}

UNTOLD_CHANGE = "it was not what its source is, though nobody told of a change; it was made so again"


class Proof:
    """Takes what comes of pairs while all of them are compared."""

    def __init__(self, streams: Collection[bytes]) -> None:
        """Take the streams with groups, of whose changes nobody is told."""
        self._streams = streams
        self._told = set[bytes]()
        """Pairs of which a change was told meanwhile."""
        self._doubtful: dict[bytes, tuple[int, KeyOutcome]] = {}
        """Pairs that were unequal, by the barrier after which it is known whether a change was told."""
        self._found = set[bytes]()
        """Pairs that were unequal."""
        self.unequal = 0
        self.is_void = False
        """Whether more may have changed meanwhile than was told."""

    def told(self, source: bytes) -> None:
        """Note that a change of a pair was told."""
        self._told.add(source)

    def only_compares(self, source: bytes, moment: float) -> bool:
        """Tell whether a pair is compared and not made equal: nobody told of it, and it was not found unequal yet."""
        return moment >= SEEN and source not in self._found and source not in self._streams

    def finds(self, result: Result, barrier: int) -> bool:
        """Take what came of a pair; tell whether it was only compared, and has to be made equal now.

        The barrier is the next one to begin.
        """
        pair = result.pair
        if result.word not in _UNEQUAL or not self.only_compares(pair.source, pair.moment):
            return False
        self._found.add(pair.source)
        outcome = KeyOutcome(pair.source, pair.target, Word.DIFFERS, UNTOLD_CHANGE, clean=False)
        self._doubtful[pair.source] = barrier, outcome
        return result.word not in WROTE

    def passed(self, barrier: int) -> list[KeyOutcome]:
        """Return the pairs that were unequal though nobody told, as a barrier that has passed makes known."""
        known = {source: outcome for source, (due, outcome) in self._doubtful.items() if due <= barrier}
        for source in known:
            del self._doubtful[source]
        unequal = [outcome for source, outcome in known.items() if source not in self._told]
        self.unequal += len(unequal)
        return unequal

    @property
    def is_doubtful(self) -> bool:
        """Whether a barrier is to decide about a pair."""
        return bool(self._doubtful)
