"""The loop of a follow: it waits for what is told and for answers, and keeps the targets in step."""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import chain

from luamigrate.migration.both_sides import BothSides
from luamigrate.migration.cross_slot_mirror import mirror_for
from luamigrate.migration.dirty import UNTOLD, DirtyNames, Lags
from luamigrate.migration.hearing import REMEMBERED, Hearing
from luamigrate.migration.lease import Lease
from luamigrate.migration.mirror import WROTE, Arrived
from luamigrate.migration.options import FollowOptions
from luamigrate.migration.standing import Pair, Standing
from luamigrate.migration.throttle import SECONDS_TO_SLEEP, Throttle
from luamigrate.model.control import Control
from luamigrate.model.following import Followed, Lag, Phase, Rescan
from luamigrate.model.plans import Plan
from luamigrate.model.rules import Rule
from luamigrate.model.status import KeyOutcome, Word
from luamigrate.model.summary import Batch, Tally
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered, ConnectionLost, ServerChanged
from luamigrate.server.listener import Listener

SECONDS_TO_TELL = 0.2
"""Between two batches that tell figures alone."""
SECONDS_TO_TEND = 1.0
"""Between two times that the lease, the guards and what failed are seen to."""
SECONDS_BETWEEN_BARRIERS = 0.05
"""At least: each costs the server two answers."""
ROUNDS_SCANNED_AHEAD = 4
"""How many batches a scan may be ahead of the copying: what is told meanwhile comes behind them."""


