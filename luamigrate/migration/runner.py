"""One verb on its way through a plan: scan -> pairs -> script -> words, and rechecks of what was not clean."""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice

from luamigrate.migration import scan, watch
from luamigrate.migration.chunks import LargePair
from luamigrate.migration.recheck import Recheck, RecheckQueue
from luamigrate.migration.routing import PairsCall, RoutedBatch, Router
from luamigrate.migration.throttle import SECONDS_TO_SLEEP, Throttle
from luamigrate.migration.verb import Verb
from luamigrate.model.control import Control
from luamigrate.model.errors import Error, Refused, printable
from luamigrate.model.limits import WHOLE, Limits
from luamigrate.model.rules import Pairs, Rule
from luamigrate.model.status import KeyOutcome, Reason, Stage, Word
from luamigrate.model.summary import Batch, Tally
from luamigrate.scripts import replies
from luamigrate.scripts.calls import Answer
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered, ServerChanged

WARNINGS = 10
"""The most warnings of elements that cannot be cut."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a verb is carried out, whichever it is."""

    limits: Limits
    settle: float
    """Seconds before what is not clean is looked at a second time; 0 for one look."""
    ignored_checks: frozenset[str]
    """Names of checks and guards that are not to be heard."""
    every_key: bool
    """Whether `Batch.keys` lists all keys, not only those that are not clean."""
    sample: int | None = None
    """How many keys of each rule are looked at, at most."""
    extra: bool = False
    """Whether targets without a source are looked for too."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch that has been sent, and what came of it has not been counted."""

    batch: RoutedBatch
    call: PairsCall
    stage: Stage
    scanned: float
    undecided: dict[bytes, Recheck] = field(default_factory=dict)
    """Rechecks that it belongs to, by source, of which nothing has come yet."""
    replaced: Counter[bytes] = field(default_factory=Counter)
    """How often a source was of another type than had just been answered."""

    def decided(self, reading: replies.Reading) -> dict[bytes, Recheck]:
        """Take out the rechecks that have been answered, but for those that are put aside."""
        if not self.undecided:
            return {}
        aside = {*reading.refused, *reading.moved, *(index for index, _, _ in reading.big)}
        sources = [self.batch.pairs.sources[index] for index in range(reading.answered) if index not in aside]
        return {source: self.undecided.pop(source) for source in sources if source in self.undecided}


def arrived(in_flight: deque[InFlight], *, full: int = 0, but: int = 0) -> Iterator[InFlight]:
    """Once there are `full`, take out all batches but the last ones, when they have taken all steps before the last.

    They take them side by side, before anybody is told of any: whoever is told may take his time, and between
    two steps the application writes.
    """
    count = len(in_flight) - but if len(in_flight) >= full else 0
    calls = [flight.call for flight in islice(in_flight, count)]
    while sum(call.advance() for call in calls):
        pass
    for _ in range(count):
        yield in_flight.popleft()


