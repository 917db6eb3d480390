"""Keeping copies what they are copied from: what is dirty is sent, and what comes of each pair is taken."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from luamigrate.migration.account import Account
from luamigrate.migration.cross_slot_mirror import CrossSlotMirror
from luamigrate.migration.direction import Direction
from luamigrate.migration.dirty import UNTOLD, DirtyNames
from luamigrate.migration.guarded_cross_slot import GuardedCrossSlotMirror
from luamigrate.migration.guarded_mirror import GuardedMirror
from luamigrate.migration.hearing import Hearing
from luamigrate.migration.large_mirror import LargeMirror
from luamigrate.migration.lease import Lease
from luamigrate.migration.mirror import WROTE, Arrived, Mirror, Result
from luamigrate.migration.options import FollowOptions
from luamigrate.migration.pace import Pace
from luamigrate.migration.pairing import Pairing
from luamigrate.migration.routing import cluster_of
from luamigrate.migration.standing import Pair, Standing
from luamigrate.migration.throttle import Throttle
from luamigrate.model.control import Control
from luamigrate.model.cutover import Side
from luamigrate.model.following import Rescan
from luamigrate.model.status import Word
from luamigrate.server.clients import waiting_clients
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment

NOBODY_AT_ALL = -1
"""For how many clients may wait: no queue is written, because one waits where it would be."""


class Keeper:
    """Has all that is known of the pairs of one follow; it waits for nothing."""

    def __init__(
        self,
        deployment: Deployment,
        direction: Direction,
        options: FollowOptions,
        control: Control,
        *,
        lease: Lease,
        throttle: Throttle,
    ) -> None:
        self._deployment, self._limits, self._lease = deployment, options.limits, lease
        self.direction, self.throttle = direction, throttle
        self.standing, self.dirty, self.account = Standing(), DirtyNames(), Account(direction.plan)
        self.standing.left = direction.left
        self.hearing = Hearing(deployment, direction, self.standing, self.dirty)
        self.mirror = self._new_mirror()
        self.large = LargeMirror(
            deployment, direction, options.limits, control, lease=lease, standing=self.standing, hearing=self.hearing
        )
        self._pairing = Pairing(direction, self.standing, self.hearing, self.account)
        self.is_copying = True
        """Whether pairs are looked at for the first time."""
        self.backlog: int | None = None
        """How many pairs that a scan has found have not been answered for; None where no scan has just ended."""
        self.fence: int | None = None
        """The barrier after which the lease is to be taken again; until then nothing is sent."""
        self.waiting = set[bytes]()
        """Pairs of queues that are not mirrored back while clients wait for something."""
        self.moving = set[bytes]()
        """Pairs that cannot be mirrored back while a slot is being moved to another node, until they are."""
        self.doubt: Rescan | None = None
        """Why both sides have to be scanned again, if they have to be."""

    def take_all(self, *, wait: bool = False) -> None:
        """Take what has been answered; with `wait`, all that is in flight. Raises what calls do."""
        for arrived in self.mirror.arrived(wait=wait):
            self.take(arrived)
            if self.backlog is not None:
                self.backlog -= len(arrived.results) + len(arrived.big) + len(arrived.waited)

    def take(self, arrived: Arrived) -> None:
        """Take what came of a batch."""
        self.account.longest = max(self.account.longest, arrived.seconds)
        if arrived.repeated:
            # What it made at first has been answered for as if it had been there.
            self.standing.loses_sight(claiming=True)
            self.doubt = Rescan.LOST
        now, barrier = time.perf_counter(), self.hearing.next_barrier
        for result in arrived.results:
            self._take_result(result, now, barrier, repeated=arrived.repeated)
        for big in arrived.big:
            self.answered(big.pair, barrier, wrote=arrived.repeated)
            self.moving.discard(big.pair.source)
            if self.standing.postpone(big.pair):
                self.large.put(big)
        for pair in arrived.waited:
            self.answered(pair, barrier, wrote=arrived.repeated)
            self.moving.discard(pair.source)
            self.waiting.add(pair.source)
        self.put_back(arrived.undone, wrote=arrived.repeated)
        for pair in arrived.moving:
            self.answered(pair, barrier, wrote=arrived.repeated)
            self.moving.add(pair.source)
        if arrived.is_unheld and self.fence is None:
            self.fence = self.hearing.barrier()
        if arrived.refusal:
            self.throttle.refused(arrived.refusal)
        else:
            self.throttle.accepted()

    def _take_result(self, result: Result, now: float, barrier: int, *, repeated: bool) -> None:
        pair, standing = result.pair, self.standing
        is_first = self.is_copying or standing.is_postponed(pair.source)
        self.account.count(result, now, is_first=is_first and pair.source not in standing.known)
        if self.large:
            self.large.drop(pair.source)
        self.moving.discard(pair.source)
        if (proof := self.hearing.proof) and proof.finds(result, barrier):
            self.answered(pair, barrier, wrote=repeated)
            self.dirty.put(pair.source, UNTOLD)
            return
        # The one before may have written, and its answer was lost.
        if self.answered(pair, barrier, wrote=(result.word in WROTE) + repeated):
            self.dirty.put(pair.source, UNTOLD)
        if result.word is Word.FAILED:
            news = standing.failed_with(pair, result.text)
        else:
            news = standing.answered(pair, result.word, barrier, repeated=repeated)
        if news:
            self.account.note(news)

    def put_back(self, pairs: list[Pair], *, wrote: bool) -> None:
        """Have pairs wait again that were not done, as far as is known; tell whether they may have been written."""
        barrier = self.hearing.next_barrier
        for pair in pairs:
            self.answered(pair, barrier, wrote=wrote)
            self.dirty.put_back(pair.source, pair.moment)

    def answered(self, pair: Pair, barrier: int, *, wrote: int) -> bool:
        """Note how often at most we wrote a copy; return whether somebody else has written it too."""
        copy = self.direction.copy_of(pair)
        is_foreign = self.hearing.own_writes.answered(copy, barrier, wrote=wrote)
        if is_foreign:
            self.standing.suspect(pair.source)
        return is_foreign

    def after_barriers(self) -> bool:
        """Decide what was waiting for a barrier; tell whether the lease may be taken again now."""
        passed = self.hearing.passed
        self.hearing.own_writes.passed(passed)
        if proof := self.hearing.proof:
            self.account.note(proof.passed(passed))
        for found in self.standing.passed(passed):
            if isinstance(found, bytes):
                self.dirty.put(found, UNTOLD)
            else:
                self.account.note([found])
        return self.fence is not None and passed >= self.fence

    def send(self) -> bool:
        """Send what waits, as far as there is room; tell whether that was all, and there was any."""
        rate, sent_all = self.throttle.rate, False
        while self.dirty and not self.mirror.is_full and not rate.seconds_to_wait(time.monotonic):
            for pairs in self._pairing.pairs(self.dirty.take(self.mirror.size)):
                self.mirror.send(pairs)
                rate.sent(len(pairs), time.monotonic)
            sent_all = not self.dirty
        self.mirror.flush()
        return sent_all

    def send_a_little(self, pairs_at_once: int) -> None:
        """Send what waits, each batch on its own and of no more pairs than these."""
        while self.dirty and not self.mirror.is_full:
            for pairs in self._pairing.pairs(self.dirty.take(min(pairs_at_once, self.mirror.size))):
                self.mirror.send(pairs)
                self.mirror.flush()
        self.mirror.flush()

    def try_moving(self) -> None:
        """Have pairs mirrored that were not because their slots were being moved, as some may not be any more."""
        for source in self.moving:
            self.dirty.put(source, UNTOLD)

    def try_waiting(self) -> None:
        """Have queues mirrored that were not because clients waited, if none does where the old names are."""
        if not self.waiting:
            return
        waiting = {server: [*waiting_clients(server)] for server in self._deployment.primaries}
        free = {source for source in self.waiting if not self._is_waited_on(source, waiting)}
        if not self._deployment.slots:
            counts = map(len, waiting.values())
            self.mirror.may_wait = sum(counts) if free else NOBODY_AT_ALL
        self.release(free)

    def release(self, free: set[bytes]) -> None:
        """Have some of the queues mirrored that were not because clients waited."""
        for source in free:
            self.dirty.put(source, UNTOLD)
        self.waiting -= free

    def _is_waited_on(self, source: bytes, waiting: Mapping[Connection, Sequence[int]]) -> bool:
        return self.direction.database in waiting.get(self._deployment.node_for(source), ())

    def forget_flights(self) -> None:
        """Have all pairs wait again that are in flight, whose answers will not come."""
        dropped = self.mirror.dropped()
        self.put_back(dropped, wrote=True)
        for pair in self.large.dropped():
            self.dirty.put_back(pair.source, pair.moment)
        if dropped:
            self.standing.loses_sight(claiming=not self.direction.is_guarded)

    def pace_of(self, server: Connection) -> Pace:
        """Return the pace of a server."""
        return self.mirror.pace_of(server)

    def tend(self) -> None:
        """Go by the limits that hold now, and see to what is done now and then. Raises what calls do."""
        self.mirror.limit(self.throttle.limits)
        self.large.limit(self.throttle.limits)
        self.mirror.keep_in_touch()
        self.try_waiting()
        self.try_moving()

    @property
    def is_busy(self) -> bool:
        """Whether anything waits, or is under way."""
        waits = self.dirty or self.waiting or self.moving or self.large or self.mirror.in_flight
        return bool(waits) or self.fence is not None

    def close(self) -> None:
        """Stop what is under way, and listening."""
        self.large.close()
        self.mirror.close()
        self.hearing.close()

    def turn(self, side: Side) -> None:
        """Mirror from these names to the others from now on: nothing is in flight, and all pairs are equal."""
        self.direction.turn(side)
        self.hearing.turned()
        self.standing.turned(self.direction.left)
        self.waiting.clear()
        self.moving.clear()
        self.mirror.close()
        self.mirror = self._new_mirror()

    def _new_mirror(self) -> Mirror:
        given = self.direction, self._limits, self._lease
        if cluster := cluster_of(self._deployment):
            if self.direction.is_guarded:
                return GuardedCrossSlotMirror(cluster, *given, self)
            return CrossSlotMirror(cluster, *given)
        server = self._deployment.primaries[0]
        return GuardedMirror(server, *given, self) if self.direction.is_guarded else Mirror(server, *given)

    def barrier(self) -> int:
        """Begin a barrier; return how many will have passed after it."""
        return self.hearing.barrier()

    @property
    def passed(self) -> int:
        """How many barriers there have been."""
        return self.hearing.passed

    def still_owns(self, pair: Pair) -> bool:
        """Tell, after a barrier, whether nobody else has written the copy; then it is about to be written."""
        # What we wrote before it has been told by now.
        self.hearing.own_writes.passed(self.hearing.passed)
        if self.answered(pair, self.hearing.next_barrier, wrote=0):
            self.dirty.put(pair.source, UNTOLD)
            return False
        self.hearing.own_writes.sent(self.direction.copy_of(pair))
        return pair.rights == "0" or not self.standing.is_somebody_elses(pair.source)
