"""A comparison that goes on: everything once, and then whatever changes, once it has been quiet for a while."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import IntEnum
from itertools import chain

from luamigrate.migration.account import SECONDS_TO_TELL
from luamigrate.migration.around import check, covered, runner_for
from luamigrate.migration.both_sides import BothSides
from luamigrate.migration.direction import Direction
from luamigrate.migration.dirty import MOST_NAMES
from luamigrate.migration.listening import Listening
from luamigrate.migration.options import Options
from luamigrate.migration.pace import Pace
from luamigrate.migration.pair_looker import PairLooker
from luamigrate.migration.runner import Runner
from luamigrate.migration.server_clock import ServerClock
from luamigrate.migration.settling import SettlingNames
from luamigrate.migration.throttle import SECONDS_TO_SLEEP, Throttle
from luamigrate.migration.unequal import UnequalPairs
from luamigrate.migration.verbs import Compare, FindExtra, Verb
from luamigrate.model.control import Control
from luamigrate.model.drift import Drift
from luamigrate.model.errors import Error, Refused, UsageError
from luamigrate.model.following import Rescan
from luamigrate.model.plans import Plan
from luamigrate.model.rules import Rule
from luamigrate.model.status import KeyOutcome, Stage
from luamigrate.model.summary import Batch
from luamigrate.server.connection import Connection, ReconnectPolicy
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered, ConnectionLost, ServerChanged
from luamigrate.server.listener import wait_for

SECONDS_TO_TEND = 1.0
"""Between two times that the servers are confirmed, and moved slots looked for."""
SECONDS_TO_RETRY = 60.0
"""Between two times that pairs are tried again that could not be compared, and the server is asked for its time."""
SECONDS_TO_GATHER = 0.002
"""Names that are told in this time are taken together: waking for each would cost more than sorting it."""


class Look(IntEnum):
    """What has found a pair not to be equal; the value is how many such looks one after the other decide."""

    LAST = 1
    """The last one of a comparison of everything, which looks at pairs twice."""
    QUIET = 2
    """Nobody had written for the time to settle: so an expiry that is only told late decides nothing."""
    BUSY = 10
    """Somebody writes again and again."""


def watch(deployment: Deployment, plan: Plan, verb: Compare, options: Options, control: Control) -> Iterator[Batch]:
    """Check, listen, compare everything, and go on until somebody asks to stop. Raises as `verify` does."""
    if options.sample:
        raise UsageError("a comparison that goes on is of all pairs: it excludes a sample")
    return _watched(deployment, plan, verb, options, control)


def _watched(deployment: Deployment, plan: Plan, verb: Compare, options: Options, control: Control) -> Iterator[Batch]:
    plan = plan.from_database(deployment.database)
    deployment.reconnect_by(ReconnectPolicy(patience=options.limits.patience, control=control))
    yield from check(deployment, plan, verb, options)
    watcher = DriftWatcher(deployment, plan, verb, options, control)
    try:
        yield from watcher.batches()
    except Refused as problem:
        # That is what checks do.
        raise Error(str(problem)) from None
    finally:
        watcher.close()


class ToldPairs(Listening):
    """Collects the sources of pairs of which either name has changed; `told` counts changes of both."""

    def __init__(self, deployment: Deployment, plan: Plan, names: SettlingNames) -> None:
        super().__init__(deployment, plan)
        self._names = names

    def _sort(self, name: bytes, now: float) -> None:
        sources = self.sources_of((name,))
        self.told += bool(sources)
        for source in sources:
            self._names.put(source, now)


class DriftWatcher:
    """Compares pairs whenever they change; `batches` is the whole of it."""

    def __init__(self, deployment: Deployment, plan: Plan, verb: Compare, options: Options, control: Control) -> None:
        """Register for both sides. Raises Refused where a server does not tell this user, Error."""
        self._deployment, self._plan, self._options, self._control = deployment, plan, options, control
        self._names = SettlingNames(options.settle)
        self._clock = ServerClock(deployment)
        self._unequal = UnequalPairs(self._clock.now)
        self._doubts: Counter[bytes] = Counter()
        """By how many looks one after the other pairs were found not to be equal that are to be looked at again."""
        self._heeding = Control(stop=self._hears_stop, paused=control.paused, tell=control.tell)
        self._throttle = Throttle(
            deployment=deployment,
            limits=options.limits,
            verb=verb,
            ignored=options.ignored_checks,
            control=self._heeding,
        )
        self._verbs: list[Verb] = [verb, FindExtra()] if options.extra else [verb]
        self._looker = PairLooker(plan, self._verbs, options, self._throttle)
        self._both_sides = BothSides(
            deployment, Direction(plan, deployment.database), self._pace_of, self._heeding.stop
        )
        self._paces: dict[Connection, Pace] = {}
        self._everything: Iterator[Batch] | None = None
        """The comparison of everything that is under way."""
        self._runner_at_work: Runner | None = None
        self._others: Iterator[list[bytes]] | None = None
        """Sources of pairs that are to be looked at though nobody has told that they changed."""
        self._again: Rescan | None = None
        """Why everything is to be compared again, after what is under way."""
        self._lost: Rescan | None = None
        """Why it is to listen again."""
        self._is_complete = False
        self._comparisons = self._compared = 0
        self._rescans: Counter[Rescan] = Counter()
        self._longest = 0.0
        self._shown = self._tended = 0.0
        self._retried = time.monotonic()
        # The last of all, so that no connection is left where anything else fails.
        self._told = ToldPairs(deployment, plan, self._names)

    def batches(self) -> Iterator[Batch]:
        """Yield what is found, and several times a second how it stands. Raises Error, Stopped."""
        try:
            while not self._control.stop():
                yield from self._round()
        except (Error, KeyboardInterrupt):
            yield from self._runner_at_work.unresolved() if self._runner_at_work else ()
            yield self._figures_alone()
            raise
        yield self._figures_alone()

    def close(self) -> None:
        """Stop listening."""
        self._told.close()

    def _round(self) -> Iterator[Batch]:
        """Take one step of each kind; note where a server was lost, or is another one."""
        try:
            if self._lost:
                self._mend(self._lost)
            yield from self._turn()
        except ServerChanged:
            self._drop(Rescan.OTHER_SERVER)
        except Answered as problem:
            if not self._deployment.is_unsettled(problem):
                raise
            self._drop(Rescan.MOVED)
        except ConnectionLost:
            if self._lost and any(server.is_lost for server in self._deployment.primaries):
                raise
            self._drop(self._lost or Rescan.LOST)

    def _turn(self) -> Iterator[Batch]:
        self._hear()
        if not self._everything and (self._again or not self._comparisons):
            yield self._begin(self._again)
        if self._everything:
            yield from self._go_on_comparing(self._everything)
        yield from self._look_at_others()
        yield from self._look_at_due()
        self._tend()
        self._wait()
        if time.monotonic() - self._shown >= SECONDS_TO_TELL:
            yield self._figures_alone()

    def _hears_stop(self) -> bool:
        """Tell whether to stop; and listen, because whoever asks may be at work or wait for long."""
        self._hear()
        return self._control.stop()

    def _hear(self) -> None:
        """Take what has been told, and note where not all of it can be known."""
        if self._lost:
            return
        try:
            self._told.hear()
        except ConnectionLost:
            self._lost = Rescan.LOST
        if self._told.was_emptied:
            self._told.was_emptied = False
            self._miss(Rescan.EMPTIED)
        if len(self._names) > MOST_NAMES:
            self._names.clear()
            self._doubts.clear()
            self._miss(Rescan.TOO_MANY)

    def _miss(self, why: Rescan) -> None:
        """Have everything compared again, after the comparison that is under way."""
        self._again, self._is_complete = self._again or why, False

    def _drop(self, why: Rescan) -> None:
        """Give up what is under way: the server that was asked is not there any more."""
        self._everything = self._runner_at_work = self._others = None
        self._lost, self._is_complete = why, False

    def _mend(self, lost: Rescan) -> None:
        """Listen again, and have everything compared."""
        self._is_complete = False
        if lost is Rescan.MOVED:
            time.sleep(SECONDS_TO_SLEEP)
            self._deployment.refresh()
        if lost is Rescan.OTHER_SERVER:
            self._deployment.accept_change()
        self._told.listen_again(self._options.limits.patience, self._control)
        self._lost = None
        self._miss(lost)

    def _begin(self, why: Rescan | None) -> Batch:
        """Begin to compare everything; return the news that it is begun."""
        self._again, self._is_complete = None, False
        self._comparisons += 1
        self._rescans.update([why] if why else [])
        # It does not tell of what is equal, or is gone.
        self._look_too([self._unequal.sources])
        self._everything = self._compare_everything()
        return self._figures_alone()

    def _compare_everything(self) -> Iterator[Batch]:
        for verb in self._verbs:
            runner = self._runner_at_work = self._runner(verb, self._options)
            for rule in self._plan:
                yield from runner.run_rule(rule)
            yield from runner.finish_rechecks()
        yield from covered(self._plan, self._options, self._throttle)

    def _go_on_comparing(self, everything: Iterator[Batch]) -> Iterator[Batch]:
        batch = next(everything, None)
        if batch:
            yield self._sifted(batch)
            return
        self._everything = self._runner_at_work = None
        self._is_complete = not (self._again or self._lost or self._control.stop())
        yield self._figures_alone()

    def _sifted(self, batch: Batch) -> Batch:
        """Return a batch of the comparison of everything with those of its keys that are news, or asked for."""
        self._longest = max(self._longest, batch.seconds)
        clean = [key for key in batch.keys if key.clean]
        news = self._news([key for key in batch.keys if not key.clean], Look.LAST)
        return replace(batch, keys=clean + news)

    def _look_too(self, lists: Iterable[list[bytes]]) -> None:
        """Have pairs looked at, though nobody has told of them."""
        size = self._options.limits.batch_size
        portions = (names[first : first + size] for names in lists for first in range(0, len(names), size))
        self._others = chain(self._others or (), portions)

    def _look_at_others(self) -> Iterator[Batch]:
        if not self._others:
            return
        sources = next(self._others, None)
        if sources is None:
            self._others = None
        else:
            yield from self._look(sources, Look.QUIET)

    def _look_at_due(self) -> Iterator[Batch]:
        """Compare pairs that have been quiet for long enough, and those that have not been for too long."""
        if self._names.seconds_left(time.perf_counter()) != 0:
            return
        self._throttle.wait()
        now, size = time.perf_counter(), self._options.limits.batch_size
        yield from self._look(self._names.take_quiet(now, size), Look.QUIET)
        yield from self._look(self._names.take_busy(now, size), Look.BUSY)

    def _look(self, sources: list[bytes], look: Look) -> Iterator[Batch]:
        found: dict[bytes, KeyOutcome] = {}
        for batch in self._looker.look(sources, found):
            self._longest = max(self._longest, batch.seconds)
            yield batch
        if self._control.stop():
            return  # not all of them may have been looked at
        self._compared += len(found)
        by_rule: dict[Rule, list[KeyOutcome]] = {}
        for outcome in self._news([*found.values()], look):
            by_rule.setdefault(self._plan.rule_for(outcome.source) or self._plan[0], []).append(outcome)
        for rule, news in by_rule.items():
            yield Batch(rule, Stage.RECHECK, keys=news, drift=self.figures)

    def _news(self, outcomes: list[KeyOutcome], look: Look) -> list[KeyOutcome]:
        """Return the results that are news, once it is known who has been written to meanwhile."""
        if any(not outcome.clean and outcome.source not in self._unequal for outcome in outcomes):
            self._wait_for_barrier()
        return [news for outcome in outcomes if (news := self._judged(outcome, look))]

    def _judged(self, outcome: KeyOutcome, look: Look) -> KeyOutcome | None:
        source, now = outcome.source, time.perf_counter()
        if outcome.clean or source in self._unequal or not self._options.settle:
            self._doubts.pop(source, None)
            return self._unequal.judged(outcome)
        if self._lost or (source in self._names and look is not Look.BUSY):
            return None  # it is looked at again: the application may have been between its two writes
        self._doubts[source] += 1
        if self._doubts[source] >= look:
            del self._doubts[source]
            return self._unequal.judged(outcome)
        if look is Look.BUSY:
            self._names.put_busy(source, now)
        else:
            self._names.put(source, now)
        return None

    def _wait_for_barrier(self) -> None:
        """Wait until all that was written until now has been told."""
        ticket = self._told.barrier()
        while self._told.passed < ticket and not self._lost:
            wait_for(self._told.listeners, SECONDS_TO_SLEEP)
            self._hear()

    def _tend(self) -> None:
        """See to the servers, to slots that were moved, and to what could not be compared."""
        now = time.monotonic()
        if now - self._tended < SECONDS_TO_TEND:
            return
        self._tended = now
        self._deployment.confirm()
        # Else those of a slot that is being moved for long would come to be more and more.
        moved = [] if self._others else self._both_sides.moved()
        if not self._told.hears_all:
            self._lost = Rescan.MOVED
        elif moved:
            # A node that has a slot now may have taken writes before it had us to tell.
            self._rescans[Rescan.MOVED] += 1
            self._look_too(self._both_sides.in_slots(moved, self._told.sources_of))
        if now - self._retried >= SECONDS_TO_RETRY:
            self._retried = now
            self._clock.ask()
            self._look_too([self._unequal.failed])

    def _wait(self) -> None:
        """Wait until something is told or due, if nothing else is to be done."""
        left = self._names.seconds_left(time.perf_counter())
        if self._everything or self._again or self._lost or self._others or left == 0:
            return
        wait_for(self._told.listeners, SECONDS_TO_SLEEP if left is None else min(left, SECONDS_TO_SLEEP))
        time.sleep(SECONDS_TO_GATHER)

    def _runner(self, verb: Verb, options: Options) -> Runner:
        return runner_for(self._deployment, self._plan, verb, options, control=self._heeding, throttle=self._throttle)

    def _pace_of(self, server: Connection) -> Pace:
        return self._paces.setdefault(server, Pace(self._options.limits, server.round_trip))

    def _figures_alone(self) -> Batch:
        self._shown = time.monotonic()
        return Batch(self._plan[0], Stage.RECHECK, drift=self.figures)

    @property
    def figures(self) -> Drift:
        """How it stands."""
        return Drift(
            is_complete=self._is_complete and self._others is None,
            comparisons=self._comparisons,
            rescans=dict(self._rescans),
            told=self._told.told,
            waiting=len(self._names),
            compared=self._compared,
            unequal={word: count for word, count in self._unequal.counts.items() if count},
            drifted=self._unequal.drifted,
            healed=self._unequal.healed,
            longest_pause_ms=round(self._longest * 1000, 3),
        )