class Runner:
    """Carries out one verb: its paces, its rechecks, and what comes of each batch."""

    def __init__(
        self, deployment: Deployment, verb: Verb, options: Options, control: Control, throttle: Throttle
    ) -> None:
        self._deployment, self._verb = deployment, verb
        self._options, self._control, self._throttle = options, control, throttle
        self._router = Router(deployment, verb, options.limits, throttle.rate)
        self._rechecks = RecheckQueue(options.settle, acts=verb.acts_on_recheck)
        self._unfinished = verb.unfinished
        self._unclean = self._unfinished | {Word.FAILED}
        self._possible = verb.possible
        self._uncut = 0
        """How many sources with an element that cannot be cut have been warned of."""
        self._nonce = secrets.token_hex(8)
        """Makes the names of staging keys such that no other run uses, and this one, beginning anew, finds its own."""

    def run_rule(self, rule: Rule) -> Iterator[Batch]:
        """Send what the rule matches, batch by batch, and yield what came of each.

        Where a guard says no or a node is lost, what has been sent is counted before that is raised.
        """
        in_flight: deque[InFlight] = deque()
        width = len(self._deployment.primaries)
        if self._control.stop():
            return
        yield Batch(rule, self._verb.stage)
        try:
            for found in self._scan(rule):
                yield from self._hold_back(in_flight)
                if self._control.stop():
                    break
                yield from self._progress(rule, found)
                for batch in self._router.route(self._pairs(rule, found.keys), found.keys):
                    call = batch.ask(batch.server, batch.pairs, batch.pause)
                    in_flight.append(InFlight(batch, call, self._verb.stage, found.scanned))
                for flight in arrived(in_flight, full=scan.IN_FLIGHT * width, but=(scan.IN_FLIGHT - 1) * width):
                    yield from self._collect(flight)
                yield from self._recheck_due()
            for flight in arrived(in_flight):
                yield from self._collect(flight)
        except ServerChanged:
            raise
        except Error:
            yield from self._salvage(in_flight)
            raise

    def finish_rechecks(self) -> Iterator[Batch]:
        """Look at what waits for it, then at the servers once more. Raises ServerChanged, Stopped."""
        while self._rechecks and not self._control.stop():
            yield from self._recheck(scanned=1.0)
        self._throttle.end()
        yield from self.unresolved()

    def unresolved(self) -> Iterator[Batch]:
        """Count what waits for a recheck as its last look found it, because there will be no other."""
        for recheck in self._rechecks.take_all():
            tally = Tally(waiting=-1)
            tally.count(recheck.outcome.word, recheck.outcome.text)
            yield Batch(recheck.rule, Stage.RECHECK, tally, [recheck.outcome])

    def forget(self) -> None:
        """Begin anew: what waits for a recheck was found at a server that is no more."""
        self._rechecks.take_all()

    def _scan(self, rule: Rule) -> Iterator[scan.Found]:
        pattern = rule.source if self._verb.stage is Stage.SCAN else rule.target
        pace = self._router.pace
        return scan.everywhere(self._deployment, pattern, pace, self._control.stop, self._options.sample)

    def _pairs(self, rule: Rule, found: list[bytes]) -> Pairs:
        return rule.pairs(found) if self._verb.stage is Stage.SCAN else rule.pairs_of_targets(found)

    def _progress(self, rule: Rule, found: scan.Found) -> Iterator[Batch]:
        if found.again or not found.keys:
            again = len(found.keys) if found.again else 0
            yield Batch(rule, self._verb.stage, scanned=found.scanned, rescanned=again)

    def _hold_back(self, in_flight: deque[InFlight]) -> Iterator[Batch]:
        """Wait while there is a reason to, having counted what has been sent."""
        if self._throttle.must_wait():
            # What takes several steps is not to be left between two of them.
            for flight in arrived(in_flight):
                yield from self._collect(flight)
        self._throttle.wait()

    def _salvage(self, in_flight: deque[InFlight]) -> Iterator[Batch]:
        """Count what has been sent, now that a guard has said no, or a node is lost; others may still answer."""
        while in_flight:
            with suppress(Error):
                yield from self._collect(in_flight.popleft())

    def _recheck_due(self) -> Iterator[Batch]:
        while self._rechecks.is_due and not self._control.stop():
            yield from self._recheck()

    def _recheck(self, scanned: float = 0.0) -> Iterator[Batch]:
        """Look again at some of what is due, or wait a moment."""
        self._throttle.wait()
        due = self._rechecks.take(self._options.limits.batch_size)
        if not due:
            yield Batch(self._rechecks.first_rule, Stage.RECHECK, scanned=scanned)
            self._rest()
            return
        undecided = {recheck.outcome.source: recheck for recheck in due}
        outcomes = [recheck.outcome for recheck in due]
        names = [outcome.source for outcome in outcomes], [outcome.target for outcome in outcomes]
        pairs = Pairs(due[0].rule, *names, [outcome.lacking for outcome in outcomes])
        try:
            for flight in [
                InFlight(batch, batch.ask(batch.server, batch.pairs, batch.pause), Stage.RECHECK, scanned, undecided)
                for batch in self._router.route(pairs, names[self._verb.stage is not Stage.SCAN])
            ]:
                yield from self._collect(flight)
        finally:
            self._rechecks.put_back(list(undecided.values()))

    def _rest(self) -> None:
        time.sleep(min(SECONDS_TO_SLEEP, self._rechecks.seconds_left))
        for server in self._deployment.primaries:
            server.keep_in_touch()

    def _collect(self, flight: InFlight) -> Iterator[Batch]:
        """Wait for the answers about a batch and count them; see to the pairs that they do not decide.

        Pairs for which there was no time are sent again, and so are those for which the server takes no
        writes at present; those that are too large are taken in chunks; those that have moved are followed.
        """
        while True:
            reading, result = self._read(flight)
            yield result
            for index, kind, size in reading.big:
                yield from self._take_large(replace(flight, batch=flight.batch.chosen([index])), kind, size)
            if reading.moved:
                moved = self._router.rerouted(flight.batch.chosen(reading.moved))
                yield from self._ask_again(replace(flight, batch=moved))
            if reading.refused:
                self._throttle.refused(reading.refusal)
            else:
                self._throttle.accepted()
            left = flight.batch.chosen([*reading.refused, *range(reading.answered, len(flight.batch.pairs))])
            if not left.pairs.sources or self._control.stop():
                return
            flight = replace(flight, batch=left, call=self._router.send_again(left))

    def _ask_again(self, flight: InFlight) -> Iterator[Batch]:
        yield from self._collect(replace(flight, call=self._router.send_again(flight.batch)))

    def _read(self, flight: InFlight) -> tuple[replies.Reading, Batch]:
        """Wait for the answers about a batch, and count what they decide. Raises Error where they make no sense."""
        call, pairs = flight.call, flight.batch.pairs
        answers, seconds = call.answers()
        if call.waited or seconds:
            pace = self._router.pace(flight.batch.server)
            pace.answered(len(answers), call.seconds if call.waited else seconds)
        every_key, first = self._options.every_key, flight.stage is not Stage.RECHECK
        reading = replies.read(pairs, answers, self._unclean, every_key=every_key, first=first)
        self._refuse_impossible(answers, reading)
        keys = self._count(flight, reading)
        repeated = reading.answered if call.repeated else 0
        result = self._batch(flight, reading.tally, keys, seconds=seconds or call.seconds, repeated=repeated)
        return reading, result

    def _refuse_impossible(self, answers: Sequence[Answer], reading: replies.Reading) -> None:
        """Raise Error where a script answers what is not for it to say."""
        strange = {*reading.tally.counts, *(outcome.word for outcome in reading.outcomes)} - self._possible
        word = (
            "paired"
            if replies.PairReply.PAIRED in answers and self._verb.stage is not Stage.EXTRA
            else next(iter(strange), "")
        )
        if word:
            raise Error(f"the script answered '{word}', which is not for it to say")

    def _batch(
        self, flight: InFlight, tally: Tally, keys: list[KeyOutcome], *, seconds: float = 0.0, repeated: int = 0
    ) -> Batch:
        shard = self._deployment.shard(flight.batch.server)
        rule = flight.batch.pairs.rule
        return Batch(rule, flight.stage, tally, keys, flight.scanned, seconds, repeated, shard=shard)

    def _count(self, flight: InFlight, reading: replies.Reading) -> list[KeyOutcome]:
        """Count what has been decided, and put aside what is to be looked at again; return what is left."""
        tally, rule = reading.tally, flight.batch.pairs.rule
        rechecks = flight.decided(reading)
        tally.waiting -= len(rechecks)
        keys = []
        for outcome in reading.outcomes:
            recheck = rechecks.get(outcome.source)
            if not recheck and not outcome.clean:
                tally.measure(outcome.sizes)
            if outcome.word in self._unfinished and self._rechecks.put(rule, outcome, recheck):
                tally.waiting += 1
                continue
            if not outcome.clean:
                tally.count(outcome.word, outcome.text)
            fillable = self._would_be_filled(outcome, recheck)
            tally.fillable += fillable
            keys.append(replace(outcome, fillable=True) if fillable else outcome)
        return keys

    def _would_be_filled(self, outcome: KeyOutcome, before: Recheck | None) -> bool:
        if outcome.lacking is None or not self._verb.tells_fillable:
            return False
        return not self._options.settle or (before is not None and before.outcome.lacking == outcome.lacking)

    def _take_large(self, flight: InFlight, kind: str, size: int) -> Iterator[Batch]:
        """Take a pair in chunks that is too large for one script, or take it whole, or say why not."""
        if flight.batch.pause is WHOLE:
            raise Error("the script answered 'big' about a key that it was to take whole")
        try:
            outcome = yield from self._in_chunks(flight, kind, size)
        except watch.Replaced:
            (source,), (target,) = flight.batch.pairs.sources, flight.batch.pairs.targets
            flight.replaced[source] += 1
            if flight.replaced[source] < watch.ATTEMPTS:
                yield from self._ask_again(flight)
                return
            text = f"busy: it was of another type in each of {watch.ATTEMPTS} attempts; try again when it is quieter"
            outcome = KeyOutcome(source, target, Word.FAILED, text)
        if outcome and self._may_take_whole(flight, outcome, size):
            yield from self._ask_again(replace(flight, batch=replace(flight.batch, pause=WHOLE)))
        elif outcome:
            reading = replies.one(outcome, self._unclean, every_key=self._options.every_key)
            keys = self._count(flight, reading)
            yield self._batch(flight, reading.tally, keys)

    def _may_take_whole(self, flight: InFlight, outcome: KeyOutcome, size: int) -> bool:
        match outcome.reason:
            case Reason.TOO_BIG:
                fits = size <= self._router.pace(flight.batch.server).whole_key
                return fits or self._options.limits.allow_long_pause
            case Reason.BUSY:
                return self._options.limits.allow_long_pause
            case _:
                return False

    def _in_chunks(self, flight: InFlight, kind: str, size: int) -> Generator[Batch, None, KeyOutcome | None]:
        """Take a pair in chunks until that succeeds; return None where the work is to end first."""
        deadline = time.monotonic() + self._options.limits.patience
        while not self._control.stop():
            pair = self._large_pair(flight.batch, kind, size)
            try:
                return (yield from self._chunks(flight, pair))
            except (Refused, Answered) as refusal:
                if self._deployment.is_unsettled(refusal) and time.monotonic() < deadline:
                    flight = self._follow(flight)
                elif replies.takes_no_writes(str(refusal)):
                    self._throttle.refused(str(refusal))
                else:
                    return pair.outcome(Word.FAILED, str(refusal))
        return None

    def _chunks(self, flight: InFlight, pair: LargePair) -> Generator[Batch, None, KeyOutcome | None]:
        largest, longest = 0, 0.0
        steps = self._verb.large(pair)
        try:
            while True:
                progress = next(steps)
                largest, longest = max(largest, progress.largest), max(longest, progress.seconds)
                batch = self._batch(flight, Tally(), [], seconds=progress.seconds)
                yield replace(batch, large=(pair.source, progress.done))
                self._throttle.wait()
        except StopIteration as end:
            if largest > self._router.pace(flight.batch.server).whole_key and self._uncut < WARNINGS:
                self._uncut += 1
                warning = _uncut(pair.source, largest, longest)
                yield replace(self._batch(flight, Tally(), []), warnings=(warning,))
            outcome: KeyOutcome | None = end.value
            return outcome
        finally:
            steps.close()

    def _large_pair(self, batch: RoutedBatch, kind: str, size: int) -> LargePair:
        pair = batch.pairs
        return LargePair(
            server=batch.server,
            target_server=self._deployment.node_for(pair.targets[0]),
            cross_slot=batch.cross_slot,
            source=pair.sources[0],
            target=pair.targets[0],
            kind=kind,
            size=size,
            pause=batch.pause,
            lacking=pair.lacking[0] if pair.lacking else None,
            is_recheck=bool(pair.lacking),
            settle=self._options.settle,
            control=self._control,
            allow_long_pause=self._options.limits.allow_long_pause,
            nonce=self._nonce,
        )

    def _follow(self, flight: InFlight) -> InFlight:
        """Find out where a large key is now: its slot must have come to rest before it can be watched."""
        self._control.tell("waiting for the cluster: the slot of a big key is being moved")
        time.sleep(SECONDS_TO_SLEEP)
        self._deployment.refresh()
        server = self._deployment.node_for(flight.batch.pairs.sources[0])
        return replace(flight, batch=replace(flight.batch, server=server))


def _uncut(source: bytes, largest: int, longest: float) -> str:
    return (
        f"{printable(source)} has an element of {largest:,} bytes, and one element cannot be cut: a chunk of it held "
        f"the server for {longest * 1000:,.0f} ms"
    )
