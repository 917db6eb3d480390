"""One way through a plan: scan -> pairs -> script -> words. Run, verify and rollback differ in the script."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from luamigrate import answers, scan, staged
from luamigrate.chunks import Big
from luamigrate.errors import Error, Refused, Stopped, printable
from luamigrate.guards import SECONDS_TO_SLEEP, Guards
from luamigrate.outcome import Batch, KeyOutcome, Reason, Stage, Tally, Word
from luamigrate.pace import WHOLE, Limits, Pace
from luamigrate.revisit import Look, Revisits
from luamigrate.rules import Pairs, Plan, Rule
from luamigrate.scripts import Question, ScriptCall
from luamigrate.servers import Answered, Server, ServerChanged

WARNINGS = 10
"""Of elements that cannot be cut, at most."""


class ByChunks(Protocol):
    """A verb's way with a pair that is too big for its script."""

    def __call__(self, big: Big) -> staged.Steps:
        """Go through it."""


@dataclass(frozen=True, slots=True)
class _Visit:
    """Where in the walk some pairs are looked at."""

    stage: Stage
    scanned: float
    revisits: Revisits
    undecided: dict[bytes, Look] = field(default_factory=dict)
    """Second looks, by source, of which nothing has come yet."""

    def decided(self, pairs: Pairs, reading: answers.Reading) -> dict[bytes, Look]:
        """Take out the second looks that have been answered, but for those that are put aside."""
        if not self.undecided:
            return {}
        aside = {*reading.refused, *(index for index, _, _ in reading.big)}
        sources = [pairs.sources[index] for index in range(reading.answered) if index not in aside]
        return {source: self.undecided.pop(source) for source in sources if source in self.undecided}


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What to ask about which keys, and how gently."""

    server: Server
    plan: Plan
    ask: Question
    by_chunks: ByChunks
    unfinished: frozenset[Word]
    """Words that are looked at again, and reported if they stay."""
    limits: Limits
    pace: Pace
    guards: Guards
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
    uncut: list[bytes] = field(default_factory=list)
    """Sources with an element so large that it was warned of."""
    nonce: str = field(default_factory=partial(secrets.token_hex, 8))
    """Makes the names of staging keys such that no other run uses, and this one, beginning anew, finds its own."""

    def batches(self) -> Iterator[Batch]:
        """Yield what came of each batch, first looks and second looks.

        Where another server process answers in mid-run, the walk begins anew: its cursors are void,
        and it may have lost what had been copied.
        """
        while True:
            revisits = Revisits(self.settle, acts=self.acts)
            try:
                yield from self._once_through(revisits)
            except ServerChanged:
                if self.stage is Stage.EXTRA:
                    raise  # what the walk before it found holds no more either
                self.server.accept_change()
                yield Batch(self.plan[0], self.stage, began_again=True)
                continue
            except (Error, KeyboardInterrupt) as problem:
                yield from self._as_they_stand(revisits)
                if isinstance(problem, Refused):
                    # That is what checks do, before anything is written.
                    raise Error(str(problem)) from None
                raise
            yield from self._as_they_stand(revisits)
            return

    def _once_through(self, revisits: Revisits) -> Iterator[Batch]:
        for rule in self.plan:
            if self.stop():
                break
            yield Batch(rule, self.stage)
            yield from self._scan(rule, revisits)
        while revisits and not self.stop():
            yield from self._look_again(revisits, scanned=1.0)
        self.guards.end()

    def _scan(self, rule: Rule, revisits: Revisits) -> Iterator[Batch]:
        forward = self.stage is Stage.SCAN
        pattern, pairs_of = (rule.source, rule.pairs) if forward else (rule.target, rule.pairs_of_targets)
        under_way: deque[Iterator[Batch]] = deque()
        try:
            for found in scan.batches(self.server, pattern, self.pace, self.stop, self.sample):
                self.guards.hold()
                if self.stop():
                    break
                if not found.keys:
                    yield Batch(rule, self.stage, scanned=found.scanned)
                    continue
                pairs = pairs_of(found.keys)
                under_way.append(self._outcomes(pairs, self._send(pairs), _Visit(self.stage, found.scanned, revisits)))
                if len(under_way) == scan.IN_FLIGHT:
                    yield from under_way.popleft()
                while (revisits.full or (revisits and not revisits.seconds_left)) and not self.stop():
                    yield from self._look_again(revisits)
        except Stopped:
            yield from self._finish(under_way)
            raise
        while under_way:
            yield from under_way.popleft()

    def _finish(self, under_way: deque[Iterator[Batch]]) -> Iterator[Batch]:
        """Count what has been sent, now that a guard has said no: it may say so again, which is known."""
        while under_way:
            with suppress(Stopped):
                yield from under_way.popleft()

    def _send(self, pairs: Pairs) -> ScriptCall:
        self.pace.sent(len(pairs), time.monotonic)
        return self.ask(self.server, pairs, self.pace.pause)

    def _look_again(self, revisits: Revisits, scanned: float = 0.0) -> Iterator[Batch]:
        """Look at some of what is due, or wait a moment."""
        self.guards.hold()
        due = revisits.take(self.pace.size)
        if not due:
            yield Batch(self.plan[-1], Stage.AGAIN, scanned=scanned)
            time.sleep(min(SECONDS_TO_SLEEP, revisits.seconds_left))
            # A server may close a connection on which nothing is heard.
            self.ask(self.server, Pairs(self.plan[-1], [], []), self.pace.pause).reply()
            return
        visit = _Visit(Stage.AGAIN, scanned, revisits, {look.outcome.source: look for look in due})
        outcomes = [look.outcome for look in due]
        names = [outcome.source for outcome in outcomes], [outcome.target for outcome in outcomes]
        pairs = Pairs(due[0].rule, *names, [outcome.digest for outcome in outcomes])
        try:
            yield from self._outcomes(pairs, self._send(pairs), visit)
        finally:
            revisits.put_back(list(visit.undecided.values()))

    def _outcomes(self, pairs: Pairs, call: ScriptCall, visit: _Visit) -> Iterator[Batch]:
        """Wait for a script's answers and count them.

        Pairs for which it had no time are sent again, and so are those for which the server takes no
        writes at present; those that are too big for it are taken apart.
        """
        unclean, first = self.unfinished | {Word.FAILED}, visit.stage is not Stage.AGAIN
        while True:
            replies, seconds = call.answers()
            done = len(replies)
            if call.waited or seconds:
                self.pace.answered(done, call.seconds if call.waited else seconds)
            reading = answers.read(pairs, replies, unclean, every_key=self.every_key, first=first)
            keys = self._count(pairs, reading, visit)
            yield Batch(
                pairs.rule,
                visit.stage,
                reading.tally,
                keys,
                visit.scanned,
                seconds or call.seconds,
                done if call.repeated else 0,
            )
            for index, kind, size in reading.big:
                yield from self._big(pairs.chosen([index]), kind, size, visit)
            if reading.refused:
                self.guards.refused(reading.refusal)
            else:
                self.guards.accepted()
            pairs = pairs.chosen([*reading.refused, *range(done, len(pairs))])
            if not pairs.sources or self.stop():
                return
            call = self.ask(self.server, pairs, self.pace.pause)

    def _big(self, pair: Pairs, kind: str, size: int, visit: _Visit) -> Iterator[Batch]:
        """Take a pair apart that is too big for one script, or take it whole, or say why not."""
        try:
            outcome = yield from self._in_chunks(pair, kind, size, visit)
        except staged.Replaced:
            yield from self._outcomes(pair, self.ask(self.server, pair, self.pace.pause), visit)
            return
        match outcome.reason if outcome else None:
            case Reason.TOO_BIG:
                take_whole = size <= self.pace.whole_key or self.limits.allow_long_pause
            case Reason.BUSY:
                take_whole = self.limits.allow_long_pause
            case _:
                take_whole = False
        if take_whole:
            yield from self._outcomes(pair, self.ask(self.server, pair, WHOLE), visit)
        elif outcome:
            reading = answers.one(outcome, self.unfinished | {Word.FAILED}, every_key=self.every_key)
            keys = self._count(pair, reading, visit)
            yield Batch(pair.rule, visit.stage, reading.tally, keys, visit.scanned)

    def _in_chunks(self, pair: Pairs, kind: str, size: int, visit: _Visit) -> Generator[Batch, None, KeyOutcome | None]:
        big = Big(
            server=self.server,
            source=pair.sources[0],
            target=pair.targets[0],
            kind=kind,
            size=size,
            pause=self.pace.pause,
            digest=pair.digests[0] if pair.digests else b"",
            second_look=bool(pair.digests),
            settle=self.settle,
            stop=self.stop,
            allow_long_pause=self.limits.allow_long_pause,
            nonce=self.nonce,
        )
        largest, longest = 0, 0.0
        while not self.stop():
            steps = self.by_chunks(big)
            try:
                while True:
                    progress = next(steps)
                    largest, longest = max(largest, progress.largest), max(longest, progress.seconds)
                    yield Batch(
                        pair.rule,
                        visit.stage,
                        scanned=visit.scanned,
                        seconds=progress.seconds,
                        big=(big.source, progress.done),
                    )
                    self.guards.hold()
            except StopIteration as end:
                if largest > self.pace.whole_key and len(self.uncut) < WARNINGS:
                    self.uncut.append(big.source)
                    yield Batch(pair.rule, visit.stage, warnings=(_uncut(big.source, largest, longest),))
                outcome: KeyOutcome | None = end.value
                return outcome
            except (Refused, Answered) as refusal:
                if not answers.takes_no_writes(str(refusal)):
                    return big.outcome(Word.FAILED, str(refusal))
                self.guards.refused(str(refusal))
            finally:
                steps.close()
        return None

    def _count(self, pairs: Pairs, reading: answers.Reading, visit: _Visit) -> list[KeyOutcome]:
        """Count what has been decided, and put aside what is to be looked at again; return what is left."""
        tally = reading.tally
        looks = visit.decided(pairs, reading)
        tally.waiting -= len(looks)
        keys = []
        for outcome in reading.outcomes:
            look = looks.get(outcome.source)
            if not look and not outcome.clean:
                tally.measure(outcome.sizes)
            if outcome.word in self.unfinished and visit.revisits.put(pairs.rule, outcome, look):
                tally.waiting += 1
                continue
            if not outcome.clean:
                tally.count(outcome.word, outcome.text)
            fillable = self._would_be_filled(outcome, look)
            tally.fillable += fillable
            keys.append(replace(outcome, fillable=True) if fillable else outcome)
        return keys

    def _would_be_filled(self, outcome: KeyOutcome, before: Look | None) -> bool:
        steady = not self.settle or (before is not None and before.outcome.digest == outcome.digest)
        return self.would_fill and outcome.digest != b"" and steady

    def _as_they_stand(self, revisits: Revisits) -> Iterator[Batch]:
        """Count what waits as its last look found it, because there will be no other."""
        for look in revisits.take_all():
            tally = Tally(waiting=-1)
            tally.count(look.outcome.word, look.outcome.text)
            yield Batch(look.rule, Stage.AGAIN, tally, [look.outcome])


def _uncut(source: bytes, largest: int, longest: float) -> str:
    return (
        f"{printable(source)} has an element of {largest:,} bytes, and one element cannot be cut: a chunk of it held "
        f"the server for {longest * 1000:,.0f} ms"
    )
