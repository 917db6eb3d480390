"""The loop of a follow: it waits for what is told and for answers, and keeps the targets in step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from luamigrate.migration.account import SECONDS_TO_TELL, Account
from luamigrate.migration.both_sides import BothSides, Sighting
from luamigrate.migration.cross_slot_mirror import mirror_for
from luamigrate.migration.dirty import SEEN, UNTOLD, DirtyNames
from luamigrate.migration.hearing import Hearing
from luamigrate.migration.large_mirror import LargeMirror
from luamigrate.migration.lease import Lease, NotWritten
from luamigrate.migration.mirror import WROTE, Arrived, Result
from luamigrate.migration.options import FollowOptions
from luamigrate.migration.pairing import Pairing
from luamigrate.migration.standing import Pair, Standing
from luamigrate.migration.throttle import SECONDS_TO_SLEEP, Throttle
from luamigrate.model.control import Control
from luamigrate.model.following import Followed, Phase, Rescan
from luamigrate.model.plans import Plan
from luamigrate.model.status import Word
from luamigrate.model.summary import Batch
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered, ConnectionLost, ServerChanged
from luamigrate.server.listener import wait_for

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
        self.standing, self._dirty, self._account = Standing(), DirtyNames(), Account(plan)
        self._hearing = Hearing(deployment, plan, self.standing, self._dirty)
        self._mirror = mirror_for(deployment, options.limits, lease)
        self._both_sides = BothSides(deployment, plan, self._mirror.pace_of, control.stop)
        own_writes = self._hearing.own_writes
        self._large = LargeMirror(
            deployment, options.limits, control, lease=lease, standing=self.standing, own_writes=own_writes
        )
        self._pairing = Pairing(plan, self.standing, own_writes, self._account)
        self._scan: Iterator[Sighting] | None = None
        self._backlog: int | None = None
        """How many pairs that a scan has found have not been answered for; None where no scan has just ended."""
        self._phase = Phase.COPYING
        self._waiting_for = ""
        self._in_step = self._was_in_step = self._has_told_step = False
        self._quiet: int | None = None
        """The barrier after which it is in step, if nothing comes before it."""
        self._lost: Rescan | None = None
        """What was lost, while that is not mended."""
        self._fence: int | None = None
        """The barrier after which the lease is to be taken again; until then nothing is sent."""
        self._tended = self._barrier_due = self._round_due = 0.0

    def survey(self, batch: Batch) -> None:
        """Take what a survey has found, and what was told meanwhile."""
        for key in batch.keys:
            if key.word is Word.EXTRA:
                self.standing.extra.add(key.source)
        self._hearing.keep_up(self._options.limits.patience, self._control)

    def run(self, away: int | None, *, claims: bool, owned: bool) -> Iterator[Batch]:
        """Follow until somebody asks to stop; yield figures now and then, and news at once.

        `away` is for how long nobody followed, where that is known. Where it `claims` the targets, all that nobody
        else has written since are its own; where a follow `owned` them, also those whose sources went meanwhile.
        """
        self._hearing.end_survey(self._options.limits.patience, self._control, owned=owned)
        self.standing.claiming, self._mirror.away = claims, away
        self._scan = self._both_sides.scanned()
        while not self._control.stop():
            try:
                if self._lost:
                    self._mend(self._lost)
                else:
                    self._turn()
            except NotWritten as problem:
                self._in_step = False
                self._throttle.refused(str(problem))
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
            # What was lost may have been in step for the last time.
            self._in_step &= not self._lost
            yield from self._told_batches(at_once=False)
        with suppress(ServerChanged, ConnectionLost):
            for arrived in self._mirror.arrived(wait=True):
                self._take(arrived)
        yield from self._told_batches(at_once=True)

    def close(self) -> None:
        """Stop listening, and give up the lease."""
        self._large.close()
        self._hearing.close()
        # Where it did not begin, it owns nothing that the next one should know of.
        self._lease.release(self._known if self._lease.is_used else "")

    def _turn(self) -> None:
        self._wait()
        if self._hearing.hear():
            self._scan_again(Rescan.EMPTIED)
            # The lease is in the database of the sources: while it is left, that was not emptied.
            if self._fence is None and self._lease.renew(self._known):
                self._hearing.was_emptied = False
        if self._dirty.is_full:
            self._dirty.clear()
            self._scan_again(Rescan.TOO_MANY)
        for arrived in self._mirror.arrived():
            self._take(arrived)
            if self._backlog is not None:
                self._backlog -= len(arrived.results) + len(arrived.big)
        self._after_barriers()
        self._tend()
        if self._fence is None:
            self._scan_on()
            self._send()
            # Whoever changes meanwhile waits for one chunk.
            if not self._waiting_for and (chunk := self._large.advance()):
                self._take(chunk)
        self._see_whether_all_was_scanned()
        self._see_whether_in_step()

    def _wait(self) -> None:
        """Wait until something is told or answered, or there is something else to do."""
        left = max(self._round_due - time.monotonic(), self._throttle.rate.seconds_to_wait(time.monotonic))
        if left > 0:
            # What comes meanwhile is taken together: waking for each change would cost more than mirroring it.
            time.sleep(min(left, SECONDS_TO_SLEEP))
        may_go_on = not (self._mirror.is_full or self._waiting_for or self._fence is not None)
        at_once = self._mirror.has_arrived or (may_go_on and (self._dirty or self._large or self._scan is not None))
        is_quiet = self._quiet is None and not self._in_step and not self._dirty
        patience = SECONDS_BETWEEN_BARRIERS if is_quiet else SECONDS_TO_SLEEP
        wait_for([*self._hearing.listeners, *self._mirror.busy], 0 if at_once else patience)

    def _take(self, arrived: Arrived) -> None:
        """Take what came of a batch."""
        self._account.longest = max(self._account.longest, arrived.seconds)
        if arrived.repeated:
            # What it made at first has been answered for as if it had been there.
            self.standing.loses_sight(claiming=True)
            self._scan_again(Rescan.LOST)
        now, barrier = time.perf_counter(), self._hearing.next_barrier
        for result in arrived.results:
            self._take_result(result, now, barrier, repeated=arrived.repeated)
        for big in arrived.big:
            self._answered(big.pair, barrier, wrote=arrived.repeated)
            if self.standing.postpone(big.pair):
                self._large.put(big)
        self._put_back(arrived.undone, wrote=arrived.repeated)
        if arrived.is_unheld and self._fence is None:
            self._fence = self._hearing.barrier()
        if arrived.refusal:
            self._throttle.refused(arrived.refusal)
        else:
            self._throttle.accepted()

    def _take_result(self, result: Result, now: float, barrier: int, *, repeated: bool) -> None:
        pair, standing = result.pair, self.standing
        is_first = self._phase is Phase.COPYING or standing.is_postponed(pair.source)
        self._account.count(result, now, is_first=is_first and pair.source not in standing.known)
        if self._large:
            self._large.drop(pair.source)
        # The one before may have written, and its answer was lost.
        if self._answered(pair, barrier, wrote=(result.word in WROTE) + repeated):
            self._dirty.put(pair.source, UNTOLD)
        if result.word is Word.FAILED:
            news = standing.failed_with(pair, result.text)
        else:
            news = standing.answered(pair, result.word, barrier, repeated=repeated)
        if news:
            self._account.note(news)

    def _put_back(self, pairs: list[Pair], *, wrote: bool) -> None:
        """Have pairs wait again that were not done, as far as is known; tell whether they may have been written."""
        barrier = self._hearing.next_barrier
        for pair in pairs:
            self._answered(pair, barrier, wrote=wrote)
            self._dirty.put_back(pair.source, pair.moment)

    def _answered(self, pair: Pair, barrier: int, *, wrote: int) -> bool:
        """Note how often at most we wrote a target; return whether somebody else has written it too."""
        is_foreign = self._hearing.own_writes.answered(pair.target, barrier, wrote=wrote)
        if is_foreign:
            self.standing.suspect(pair.source)
        return is_foreign

    def _after_barriers(self) -> None:
        """Decide what was waiting for a barrier."""
        passed = self._hearing.passed
        self._hearing.own_writes.passed(passed)
        for found in self.standing.passed(passed):
            if isinstance(found, bytes):
                self._dirty.put(found, UNTOLD)
            else:
                self._account.note([found])
        if self._fence is not None and passed >= self._fence:
            self._take_the_lease_again()

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
        self._mirror.limit(self._throttle.limits)
        self._large.limit(self._throttle.limits)
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
        # It may just have been told that they are not any more.
        return "owned" if self._is_busy or not self._in_step else "equal"

    def _take_the_lease_again(self) -> None:
        """Go on after the lease was lost. If that was because all keys were deleted, none of them is known any more."""
        self._lease.take_again()
        self._fence = None
        # Of a cluster it may have been one node; and targets in another database have not gone with it.
        was_emptied = self._hearing.was_emptied and not self._deployment.slots
        if was_emptied and self._plan.databases == (None,):
            self.standing.forget()
        self._scan_again(None if was_emptied else Rescan.LEASE)
        self._hearing.was_emptied = False

    def _mend(self, lost: Rescan) -> None:
        """Listen again. Another process may lack the last writes of both sides: all targets are claimed once more."""
        self._quiet, self._in_step = None, False
        # In a cluster what is in flight ends with the first error.
        if lost is not Rescan.LOST or self._deployment.slots:
            dropped = self._mirror.dropped()
            self._put_back(dropped, wrote=True)
            for pair in self._large.dropped():
                self._dirty.put_back(pair.source, pair.moment)
            if dropped:
                self.standing.loses_sight(claiming=True)
        if lost is Rescan.MOVED:
            time.sleep(SECONDS_TO_SLEEP)
            self._deployment.refresh()
        if lost is Rescan.OTHER_SERVER:
            self._deployment.accept_change()
            self._lease.take_again()
            self._fence = None
            self.standing.goes_back()
        self._hearing.listen_again(self._options.limits.patience, self._control)
        self._lost = None
        if self._fence is not None:
            self._fence = self._hearing.barrier()
        self._scan_again(lost)

    def _scan_again(self, why: Rescan | None) -> None:
        """Scan both sides, because more may have changed than has been told."""
        if why:
            self._account.rescans[why] += 1
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
            self._account.rescans[Rescan.MOVED] += 1
            sources = self._both_sides.in_slots(moved, self._hearing.sources_of)
            self._scan, self._backlog = chain(self._scan or (), map(Sighting, sources)), None
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
            for source in found.sources:
                self._dirty.put(source, SEEN if found.was_there else UNTOLD)

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
            for pairs in self._pairing.pairs(self._dirty.take(self._mirror.size)):
                self._mirror.send(pairs)
                rate.sent(len(pairs), time.monotonic)
            if not self._dirty:
                self._round_due = time.monotonic() + self._throttle.limits.max_lag_ms / 1000
        self._mirror.flush()

    @property
    def _is_busy(self) -> bool:
        waits = self._dirty or self._large or self._mirror.in_flight
        return bool(waits) or self._scan is not None or self._fence is not None

    def _see_whether_in_step(self) -> None:
        if self._is_busy or not self.standing.is_settled:
            self._in_step, self._quiet = False, None
        elif self._quiet is not None:
            # A slot that was moved may have taken writes of which nobody told us.
            self._in_step = self._in_step or (self._hearing.passed >= self._quiet and not self._follow_slots())
            self._was_in_step |= self._in_step
        elif time.monotonic() >= self._barrier_due:
            self._barrier_due = time.monotonic() + SECONDS_BETWEEN_BARRIERS
            self._quiet = self._hearing.barrier()

    def _told_batches(self, *, at_once: bool) -> Iterator[Batch]:
        """Yield news, and the figures where they are due."""
        is_first_step = self._in_step and not self._has_told_step
        if not self._account.is_due(at_once=at_once or is_first_step):
            return
        self._has_told_step = self._in_step
        large, longest = self._large.progress, self._account.longest
        for rule, tally, keys in self._account.taken():
            yield Batch(rule, tally=tally, keys=keys, seconds=longest, large=large, followed=self.figures)

    @property
    def figures(self) -> Followed:
        """How it stands."""
        account = self._account
        return Followed(
            phase=self._phase,
            in_step=self._in_step,
            dirty=len(self._dirty),
            in_flight=self._mirror.in_flight + len(self._large),
            told=self._hearing.told,
            copies=account.copies,
            removed=account.removed,
            rescans=dict(account.rescans),
            foreign=len(self.standing.foreign),
            foreign_seen=self.standing.foreign_seen,
            failed=self.standing.failed,
            extra=len(self.standing.extra),
            lag=account.lags.figures,
            longest_pause_ms=round(account.longest * 1000, 3),
            waiting_for=self._waiting_for or None,
            was_in_step=self._was_in_step,
        )
