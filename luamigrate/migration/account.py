"""What a follow has done, and what of it has not been told yet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from luamigrate.migration.dirty import SEEN, Lags
from luamigrate.migration.mirror import Result
from luamigrate.model.following import Rescan
from luamigrate.model.plans import Plan
from luamigrate.model.rules import Rule
from luamigrate.model.status import KeyOutcome, Word
from luamigrate.model.summary import Tally

SECONDS_TO_TELL = 0.2
"""Between two batches that tell figures alone."""


class Account:
    """Counts what came of pairs, and keeps the news until somebody asks for them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.rescans: Counter[Rescan] = Counter()
        self.lags = Lags()
        self.copies = self.removed = 0
        self.longest = 0.0
        """Seconds for which the longest script held the server."""
        self._tallies: dict[Rule, Tally] = {}
        self._news: list[tuple[Rule, KeyOutcome]] = []
        self._told = 0.0

    def count(self, result: Result, now: float, *, is_first: bool) -> None:
        """Count what came of a pair, now by `perf_counter`; if it is the first that did, for its rule too."""
        pair, word = result.pair, result.word
        self.copies += word is Word.COPIED
        self.removed += word is Word.REMOVED
        if pair.moment < SEEN:
            self.lags.add(now - pair.moment)
        if is_first:
            self._tallies.setdefault(pair.rule, Tally()).count(word, result.text)

    def note(self, outcomes: Iterable[KeyOutcome]) -> None:
        """Keep some news."""
        self._news += [(self._plan.rule_for(outcome.source) or self._plan[0], outcome) for outcome in outcomes]

    def is_due(self, *, at_once: bool) -> bool:
        """Tell whether something is to be told: news, what is to be told `at_once`, or the figures after a while."""
        return bool(self._news) or at_once or time.monotonic() - self._told >= SECONDS_TO_TELL

    def taken(self) -> Iterable[tuple[Rule, Tally, list[KeyOutcome]]]:
        """Return what has been counted and noted since the last time by rule: that of one rule at least."""
        self._told = time.monotonic()
        keys: dict[Rule, list[KeyOutcome]] = {}
        for rule, outcome in self._news:
            keys.setdefault(rule, []).append(outcome)
        tallies, self._tallies, self._news = self._tallies, {}, []
        rules = {**keys, **tallies, self._plan[0]: None}
        return [(rule, tallies.get(rule) or Tally(), keys.get(rule, [])) for rule in rules]
