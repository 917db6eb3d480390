"""The loop of a follow: it waits for what is told and for answers, and keeps the targets in step."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

from luamigrate.migration.account import SECONDS_TO_TELL
from luamigrate.migration.both_sides import BothSides, Sighting
from luamigrate.migration.cutover import Cutover
from luamigrate.migration.direction import Direction
from luamigrate.migration.dirty import SEEN, UNTOLD
from luamigrate.migration.keeper import Keeper
from luamigrate.migration.lease import Lease, NotWritten
from luamigrate.migration.options import FollowOptions
from luamigrate.migration.sides import CutoverState
from luamigrate.migration.throttle import SECONDS_TO_SLEEP, Throttle
from luamigrate.model.control import Control
from luamigrate.model.cutover import CutoverProgress
from luamigrate.model.errors import Stopped
from luamigrate.model.following import Followed, Phase, Rescan
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
        direction: Direction,
        options: FollowOptions,
        control: Control,
        *,
        lease: Lease,
        throttle: Throttle,
        state: CutoverState | None = None,
    ) -> None:
        self._deployment, self._options, self._control = deployment, options, control
        self._lease, self._throttle = lease, throttle
        self._keeper = Keeper(deployment, direction, options, control, lease=lease, throttle=throttle)
        self.standing, self._dirty, self._account = self._keeper.standing, self._keeper.dirty, self._keeper.account
        self._hearing = self._keeper.hearing
        self._both_sides = BothSides(deployment, direction, self._keeper.pace_of, control.stop)
        self._scan: Iterator[Sighting] | None = None
        self._waiting_for = ""
        self._in_step = self._was_in_step = self._has_told_step = False
        self._quiet: int | None = None
        """The barrier after which it is in step, if nothing comes before it."""
        self._lost: Rescan | None = None
        """What was lost, while that is not mended."""
        self._tended = self._barrier_due = self._round_due = self._heard = 0.0
        self.cutover: Cutover | None = None
        if state:
            self.cutover = Cutover(state, self._keeper, self, lease=lease, copies_groups=options.allow_groups)

    def survey(self, batch: Batch) -> None:
        """Take what a survey has found, and what was told meanwhile."""
        for key in batch.keys:
            if key.word is Word.EXTRA and not self._keeper.direction.is_back:
                self.standing.extra.add(key.source)
        self._hearing.keep_up(self._options.limits.patience, self._control)

    def run(self, away: int | None, *, claims: bool, owned: bool) -> Iterator[Batch]:
        """Follow until somebody asks to stop; yield figures now and then, and news at once.

        `away` is for how long nobody followed, where that is known. Where it `claims` the targets, all that nobody
        else has written since are its own; where a follow `owned` them, also those whose sources went meanwhile.
        """
        self._hearing.end_survey(self._options.limits.patience, self._control, owned=owned)
        self.standing.claiming, self._keeper.mirror.away = claims, away
        cutover = self._options.cutover
        self.standing.is_confirmed = self._keeper.direction.is_back and cutover is not None and cutover.confirmed
        self._scan = self._both_sides.scanned()
        while not (self._control.stop() or (self.cutover and self.cutover.is_finished)):
            try:
                if self._lost:
                    self._mend(self._lost)
                else:
                    self._turn()
            except Stopped:
                yield from self._told_batches(at_once=True)
                raise
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
            yield from self._told_batches(at_once=self.cutover is not None and self.cutover.has_news)
        with suppress(ServerChanged, ConnectionLost):
            self._keeper.take_all(wait=True)
        yield from self._told_batches(at_once=True)

    def close(self) -> None:
        """Stop listening, and give up the lease."""
        if self.cutover:
            self.cutover.close()
        self._keeper.close()
        # Where it did not begin, it owns nothing that the next one should know of.
        self._lease.release(self._known if self._lease.is_used else "")

    def _turn(self) -> None:
        self._wait()
        self._heard = time.monotonic()
        if self._hearing.hear():
            self._scan_again(Rescan.EMPTIED)
            # The lease is in the database of the sources: while it is left, that was not emptied.
            if self._keeper.fence is None and self._lease.renew(self._known):
                self._hearing.was_emptied = False
        if self._dirty.is_full:
            self._dirty.clear()
            self._scan_again(Rescan.TOO_MANY)
        self._keeper.take_all()
        if self._keeper.after_barriers():
            self._take_the_lease_again()
        self._tend()
        if self._keeper.fence is None:
            self._scan_on()
            self._send()
            # Whoever changes meanwhile waits for one chunk.
            if not self._waiting_for and (chunk := self._keeper.large.advance()):
                self._keeper.take(chunk)
        if doubt := self._keeper.doubt:
            self._scan_again(doubt)
        self._see_whether_all_was_scanned()
        self._see_whether_in_step()
        if self.cutover:
            self.cutover.advance()

    def _wait(self) -> None:
        """Wait until something is told or answered, or there is something else to do."""
        left = max(self._round_due - time.monotonic(), self._throttle.rate.seconds_to_wait(time.monotonic))
        if left > 0:
            # What comes meanwhile is taken together: waking for each change would cost more than mirroring it.
            time.sleep(min(left, SECONDS_TO_SLEEP))
        may_go_on = not (self._keeper.mirror.is_full or self._waiting_for or self._keeper.fence is not None)
        at_once = self._keeper.mirror.has_arrived or (
            may_go_on and (self._dirty or self._keeper.large or self._scan is not None)
        )
        is_quiet = self._quiet is None and not self._in_step and not self._dirty
        patience = SECONDS_BETWEEN_BARRIERS if is_quiet else SECONDS_TO_SLEEP
        wait_for([*self._hearing.listeners, *self._keeper.mirror.busy], 0 if at_once else patience)

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
        self._keeper.tend()
        self._deployment.confirm()
        self._follow_slots()
        for source in self.standing.due_again():
            self._dirty.put(source, UNTOLD)
        if self._keeper.fence is None and not self._lease.renew_if_due(self._known):
            self._keeper.fence = self._hearing.barrier()

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
        if self.cutover:
            # Another process of this plan may have had the lease meanwhile, and have flipped.
            self.cutover.mended()
        self._keeper.fence = None
        # Of a cluster it may have been one node; and targets in another database have not gone with it.
        was_emptied = self._hearing.was_emptied and not self._deployment.slots
        if was_emptied and self._keeper.direction.plan.databases == (None,):
            self.standing.forget()
        self._scan_again(None if was_emptied else Rescan.LEASE)
        self._hearing.was_emptied = False

    def _mend(self, lost: Rescan) -> None:
        """Listen again. Another process may lack the last writes of both sides: all targets are claimed once more."""
        self._quiet, self._in_step = None, False
        # In a cluster what is in flight ends with the first error, and what is under WATCH with its connection.
        if lost is not Rescan.LOST or self._deployment.slots or self._keeper.direction.is_guarded:
            self._keeper.forget_flights()
        if lost is Rescan.MOVED:
            time.sleep(SECONDS_TO_SLEEP)
            self._deployment.refresh()
        if lost is Rescan.OTHER_SERVER:
            self._deployment.accept_change()
            self._lease.take_again()
            self._keeper.fence = None
            self.standing.goes_back()
        self._hearing.listen_again(self._options.limits.patience, self._control)
        if self.cutover:
            self.cutover.mended()
        self._keeper.mirror.reconnect(unwatched_since=self._heard)
        self._lost = None
        if self._keeper.fence is not None:
            self._keeper.fence = self._hearing.barrier()
        self._scan_again(lost)

    def _scan_again(self, why: Rescan | None) -> None:
        """Scan both sides, because more may have changed than has been told."""
        if why:
            self._account.rescans[why] += 1
            if proof := self._hearing.proof:
                proof.is_void = True
        for source in self.standing.scan_begins():
            self._dirty.put(source, UNTOLD)
        self._scan, self._keeper.backlog, self._keeper.doubt = self._both_sides.scanned(), None, None

    def _follow_slots(self) -> bool:
        """Look again at what is in slots that were moved; tell whether any were."""
        moved = self._both_sides.moved()
        if moved and not self._hearing.hears_all:
            # A node that told us of nothing may have taken writes.
            self._lost = Rescan.MOVED
        elif moved:
            self._account.rescans[Rescan.MOVED] += 1
            sources = self._both_sides.in_slots(moved, self._hearing.sources_of)
            self._scan, self._keeper.backlog = chain(self._scan or (), map(Sighting, sources)), None
        return bool(moved)

    def _scan_on(self) -> None:
        """Scan a little, unless enough waits already."""
        if self._scan is None or self._waiting_for:
            return
        if len(self._dirty) < ROUNDS_SCANNED_AHEAD * self._keeper.mirror.size:
            found = next(self._scan, None)
            if found is None:
                self._scan, self._keeper.backlog = None, len(self._dirty) + self._keeper.mirror.in_flight
                return
            for source in found.sources:
                self._dirty.put(source, SEEN if found.was_there else UNTOLD)

    def _send(self) -> None:
        """Send what waits; what is told from then on waits for the next round."""
        if self._waiting_for or time.monotonic() < self._round_due:
            return
        if self._keeper.send():
            self._round_due = time.monotonic() + self._throttle.limits.max_lag_ms / 1000

    def _see_whether_all_was_scanned(self) -> None:
        """After a scan, and all that it has found, no target is claimed that is not known."""
        if (self._keeper.backlog is not None and not self._keeper.moving) and (
            self._keeper.backlog <= 0 or not (self._dirty or self._keeper.mirror.in_flight)
        ):
            self._keeper.backlog, self._keeper.is_copying = None, False
            self._keeper.mirror.knows_all()
            self.standing.scan_ended()

    @property
    def _is_busy(self) -> bool:
        return self._keeper.is_busy or self._scan is not None

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
        large, longest = self._keeper.large.progress, self._account.longest
        for rule, tally, keys in self._account.taken():
            if self.cutover:
                self.cutover.stragglers(keys)
            yield Batch(rule, tally=tally, keys=keys, seconds=longest, large=large, followed=self.figures)

    @property
    def _queues_waiting(self) -> str:
        count = len(self._keeper.waiting)
        return f"waiting for clients that wait: {count:,} queues are not mirrored back meanwhile" if count else ""

    @property
    def _phase(self) -> Phase:
        if self.cutover and self.cutover.is_finished:
            return Phase.FINISHED
        if self.cutover and self.cutover.is_freezing:
            return Phase.FREEZING
        if self._keeper.direction.is_back:
            return Phase.MIRRORING_BACK
        return Phase.COPYING if self._keeper.is_copying else Phase.FOLLOWING

    def what_is_missing(self, most_waiting: int) -> str:
        """Say what speaks against holding writes now, more changes to be mirrored than these for one; else empty."""
        keeper = self._keeper
        waiting = len(self._dirty) + keeper.mirror.in_flight
        if self._both_sides.is_moving:
            return "slots that are being moved"
        if self._lost or self.is_comparing:
            return "both sides to be compared"
        if self._waiting_for:
            return self._waiting_for.removeprefix("waiting for ")
        if keeper.fence is not None:
            return "the lease"
        if keeper.large:
            return "a big key that is being copied"
        if failed := keeper.standing.failed:
            return f"{failed:,} keys that cannot be copied"
        return f"{waiting:,} changes to be mirrored" if waiting > most_waiting else ""

    def compare_all(self) -> None:
        """Begin to compare all pairs once more."""
        self._scan_again(None)

    @property
    def is_comparing(self) -> bool:
        """Whether pairs are compared because of a scan of both sides."""
        return self._scan is not None or self._keeper.backlog is not None

    @property
    def is_in_step(self) -> bool:
        """Whether all that was told is mirrored, and a barrier has brought nothing since."""
        return self._in_step

    @property
    def changes(self) -> int:
        """How many changes were told."""
        return self._hearing.told

    @property
    def figures(self) -> Followed:
        """How it stands."""
        account = self._account
        progress = self.cutover.progress if self.cutover else CutoverProgress()
        return Followed(
            phase=self._phase,
            side=self._keeper.direction.side,
            stragglers=self.standing.stragglers_seen,
            attempts=progress.attempts,
            freeze_ms=progress.freeze_ms,
            steps=progress.steps,
            in_step=self._in_step,
            dirty=len(self._dirty),
            in_flight=self._keeper.mirror.in_flight + len(self._keeper.large),
            told=self._hearing.told,
            copies=account.copies,
            removed=account.removed,
            rescans=dict(account.rescans),
            foreign=0 if self._keeper.direction.is_guarded else len(self.standing.foreign),
            foreign_seen=self.standing.foreign_seen,
            failed=self.standing.failed,
            extra=len(self.standing.extra),
            lag=account.lags.figures,
            longest_pause_ms=round(account.longest * 1000, 3),
            waiting_for=self._waiting_for or progress.waiting_for or self._queues_waiting or None,
            was_in_step=self._was_in_step,
        )