class Follower:
    """Follows one plan on one server; `run` is the whole of it."""

    def __init__(
        self,
        deployment: Deployment,
        plan: Plan,
        options: FollowOptions,
        control: Control,
        *,
        lease: Lease,
        throttle: Throttle,
    ) -> None:
        self._deployment, self._plan, self._options, self._control = deployment, plan, options, control
        self._lease, self._throttle = lease, throttle
        self.standing, self._dirty, self._lags = Standing(), DirtyNames(), Lags()
        self._hearing = Hearing(deployment, plan, self.standing, self._dirty)
        self._mirror = mirror_for(deployment, options.limits, lease)
        self._both_sides = BothSides(deployment, plan, self._mirror.pace_of, control.stop)
        self._rule_for = lru_cache(REMEMBERED)(plan.rule_for)
        self._scan: Iterator[list[bytes]] | None = None
        self._backlog: int | None = None
        """How many pairs that a scan has found have not been answered for; None where no scan has just ended."""
        self._phase = Phase.COPYING
        self._rescans: Counter[Rescan] = Counter()
        self._tallies: dict[Rule, Tally] = {}
        self._news: list[tuple[Rule, KeyOutcome]] = []
        self._copies = self._removed = 0
        self._longest = 0.0
        self._waiting_for = ""
        self._in_step = self._was_in_step = self._has_told_step = False
        self._quiet: int | None = None
        """The barrier after which it is in step, if nothing comes before it."""
        self._lost: Rescan | None = None
        """What was lost, while that is not mended."""
        self._fence: int | None = None
        """The barrier after which the lease is to be taken again; until then nothing is sent."""
        self._told = self._tended = self._barrier_due = self._round_due = 0.0

    def survey(self, batch: Batch) -> None:
        """Take what a survey has found, and what was told meanwhile. Raises ConnectionLost."""
        for key in batch.keys:
            if key.word is Word.EXTRA:
                self.standing.extra.add(key.source)
        self._hearing.hear()

    def run(self, away: int | None, *, claims: bool) -> Iterator[Batch]:
        """Follow until somebody asks to stop; yield figures now and then, and news at once.

        `away` is for how long nobody followed, where that is known. Where it `claims` the targets, all that nobody
        else has written since are its own.
        """
        self.standing.claiming, self._mirror.away = claims, away
        self._scan = self._both_sides.scanned()
        while not self._control.stop():
            try:
                if self._lost:
                    self._mend(self._lost)
                else:
                    self._turn()
            except ServerChanged:
                self._lost = Rescan.OTHER_SERVER
            except Answered as problem:
                if not self._deployment.is_unsettled(problem):
                    raise
                self._lost = Rescan.MOVED
            except ConnectionLost:
                if self._lost and any(server.is_lost for server in self._deployment.primaries):
                    raise
                self._lost = self._lost or Rescan.LOST
            yield from self._told_batches()
        with suppress(ServerChanged, ConnectionLost):
            for arrived in self._mirror.arrived(wait=True):
                self._take(arrived)
        self._told = 0.0
        yield from self._told_batches()

    def close(self) -> None:
        """Stop listening, and give up the lease."""
        self._hearing.close()
        # Where it did not begin, it owns nothing that the next one should know of.
        self._lease.release(self._known if self._lease.is_used else "")

    def _turn(self) -> None:
        self._wait()
        if self._hearing.hear():
            self._scan_again(Rescan.EMPTIED)
        if self._dirty.is_full:
            self._dirty.clear()
            self._scan_again(Rescan.TOO_MANY)
        for arrived in self._mirror.arrived():
            self._take(arrived)
        self._after_barriers()
        self._tend()
        if self._fence is None:
            self._scan_on()
            self._send()
        self._see_whether_all_was_scanned()
        self._see_whether_in_step()

    def _wait(self) -> None:
        """Wait until something is told or answered, or there is something else to do."""
        left = max(self._round_due - time.monotonic(), self._throttle.rate.seconds_to_wait(time.monotonic))
        if left > 0:
            # What comes meanwhile is taken together: waking for each change would cost more than mirroring it.
            time.sleep(min(left, SECONDS_TO_SLEEP))
        may_go_on = not (self._mirror.is_full or self._waiting_for or self._fence is not None)
        at_once = self._mirror.has_arrived or (may_go_on and (bool(self._dirty) or self._scan is not None))
        waiting: list[Listener | Connection] = [*self._hearing.listeners, *self._mirror.busy]
        select.select(waiting, [], [], 0 if at_once else self._patience())

    def _patience(self) -> float:
        is_quiet = self._quiet is None and not self._in_step and not self._dirty
        return SECONDS_BETWEEN_BARRIERS if is_quiet else SECONDS_TO_SLEEP

    def _take(self, arrived: Arrived) -> None:
        """Take what came of a batch."""
        now = time.perf_counter()
        barrier = self._hearing.next_barrier
        self._longest = max(self._longest, arrived.seconds)
        if arrived.repeated:
            # What it made at first has been answered for as if it had been there.
            self.standing.loses_sight(claiming=True)
            self._scan_again(Rescan.LOST)
        for result in arrived.results:
            pair, word = result.pair, result.word
            was_known = pair.source in self.standing.known
            # The one before may have written, and its answer was lost.
            wrote = (word in WROTE) + arrived.repeated
            if self._hearing.own_writes.answered(pair.target, barrier, wrote=wrote):
                self.standing.suspect(pair.source)
                self._dirty.put(pair.source, UNTOLD)
            self._copies += word is Word.COPIED
            self._removed += word is Word.REMOVED
            if pair.moment != UNTOLD:
                self._lags.add(now - pair.moment)
            if word is Word.FAILED:
                news = self.standing.failed_with(pair, result.text)
            else:
                news = self.standing.answered(pair, word, barrier, repeated=arrived.repeated)
            if self._phase is Phase.COPYING and not was_known:
                self._tallies.setdefault(pair.rule, Tally()).count(word, result.text)
            self._news += [(pair.rule, outcome) for outcome in news]
        if self._backlog is not None:
            self._backlog -= len(arrived.results)
        self._put_back(arrived.undone, wrote=arrived.repeated)
        if arrived.is_unheld and self._fence is None:
            self._fence = self._hearing.barrier()
        if arrived.refusal:
            self._throttle.refused(arrived.refusal)
        else:
            self._throttle.accepted()

    def _put_back(self, pairs: list[Pair], *, wrote: bool) -> None:
        """Have pairs wait again that were not done, as far as is known; tell whether they may have been written."""
        for pair in pairs:
            if self._hearing.own_writes.answered(pair.target, self._hearing.next_barrier, wrote=wrote):
                self.standing.suspect(pair.source)
            self._dirty.put_back(pair.source, pair.moment)

    def _after_barriers(self) -> None:
        """Decide what was waiting for a barrier."""
        passed = self._hearing.passed
        self._hearing.own_writes.passed(passed)
        for found in self.standing.passed(passed):
            if isinstance(found, bytes):
                self._dirty.put(found, UNTOLD)
            else:
                self._tell(found)
        if self._fence is not None and passed >= self._fence:
            self._take_the_lease_again()

    def _tell(self, outcome: KeyOutcome) -> None:
        self._news.append((self._plan.rule_for(outcome.source) or self._plan[0], outcome))

    def _tend(self) -> None:
        """See to the guards, the lease, and what failed."""
        self._waiting_for = self._throttle.reason_to_wait()
        if self._waiting_for:
            self._control.tell(self._waiting_for)
        now = time.monotonic()
        # Doubts wait for a barrier, and so does what the server owes us to tell.
        if now >= self._barrier_due and (self.standing.is_doubtful or now - self._barrier_due >= SECONDS_TO_TELL):
            self._barrier_due = now + SECONDS_BETWEEN_BARRIERS
            self._hearing.barrier()
        if now - self._tended < SECONDS_TO_TEND:
            return
        self._tended = now
        self._deployment.confirm()
        self._follow_slots()
        for source in self.standing.due_again():
            self._dirty.put(source, UNTOLD)
        if self._fence is None and not self._lease.renew_if_due(self._known):
            self._fence = self._hearing.barrier()

    @property
    def _known(self) -> str:
        """What the record is to say of the targets."""
        if self.standing.foreign:
            return "foreign"
        return "equal" if self._in_step else "owned"

    def _take_the_lease_again(self) -> None:
        """Go on after the lease was lost. If that was because all keys were deleted, none of them is known any more."""
        self._lease.take_again()
        self._fence = None
        # Of a cluster it may have been one node.
        if self._hearing.was_emptied and not self._deployment.slots:
            self.standing.forget()
            self._scan_again(None)
        else:
            self._scan_again(Rescan.LEASE)
        self._hearing.was_emptied = False

    def _mend(self, lost: Rescan) -> None:
        """Listen again. Another process may lack the last writes of both sides: all targets are claimed once more."""
        self._quiet, self._in_step = None, False
        if lost is not Rescan.LOST:
            for pair in self._mirror.dropped():
                self._put_back([pair], wrote=True)
        if lost is Rescan.MOVED:
            time.sleep(SECONDS_TO_SLEEP)
            self._deployment.refresh()
        if lost is Rescan.OTHER_SERVER:
            self._deployment.accept_change()
            self._lease.take_again()
            self._fence = None
            self.standing.loses_sight(claiming=True)
        self._hearing.listen_again(self._options.limits.patience, self._control)
        self._lost = None
        if self._fence is not None:
            self._fence = self._hearing.barrier()
        self._scan_again(lost)

    def _scan_again(self, why: Rescan | None) -> None:
        """Scan both sides, because more may have changed than has been told."""
        if why:
            self._rescans[why] += 1
        for source in self.standing.scan_begins():
            self._dirty.put(source, UNTOLD)
        self._scan, self._backlog = self._both_sides.scanned(), None

    def _follow_slots(self) -> bool:
        """Look again at what is in slots that were moved; tell whether any were."""
        moved = self._both_sides.moved()
        if moved and not self._hearing.hears_all:
            # A node that told us of nothing may have taken writes.
            self._lost = Rescan.MOVED
        elif moved:
            self._rescans[Rescan.MOVED] += 1
            self._scan = chain(self._scan or (), self._both_sides.in_slots(moved, self._hearing.sources_of))
            self._backlog = None
        return bool(moved)

    def _scan_on(self) -> None:
        """Scan a little, unless enough waits already."""
        if self._scan is None or self._waiting_for:
            return
        if len(self._dirty) < ROUNDS_SCANNED_AHEAD * self._mirror.size:
            found = next(self._scan, None)
            if found is None:
                self._scan, self._backlog = None, len(self._dirty) + self._mirror.in_flight
                return
            for source in found:
                self._dirty.put(source, UNTOLD)

    def _see_whether_all_was_scanned(self) -> None:
        """After a scan, and all that it has found, no target is claimed that is not known."""
        if self._backlog is not None and (self._backlog <= 0 or not (self._dirty or self._mirror.in_flight)):
            self._backlog, self._mirror.away, self._phase = None, None, Phase.FOLLOWING
            self.standing.scan_ended()

    def _send(self) -> None:
        """Send what waits, as far as there is room; what was told waits for the next round."""
        if self._waiting_for or time.monotonic() < self._round_due:
            return
        rate = self._throttle.rate
        while self._dirty and not self._mirror.is_full and not rate.seconds_to_wait(time.monotonic):
            for pairs in self._pairs(self._dirty.take(self._mirror.size)):
                self._mirror.send(pairs)
                rate.sent(len(pairs), time.monotonic)
            if not self._dirty:
                self._round_due = time.monotonic() + self._options.max_lag_ms / 1000
        self._mirror.flush()

    def _pairs(self, names: list[tuple[bytes, float]]) -> Iterable[list[Pair]]:
        """Return what is to be sent of names that changed, by database; those that must never be written fail."""
        by_rule: dict[Rule, list[bytes]] = {}
        for name, _ in names:
            rule = self._rule_for(name)
            if rule:
                by_rule.setdefault(rule, []).append(name)
        moments = dict(names)
        found: dict[int | None, list[Pair]] = {}
        for rule, sources in by_rule.items():
            pairs, refused = self._plan.pairs(rule, sources)
            for source, target in zip(pairs.sources, pairs.targets, strict=True):
                pair = self.standing.pair(rule, source, target, moments[source])
                found.setdefault(rule.database, []).append(pair)
                self._hearing.own_writes.sent(target)
            for outcome in refused:
                pair = self.standing.pair(rule, outcome.source, outcome.target, UNTOLD)
                self._news += [(rule, each) for each in self.standing.failed_with(pair, outcome.text)]
        return found.values()

    def _see_whether_in_step(self) -> None:
        is_busy = self._scan is not None or self._dirty or self._mirror.in_flight or self._fence is not None
        if is_busy or not self.standing.is_settled:
            self._in_step, self._quiet = False, None
        elif self._quiet is not None:
            # A slot that was moved may have taken writes of which nobody told us.
            self._in_step = self._in_step or (self._hearing.passed >= self._quiet and not self._follow_slots())
            self._was_in_step |= self._in_step
        elif time.monotonic() >= self._barrier_due:
            self._barrier_due = time.monotonic() + SECONDS_BETWEEN_BARRIERS
            self._quiet = self._hearing.barrier()

    def _told_batches(self) -> Iterator[Batch]:
        """Yield news, and the figures where they are due."""
        is_first_step = self._in_step and not self._has_told_step
        if not (self._news or is_first_step or time.monotonic() - self._told >= SECONDS_TO_TELL):
            return
        self._told, self._has_told_step = time.monotonic(), self._in_step
        keys: dict[Rule, list[KeyOutcome]] = {}
        for rule, outcome in self._news:
            keys.setdefault(rule, []).append(outcome)
        tallies, self._tallies, self._news = self._tallies, {}, []
        for rule in {**keys, **tallies, self._plan[0]: None}:
            tally = tallies.get(rule) or Tally()
            yield Batch(rule, tally=tally, keys=keys.get(rule, []), seconds=self._longest, followed=self.figures)

    @property
    def figures(self) -> Followed:
        """How it stands."""
        lags = self._lags
        shares = {"now": lags.now, "p50": lags.quantile(0.5), "p99": lags.quantile(0.99), "worst": lags.worst}
        return Followed(
            phase=self._phase,
            in_step=self._in_step,
            dirty=len(self._dirty),
            in_flight=self._mirror.in_flight,
            told=self._hearing.told,
            copies=self._copies,
            removed=self._removed,
            rescans=dict(self._rescans),
            foreign=len(self.standing.foreign),
            foreign_seen=self.standing.foreign_seen,
            failed=self.standing.failed,
            extra=len(self.standing.extra),
            lag=Lag(**{name: round(seconds * 1000, 3) for name, seconds in shares.items()}),
            longest_pause_ms=round(self._longest * 1000, 3),
            waiting_for=self._waiting_for or None,
            was_in_step=self._was_in_step,
        )
