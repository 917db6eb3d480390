"""One way through a plan: scan -> pairs -> script -> words. Run, verify and rollback differ in the script."""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Protocol

from luamigrate.migration import large_keys, scan
from luamigrate.migration.chunks import Big
from luamigrate.migration.recheck import Look, Revisits
from luamigrate.migration.routing import Asked, Dispatch, Part
from luamigrate.migration.throttle import SECONDS_TO_SLEEP, Guards
from luamigrate.model.errors import Error, Refused, printable
from luamigrate.model.limits import WHOLE, Limits, Pause
from luamigrate.model.rules import Pairs, Plan, Rule
from luamigrate.model.status import KeyOutcome, Reason, Stage, Word
from luamigrate.model.summary import Batch, Tally
from luamigrate.scripts import replies
from luamigrate.server.cluster import Cluster, Deployment
from luamigrate.server.errors import Answered, ServerChanged

WARNINGS = 10
"""Of elements that cannot be cut, at most."""

BEGINNINGS = 20
"""Of a walk, at most: a server that is another one each time would have it begin anew for ever."""

UNSTEADY = (
    f"another server process answered {BEGINNINGS} times, and each time everything was begun anew: see why the server "
    "does not stay up, or what stands between, then run again"
)


class ByChunks(Protocol):
    """A verb's way with a pair that is too big for its script."""

    def __call__(self, big: Big) -> large_keys.Steps:
        """Go through it."""


@dataclass(frozen=True, slots=True)
class _Visit:
    """Where in the walk some pairs are looked at."""

    stage: Stage
    scanned: float
    revisits: Revisits
    undecided: dict[bytes, Look] = field(default_factory=dict)
    """Second looks, by source, of which nothing has come yet."""
    replaced: Counter[bytes] = field(default_factory=Counter)
    """How often a source was of another type than had just been answered."""

    def decided(self, pairs: Pairs, reading: replies.Reading) -> dict[bytes, Look]:
        """Take out the second looks that have been answered, but for those that are put aside."""
        if not self.undecided:
            return {}
        aside = {*reading.refused, *reading.moved, *(index for index, _, _ in reading.big)}
        sources = [pairs.sources[index] for index in range(reading.answered) if index not in aside]
        return {source: self.undecided.pop(source) for source in sources if source in self.undecided}


