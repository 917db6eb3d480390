"""Many patterns by their beginnings, so that nobody has to compare each with each."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

from luamigrate.model.patterns import Pattern


class PatternIndex:
    """Finds the positions of the patterns that match a name, or that overlap with another pattern."""

    def __init__(self, patterns: Sequence[Pattern]) -> None:
        self._patterns = patterns
        self._names: defaultdict[bytes, list[int]] = defaultdict(list)
        self._prefixes: defaultdict[bytes, list[int]] = defaultdict(list)
        for position, pattern in enumerate(patterns):
            (self._prefixes if pattern.varies else self._names)[pattern.prefix].append(position)
        self._lengths = sorted(set(map(len, self._prefixes)))
        self._sorted = sorted((pattern.prefix, position) for position, pattern in enumerate(patterns))

    def matching(self, name: bytes) -> list[int]:
        """Return the positions of the patterns that a name matches, in order."""
        known = self._names.get(name, ())
        return sorted([*known, *(each for each in self._shorter(name) if self._patterns[each].matches(name))])

    def overlapping(self, pattern: Pattern) -> list[int]:
        """Return the positions of the patterns with which another has names in common, in order."""
        if not pattern.varies:
            return self.matching(pattern.prefix)
        prefix = pattern.prefix
        candidates = set(self._shorter(prefix))
        for each in range(bisect_left(self._sorted, (prefix, 0)), len(self._sorted)):
            longer, position = self._sorted[each]
            if not longer.startswith(prefix):
                break
            candidates.add(position)
        return sorted(each for each in candidates if self._patterns[each].overlaps(pattern))

    def _shorter(self, text: bytes) -> list[int]:
        """Return the positions of the patterns that vary and whose prefix is the text, or its beginning."""
        found: list[int] = []
        for length in self._lengths:
            if length > len(text):
                break
            found += self._prefixes.get(text[:length], ())
        return found
