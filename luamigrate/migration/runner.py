"""One verb carried out on a plan: scan -> pairs -> script -> words, and rechecks of what was not clean."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import replace

from luamigrate.migration import scan, watch
from luamigrate.migration.in_flight import InFlight, arrived
from luamigrate.migration.large_keys import LargeKeys
from luamigrate.migration.options import Options
from luamigrate.migration.recheck import Recheck, RecheckQueue
from luamigrate.migration.routing import Router
from luamigrate.migration.throttle import SECONDS_TO_SLEEP, Throttle
from luamigrate.migration.verbs import Verb
from luamigrate.model.control import Control
from luamigrate.model.errors import Error
from luamigrate.model.limits import WHOLE
from luamigrate.model.plans import Plan
from luamigrate.model.rules import Pairs, Rule
from luamigrate.model.status import KeyOutcome, Stage, Word
from luamigrate.model.summary import Batch, Tally
from luamigrate.scripts.calls import Answer
from luamigrate.scripts.replies import PairReader, Reading
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import ServerChanged


class Runner:
    """Carries out one verb: its paces, its rechecks, and what comes of each batch."""

    def __init__(
        self, deployment: Deployment, plan: Plan, verb: Verb, options: Options, *, control: Control, throttle: Throttle
    ) -> None:
        self._deployment, self._plan, self._verb = deployment, plan, verb
        self._options, self._control, self._throttle = options, control, throttle
        self._router = Router(deployment, verb, options.limits, throttle.rate)
        self._rechecks = RecheckQueue(options.settle, acts=verb.acts_on_recheck)
        self._unfinished = verb.unfinished
        self._reader = PairReader(
            possible=verb.possible,
            unclean=self._unfinished | {Word.FAILED},
            every_key=options.every_key,
            finds_extra=verb.stage is Stage.EXTRA,
        )
        self._large_keys = LargeKeys(verb, options, control, throttle, self._router)

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
                yield from self._wait_if_needed(in_flight)
                if self._control.stop():
                    break
                yield from self._progress(rule, found)
                pairs = yield from self._pairs(rule, found)
                names = pairs.sources if self._verb.stage is Stage.SCAN else pairs.targets
                for batch in self._router.route(pairs, names):
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

    def ask_about(self, rule: Rule, names: list[bytes]) -> Iterator[Batch]:
        """Send some sources of a rule, or of a search for extra targets some targets; yield what came of them."""
        pairs = yield from self._pairs(rule, scan.Found(self._deployment.primaries[0], names, 0.0))
        for flight in self._sent(pairs):
            yield from self._collect(flight)

    def finish_rechecks(self) -> Iterator[Batch]:
        """Recheck what waits for it, then check the servers once more. Raises ServerChanged, Stopped."""
        while self._rechecks and not self._control.stop():
            yield from self._recheck(scanned=1.0)
        self._throttle.end()
        yield from self.unresolved()

    def unresolved(self) -> Iterator[Batch]:
        """Count what waits for a recheck as its last check found it, because there will be no other."""
        for recheck in self._rechecks.take_all():
            tally = Tally(waiting=-1)
            tally.count_key(recheck.outcome)
            yield Batch(recheck.rule, Stage.RECHECK, tally, [recheck.outcome])

    def forget(self) -> None:
        """Drop what waits for a recheck: it was found at a server that is no more."""
        self._rechecks.take_all()

    def _scan(self, rule: Rule) -> Iterator[scan.Found]:
        if self._verb.stage is Stage.SCAN:
            wanted = scan.Names(rule.source, self._plan.choosing_sources(rule), rule.source_names)
        else:
            wanted = scan.Names(rule.target, self._plan.choosing_targets(rule), rule.target_names, rule.database)
        pace = self._router.pace
        return scan.everywhere(self._deployment, wanted, pace, self._control.stop, self._options.sample)

    def _pairs(self, rule: Rule, found: scan.Found) -> Generator[Batch, None, Pairs]:
        """Return the pairs of what was found, and count as failed those that must never be written."""
        if self._verb.stage is not Stage.SCAN:
            return rule.pairs_of_targets(found.keys)
        pairs, refused = self._plan.pairs(rule, found.keys)
        if refused:
            tally = Tally()
            for key in refused:
                tally.count_key(key)
            shard = self._deployment.shard(found.server)
            yield Batch(rule, self._verb.stage, tally, refused, scanned=found.scanned, shard=shard)
        return pairs

    def _progress(self, rule: Rule, found: scan.Found) -> Iterator[Batch]:
        if found.again or not found.keys:
            again = len(found.keys) if found.again else 0
            yield Batch(rule, self._verb.stage, scanned=found.scanned, rescanned=again)

    def _wait_if_needed(self, in_flight: deque[InFlight]) -> Iterator[Batch]:
        """Wait while there is a reason to, having counted what has been sent."""
        if self._throttle.must_wait():
            # What takes several steps is not to be left between two of them.
            for flight in arrived(in_flight):
                yield from self._collect(flight)
        self._wait()

    def _wait(self) -> None:
        """Wait while there is a reason to, and go by the limits that hold then."""
        self._throttle.wait()
        self._router.limit(self._throttle.limits)

    def _salvage(self, in_flight: deque[InFlight]) -> Iterator[Batch]:
        """Count what has been sent, now that a guard has said no, or a node is lost; others may still answer."""
        while in_flight:
            with suppress(Error):
                yield from self._collect(in_flight.popleft())

    def _recheck_due(self) -> Iterator[Batch]:
        while self._rechecks.is_due and not self._control.stop():
            yield from self._recheck()

    def _recheck(self, scanned: float = 0.0) -> Iterator[Batch]:
        """Recheck some of what is due, or wait a moment."""
        self._wait()
        due = self._rechecks.take(self._options.limits.batch_size)
        if not due:
            yield Batch(self._rechecks.first_rule, Stage.RECHECK, scanned=scanned)
            self._throttle.rest(min(SECONDS_TO_SLEEP, self._rechecks.seconds_left))
            return
        undecided = {recheck.outcome.source: recheck for recheck in due}
        outcomes = [recheck.outcome for recheck in due]
        names = [outcome.source for outcome in outcomes], [outcome.target for outcome in outcomes]
        pairs = Pairs(due[0].rule, *names, [outcome.lacking for outcome in outcomes])
        try:
            for flight in self._sent(pairs, scanned, undecided):
                yield from self._collect(flight)
        finally:
            self._rechecks.put_back(list(undecided.values()))

    def _sent(
        self, pairs: Pairs, scanned: float = 0.0, undecided: dict[bytes, Recheck] | None = None
    ) -> list[InFlight]:
        """Send pairs that no scan has just found."""
        names = pairs.sources if self._verb.stage is Stage.SCAN else pairs.targets
        return [
            InFlight(batch, batch.ask(batch.server, batch.pairs, batch.pause), Stage.RECHECK, scanned, undecided or {})
            for batch in self._router.route(pairs, names)
        ]

    def _collect(self, flight: InFlight) -> Iterator[Batch]:
        """Wait for the answers about a batch and count them; see to the pairs that they do not decide.

        Pairs for which there was no time are sent again, and so are those for which the server takes no
        writes at present; those that are too large are taken in chunks; those that have moved are followed.
        """
        while True:
            answers, seconds = self._answers(flight)
            first = flight.stage is not Stage.RECHECK
            reading = self._reader.read(flight.batch.pairs, answers, first=first)
            repeated = len(answers) if flight.call.repeated else 0
            yield replace(
                flight.news,
                tally=reading.tally,
                keys=self._undecided(flight, reading),
                seconds=seconds,
                repeated=repeated,
            )
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

    def _answers(self, flight: InFlight) -> tuple[list[Answer], float]:
        """Wait for the answers about a batch, and learn from the time; return them and the seconds that it took."""
        call = flight.call
        answers, seconds = call.answers()
        if call.waited or seconds:
            pace = self._router.pace(flight.batch.server)
            pace.answered(len(answers), call.seconds if call.waited else seconds)
            if len(answers) < len(flight.batch.pairs):
                pace.cut_short(len(answers))
        return answers, seconds or call.seconds

    def _undecided(self, flight: InFlight, reading: Reading) -> list[KeyOutcome]:
        """Queue the pairs that are to be checked again, and count the others; return these with what is to be told."""
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
                tally.count_key(outcome)
            fillable = self._would_be_filled(outcome, recheck)
            tally.fillable += fillable
            keys.append(replace(outcome, fillable=True) if fillable else outcome)
        return keys

    def _would_be_filled(self, outcome: KeyOutcome, before: Recheck | None) -> bool:
        if outcome.lacking is None or not (self._verb.dry_run and self._verb.fills):
            return False
        return not self._options.settle or (before is not None and before.outcome.lacking == outcome.lacking)

    def _take_large(self, flight: InFlight, kind: str, size: int) -> Iterator[Batch]:
        """Take a pair in chunks that is too large for one script, or take it whole, or say why not."""
        if flight.batch.pause is WHOLE:
            raise Error("the script answered 'big' about a key that it was to take whole")
        try:
            outcome = yield from self._large_keys.outcome(flight, kind, size)
        except watch.Replaced:
            (source,), (target,) = flight.batch.pairs.sources, flight.batch.pairs.targets
            flight.replaced[source] += 1
            if flight.replaced[source] < watch.ATTEMPTS:
                yield from self._ask_again(flight)
                return
            text = f"busy: it was of another type in each of {watch.ATTEMPTS} attempts; try again when it is quieter"
            outcome = KeyOutcome(source, target, Word.FAILED, text)
        if outcome and self._large_keys.may_be_taken_whole(flight, outcome, size):
            yield from self._ask_again(replace(flight, batch=replace(flight.batch, pause=WHOLE)))
        elif outcome:
            reading = self._reader.one(outcome)
            yield replace(flight.news, tally=reading.tally, keys=self._undecided(flight, reading))