_UnderWay = deque[tuple[Part, Asked, _Visit]]


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What to ask about which keys, and how gently."""

    deployment: Deployment
    plan: Plan
    dispatch: Dispatch
    by_chunks: ByChunks
    unfinished: frozenset[Word]
    """Words that are looked at again, and reported if they stay."""
    possible: frozenset[Word]
    """Words that the script may answer."""
    limits: Limits
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
        for _ in range(BEGINNINGS):
            revisits = Revisits(self.settle, acts=self.acts)
            try:
                yield from self._once_through(revisits)
            except ServerChanged:
                if self.stage is Stage.EXTRA:
                    raise  # what the walk before it found holds no more either
                self.deployment.accept_change()
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
        raise Error(UNSTEADY)

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
        under_way: _UnderWay = deque()
        try:
            yield from self._look_at_all(rule, revisits, under_way)
            yield from self._finish(under_way)
        except ServerChanged:
            raise
        except Error:
            # Count what has been sent, now that a guard has said no, or a node is lost; others may still answer.
            while under_way:
                with suppress(Error):
                    yield from self._outcomes(*under_way.popleft())
            raise

    def _look_at_all(self, rule: Rule, revisits: Revisits, under_way: _UnderWay) -> Iterator[Batch]:
        """Send what is found, and count what comes of it; the last batches are left under way."""
        forward = self.stage is Stage.SCAN
        pattern, pairs_of = (rule.source, rule.pairs) if forward else (rule.target, rule.pairs_of_targets)
        most = scan.IN_FLIGHT * len(self.deployment.primaries)
        for found in scan.everywhere(self.deployment, pattern, self.dispatch.pace, self.stop, self.sample):
            if self.guards.would_hold():
                # What takes several steps is not to be left between two of them.
                yield from self._finish(under_way)
            self.guards.hold()
            if self.stop():
                break
            if found.again or not found.keys:
                yield Batch(rule, self.stage, scanned=found.scanned, again=len(found.keys) if found.again else 0)
            for part in self.dispatch.parts(pairs_of(found.keys), found.keys):
                under_way.append((part, self.dispatch.send(part), _Visit(self.stage, found.scanned, revisits)))
            if len(under_way) >= most:
                yield from self._finish(under_way, but=most - len(self.deployment.primaries))
            while (revisits.full or (revisits and not revisits.seconds_left)) and not self.stop():
                yield from self._look_again(revisits)

    def _finish(self, under_way: _UnderWay, but: int = 0) -> Iterator[Batch]:
        """Count what comes of all batches under way but the last ones.

        What takes several steps takes them all, side by side, before anybody is told of any: whoever is told
        may take his time, and between two steps the application writes.
        """
        count = len(under_way) - but
        group = [asked for _, asked, _ in islice(under_way, count)]
        while sum(asked.advance() for asked in group):
            pass
        for _ in range(count):
            yield from self._outcomes(*under_way.popleft())

    def _look_again(self, revisits: Revisits, scanned: float = 0.0) -> Iterator[Batch]:
        """Look at some of what is due, or wait a moment."""
        self.guards.hold()
        due = revisits.take(self.limits.batch_size)
        if not due:
            yield Batch(self.plan[-1], Stage.AGAIN, scanned=scanned)
            time.sleep(min(SECONDS_TO_SLEEP, revisits.seconds_left))
            for server in self.deployment.primaries:
                server.keep_in_touch()
            return
        visit = _Visit(Stage.AGAIN, scanned, revisits, {look.outcome.source: look for look in due})
        outcomes = [look.outcome for look in due]
        names = [outcome.source for outcome in outcomes], [outcome.target for outcome in outcomes]
        pairs = Pairs(due[0].rule, *names, [outcome.digest for outcome in outcomes])
        try:
            for part, asked in [
                (part, self.dispatch.send(part))
                for part in self.dispatch.parts(pairs, pairs.sources if self.stage is Stage.SCAN else pairs.targets)
            ]:
                yield from self._outcomes(part, asked, visit)
        finally:
            revisits.put_back(list(visit.undecided.values()))

    def _outcomes(self, part: Part, asked: Asked, visit: _Visit, pause: Pause | None = None) -> Iterator[Batch]:
        """Wait for answers about pairs and count them.

        Pairs for which there was no time are sent again, and so are those for which the server takes no
        writes at present; those that are too big are taken apart; those that have moved are followed.
        """
        unclean, first = self.unfinished | {Word.FAILED}, visit.stage is not Stage.AGAIN
        while True:
            answers, seconds = asked.answers()
            done = len(answers)
            if asked.waited or seconds:
                self.dispatch.pace(part.server).answered(done, asked.seconds if asked.waited else seconds)
            if replies.PairReply.PAIRED in answers and self.stage is not Stage.EXTRA:
                raise Error("the script answered 'paired', which is not for it to say")
            reading = replies.read(part.pairs, answers, unclean, every_key=self.every_key, first=first)
            for word in {*reading.tally.counts, *(outcome.word for outcome in reading.outcomes)} - self.possible:
                raise Error(f"the script answered '{word}', which is not for it to say")
            keys = self._count(part.pairs, reading, visit)
            repeated = done if asked.repeated else 0
            yield self._batch(
                part, visit, tally=reading.tally, keys=keys, seconds=seconds or asked.seconds, repeated=repeated
            )
            for index, kind, size in reading.big:
                yield from self._big(part.chosen([index]), kind, size, visit, whole=pause is WHOLE)
            if reading.moved and not isinstance(self.deployment, Cluster):
                raise Error("the server says that a key has moved, and there is no cluster")
            if reading.moved:
                moved = replace(part.chosen(reading.moved), across=True)
                yield from self._outcomes(moved, self.dispatch.send(moved), visit)
            if reading.refused:
                self.guards.refused(reading.refusal)
            else:
                self.guards.accepted()
            part = part.chosen([*reading.refused, *range(done, len(part.pairs))])
            if not part.pairs.sources or self.stop():
                return
            asked = self.dispatch.send(part, pause)

    def _batch(self, part: Part, visit: _Visit, **content: Any) -> Batch:
        shard = part.server.place if isinstance(self.deployment, Cluster) else ""
        return Batch(part.pairs.rule, visit.stage, scanned=visit.scanned, shard=shard, **content)

    def _big(self, part: Part, kind: str, size: int, visit: _Visit, *, whole: bool) -> Iterator[Batch]:
        """Take a pair apart that is too big for one script, or take it whole, or say why not.

        One that was to be taken `whole` cannot be too big.
        """
        if whole:
            raise Error("the script answered 'big' about a key that it was to take whole")
        try:
            outcome = yield from self._in_chunks(part, kind, size, visit)
        except large_keys.Replaced:
            (source,), (target,) = part.pairs.sources, part.pairs.targets
            visit.replaced[source] += 1
            if visit.replaced[source] < large_keys.ATTEMPTS:
                yield from self._outcomes(part, self.dispatch.send(part), visit)
                return
            text = (
                f"busy: it was of another type in each of {large_keys.ATTEMPTS} attempts; try again when it is quieter"
            )
            outcome = KeyOutcome(source, target, Word.FAILED, text)
        match outcome.reason if outcome else None:
            case Reason.TOO_BIG:
                take_whole = size <= self.dispatch.pace(part.server).whole_key or self.limits.allow_long_pause
            case Reason.BUSY:
                take_whole = self.limits.allow_long_pause
            case _:
                take_whole = False
        if take_whole:
            yield from self._outcomes(part, self.dispatch.send(part, WHOLE), visit, WHOLE)
        elif outcome:
            reading = replies.one(outcome, self.unfinished | {Word.FAILED}, every_key=self.every_key)
            keys = self._count(part.pairs, reading, visit)
            yield self._batch(part, visit, tally=reading.tally, keys=keys)

    def _in_chunks(self, part: Part, kind: str, size: int, visit: _Visit) -> Generator[Batch, None, KeyOutcome | None]:
        whole, largest, longest = self.dispatch.pace(part.server).whole_key, 0, 0.0
        deadline = time.monotonic() + self.limits.patience
        while not self.stop():
            big = self._as_big(part, kind, size)
            steps = self.by_chunks(big)
            try:
                while True:
                    progress = next(steps)
                    largest, longest = max(largest, progress.largest), max(longest, progress.seconds)
                    yield self._batch(part, visit, seconds=progress.seconds, big=(big.source, progress.done))
                    self.guards.hold()
            except StopIteration as end:
                if largest > whole and len(self.uncut) < WARNINGS:
                    self.uncut.append(big.source)
                    yield self._batch(part, visit, warnings=(_uncut(big.source, largest, longest),))
                outcome: KeyOutcome | None = end.value
                return outcome
            except (Refused, Answered) as refusal:
                if self.deployment.is_unsettled(refusal) and time.monotonic() < deadline:
                    part = self._follow(part)
                elif replies.takes_no_writes(str(refusal)):
                    self.guards.refused(str(refusal))
                else:
                    return big.outcome(Word.FAILED, str(refusal))
            finally:
                steps.close()
        return None

    def _as_big(self, part: Part, kind: str, size: int) -> Big:
        pair = part.pairs
        return Big(
            server=part.server,
            target_server=self.deployment.holder(pair.targets[0]),
            across=part.across,
            source=pair.sources[0],
            target=pair.targets[0],
            kind=kind,
            size=size,
            pause=self.dispatch.pace(part.server).pause,
            digest=pair.digests[0] if pair.digests else b"",
            second_look=bool(pair.digests),
            settle=self.settle,
            stop=self.stop,
            allow_long_pause=self.limits.allow_long_pause,
            nonce=self.nonce,
        )

    def _follow(self, part: Part) -> Part:
        """Find out where a big key is now: its slot must have come to rest before it can be watched."""
        self.guards.tell("waiting for the cluster: the slot of a big key is being moved")
        time.sleep(SECONDS_TO_SLEEP)
        self.deployment.refresh()
        return replace(part, server=self.deployment.holder(part.pairs.sources[0]))

    def _count(self, pairs: Pairs, reading: replies.Reading, visit: _Visit) -> list[KeyOutcome]:
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
