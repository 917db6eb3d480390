"""Comparing single pairs at once, one time: without a scan, and without a second look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from luamigrate.migration.around import runner_for
from luamigrate.migration.options import Options
from luamigrate.migration.runner import Runner
from luamigrate.migration.throttle import Throttle
from luamigrate.migration.verbs import Verb
from luamigrate.model.plans import Plan
from luamigrate.model.rules import Rule
from luamigrate.model.status import KeyOutcome, Word
from luamigrate.model.summary import Batch, Tally

WITHOUT_SOURCE = (Word.GONE, Word.IGNORED)


class PairLooker:
    """Looks at pairs by the verbs that compare: that one first, and then the one that finds extra targets, if any."""

    def __init__(self, plan: Plan, verbs: Sequence[Verb], options: Options, throttle: Throttle) -> None:
        self._plan, self._throttle = plan, throttle
        at_once = replace(options, settle=0.0, every_key=True)
        self._runners = [
            runner_for(throttle.deployment, plan, verb, at_once, control=throttle.control, throttle=throttle)
            for verb in verbs
        ]

    def look(self, sources: Iterable[bytes], found: dict[bytes, KeyOutcome]) -> Iterator[Batch]:
        """Add to `found` how the pairs of some sources stand; yield what else is told meanwhile.

        What was asked to stop has not looked at all of them.
        """
        by_rule: dict[Rule, list[bytes]] = {}
        for source in sources:
            if rule := self._plan.rule_for(source):
                by_rule.setdefault(rule, []).append(source)
        comparing, *finding_extra = self._runners
        for rule, names in by_rule.items():
            self._throttle.wait()
            of_these: dict[bytes, KeyOutcome] = {}
            yield from self._asked(comparing, rule, names, of_these)
            for runner in finding_extra:
                targets = [outcome.target for outcome in of_these.values() if outcome.word in WITHOUT_SOURCE]
                yield from self._asked(runner, rule, targets, of_these)
            found |= of_these

    def _asked(self, runner: Runner, rule: Rule, names: list[bytes], found: dict[bytes, KeyOutcome]) -> Iterator[Batch]:
        for batch in runner.ask_about(rule, names):
            found.update((key.source, key) for key in batch.keys)
            yield replace(batch, tally=Tally(), keys=[], shard="")
