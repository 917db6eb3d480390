"""One way through a plan: scan -> pairs -> script -> words. Run, verify and rollback differ in the script."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from luamigrate import answers, scan
from luamigrate.errors import Error, Refused
from luamigrate.outcome import Batch, KeyOutcome, Stage, Tally, Word
from luamigrate.revisit import Look, Revisits
from luamigrate.rules import Pairs, Plan, Rule
from luamigrate.scripts import Question, ScriptCall
from luamigrate.servers import Server

SECONDS_TO_SLEEP = 0.1
"""At once, so that a wish to stop is heard."""


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What to ask about which keys."""

    server: Server
    plan: Plan
    ask: Question
    unfinished: frozenset[Word]
    """Words that are looked at again, and reported if they stay."""
    batch_size: int
    settle: float
    """Seconds before the second look; 0 for none."""
    every_key: bool
    stop: Callable[[], bool]
    stage: Stage = Stage.SCAN
    """SCAN goes from sources to their targets, EXTRA from targets to their sources."""
    sample: int | None = None
    """How many keys of a rule are looked at, at most."""
    acts: bool = False
    """Whether the script acts at a second look on what the first one found missing: copies it, or fills it in."""
    would_fill: bool = False
    """Whether what could be filled is counted as what a run would fill."""

    def batches(self) -> Iterator[Batch]:
        """Yield what came of each batch, first looks and second looks."""
        revisits = Revisits(self.settle, acts=self.acts)
        try:
            for rule in self.plan:
                if self.stop():
                    break
                yield Batch(rule, self.stage)
                yield from self._scan(rule, revisits)
            while revisits and not self.stop():
                yield from self._look_again(revisits, scanned=1.0)
        except (Error, KeyboardInterrupt) as problem:
            yield from self._as_they_stand(revisits)
            if isinstance(problem, Refused):
                # That is what checks do, before anything is written.
                raise Error(str(problem)) from None
            raise
        yield from self._as_they_stand(revisits)

    def _scan(self, rule: Rule, revisits: Revisits) -> Iterator[Batch]:
        forward = self.stage is Stage.SCAN
        pattern, pairs_of = (rule.source, rule.pairs) if forward else (rule.target, rule.pairs_of_targets)
        under_way: deque[Callable[[], Batch]] = deque()
        for found in scan.batches(self.server, pattern, self.batch_size, self.stop, self.sample):
            if not found.keys:
                yield Batch(rule, self.stage, scanned=found.scanned)
                continue
            pairs = pairs_of(found.keys)
            call = self.ask(self.server, pairs)
            under_way.append(partial(self._outcome, pairs, call, revisits, stage=self.stage, scanned=found.scanned))
            if len(under_way) == scan.IN_FLIGHT:
                yield under_way.popleft()()
            while (revisits.full or (revisits and not revisits.seconds_left)) and not self.stop():
                yield from self._look_again(revisits)
        while under_way:
            yield under_way.popleft()()

    def _look_again(self, revisits: Revisits, scanned: float = 0.0) -> Iterator[Batch]:
        """Look at some of what is due, or wait a moment."""
        due = revisits.take(self.batch_size)
        if not due:
            yield Batch(self.plan[-1], Stage.AGAIN, scanned=scanned)
            time.sleep(min(SECONDS_TO_SLEEP, revisits.seconds_left))
            # A server may close a connection on which nothing is heard.
            self.ask(self.server, Pairs(self.plan[-1], [], [])).answer()
            return
        outcomes = [look.outcome for look in due]
        names = [outcome.source for outcome in outcomes], [outcome.target for outcome in outcomes]
        pairs = Pairs(due[0].rule, *names, [outcome.digest for outcome in outcomes])
        try:
            batch = self._outcome(
                pairs, self.ask(self.server, pairs), revisits, before=due, stage=Stage.AGAIN, scanned=scanned
            )
        except (Error, KeyboardInterrupt):
            revisits.put_back(due)
            raise
        yield batch

    def _outcome(
        self,
        pairs: Pairs,
        call: ScriptCall,
        revisits: Revisits,
        *,
        stage: Stage,
        scanned: float,
        before: Sequence[Look] = (),
    ) -> Batch:
        """Wait for a script's answers, count them, and put aside what is to be looked at again."""
        unclean = self.unfinished | {Word.FAILED}
        tally, outcomes = answers.read(pairs, call.answer(), unclean, every_key=self.every_key, first=not before)
        looks = {look.outcome.source: look for look in before}
        tally.waiting -= len(before)
        keys = []
        for outcome in outcomes:
            look = looks.get(outcome.source)
            if not look and not outcome.clean:
                tally.measure(outcome.sizes)
            if outcome.word in self.unfinished and revisits.put(pairs.rule, outcome, look):
                tally.waiting += 1
                continue
            if not outcome.clean:
                tally.count(outcome.word, outcome.text)
            fillable = self._would_be_filled(outcome, look)
            tally.fillable += fillable
            keys.append(replace(outcome, fillable=True) if fillable else outcome)
        return Batch(pairs.rule, stage, tally, keys, scanned, call.seconds)

    def _would_be_filled(self, outcome: KeyOutcome, before: Look | None) -> bool:
        steady = not self.settle or (before is not None and before.outcome.digest == outcome.digest)
        return self.would_fill and outcome.digest != b"" and steady

    def _as_they_stand(self, revisits: Revisits) -> Iterator[Batch]:
        """Count what waits as its last look found it, because there will be no other."""
        for look in revisits.take_all():
            tally = Tally(waiting=-1)
            tally.count(look.outcome.word, look.outcome.text)
            yield Batch(look.rule, Stage.AGAIN, tally, [look.outcome])
