"""Mirroring after a flip in a cluster: a name that was left is written only if nobody else has since it was looked at.

It goes as in `guarded_mirror`, but that the live names are read at their nodes: after the barrier, and before their
copies are written, on the connections on which these are under WATCH, by one EXEC for each node.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from redis.crc import key_slot

from luamigrate.migration.cross_slot import CrossSlotBatch
from luamigrate.migration.cross_slot_mirror import MOST_FRAMED_BYTES, CrossSlotMirror, Give, Terms, mirror_pairs
from luamigrate.migration.direction import Direction
from luamigrate.migration.guard import Gap, Guard, divided
from luamigrate.migration.lease import Lease
from luamigrate.migration.mirror import Arrived, Flight
from luamigrate.migration.standing import Pair
from luamigrate.model.errors import Error
from luamigrate.model.limits import Limits, Pause
from luamigrate.model.rules import Pairs, Rule
from luamigrate.scripts import library
from luamigrate.scripts.calls import Answer, ScriptCall
from luamigrate.scripts.replies import MirrorReply, PairReply
from luamigrate.server.call import Call
from luamigrate.server.cluster import Cluster
from luamigrate.server.connection import Connection
from luamigrate.server.errors import ConnectionLost, Redirected, ScriptMissing, Unsettled, explain

SECONDS_BETWEEN_REFRESHES = 0.5
"""At least, between two times that the nodes are asked which has which slot."""


class _Transaction:
    """Copies at one node under WATCH, and the EXEC that writes them if nobody else has since."""

    def __init__(self, node: Connection, own: Connection, names: Sequence[bytes]) -> None:
        self._node, self._own = node, own
        self._watch = own.watch(names)
        self._watching = own.call("PING", once=True)
        self._writes: list[ScriptCall] = []
        self._answers: list[tuple[list[Answer], float]] = []
        """What each of the calls has answered, and how long it took; none where nothing was written."""

    @property
    def is_watching(self) -> bool:
        """Whether the server has answered WATCH."""
        return self._watching.is_answered

    def confirm(self) -> set[bytes]:
        """Return the names that are not under WATCH, because they are at another node or on their way there."""
        self._watching.answer()
        refusal = self._watch.refusal
        if refusal and not isinstance(refusal, Redirected | Unsettled):
            raise refusal
        return self._watch.refused

    def add(self, names: list[bytes], indexes: list[int], give: Give, *, room: int) -> int:
        """Have names of a batch be written by EXEC; return where in it that is."""
        if not self._writes:
            self._own.call("MULTI", once=True)
        self._writes.append(give(self._node, names, indexes, alone=False, through=self._own, room=room))
        return len(self._writes) - 1

    def answers(self, place: int) -> tuple[list[Answer], float]:
        """Return what was answered in a place of EXEC, and how long that took; nothing where nothing was written."""
        return self._answers[place] if self._answers else ([], 0.0)

    def send(self) -> Call:
        """Send EXEC with all that is to be written, or give up what is under WATCH."""
        call = self._own.call("EXEC" if self._writes else "UNWATCH", once=True)
        self._own.flush()
        return call

    def take(self, executed: Call) -> None:
        """Take the answer to that. Raises what has ended it."""
        for write in self._writes:
            write.queued()
        reply = executed.answer()
        if not self._writes or reply is None:
            return
        if not isinstance(reply, list) or len(reply) != len(self._writes):
            raise Error("the server does not answer EXEC as it should")
        problems = [explain(answer) for answer in reply if isinstance(answer, Exception)]
        if problems and all(isinstance(problem, ScriptMissing) for problem in problems):
            library.register(self._node, "cross_slot/mirror")
        elif problems:
            raise problems[0]
        else:
            self._answers = [write.read(answer) for write, answer in zip(self._writes, reply, strict=True)]


@dataclass
class _Group:
    """Pairs of one rule whose live names are at one node."""

    rule: Rule
    node: Connection
    pairs: list[Pair] = field(default_factory=list)
    left_alone: list[Pair] = field(default_factory=list)
    """Pairs whose copies somebody else has written."""
    moving: list[Pair] = field(default_factory=list)
    flight: Flight | None = None


@dataclass
class _Round:
    """Pairs that are under way together."""

    pairs: list[Pair]
    is_whole: bool
    groups: list[_Group] = field(default_factory=list)
    transactions: list[_Transaction] = field(default_factory=list)
    transaction_of: dict[bytes, _Transaction] = field(default_factory=dict)
    """By the name of the copy."""
    barrier: float = math.inf
    """The one after which it is known who had written them."""

    def write(self, batch: CrossSlotBatch, indexes: list[int], give: Give) -> Generator[None, None, dict[int, Answer]]:
        """Have targets written by EXEC, and return what came of them: UNDECIDED where nothing was done."""
        names, room = batch.pairs.targets, MOST_FRAMED_BYTES // len(self.groups)
        together: dict[_Transaction, list[int]] = {}
        for index in indexes:
            together.setdefault(self.transaction_of[names[index]], []).append(index)
        placed = [
            (transaction, chosen, transaction.add([names[index] for index in chosen], chosen, give, room=room))
            for transaction, chosen in together.items()
        ]
        yield
        replies: dict[int, Answer] = dict.fromkeys(indexes, MirrorReply.UNDECIDED)
        for transaction, chosen, place in placed:
            answers, seconds = transaction.answers(place)
            batch.seconds = max(batch.seconds, seconds)
            replies |= dict(zip(chosen, answers, strict=False))
        return replies


class GuardedCrossSlotMirror(CrossSlotMirror):
    """Sends one round at a time, on connections of its own, on which nothing else is watched."""

    def __init__(self, cluster: Cluster, direction: Direction, limits: Limits, lease: Lease, guard: Guard) -> None:
        super().__init__(cluster, direction, limits, lease)
        self._guard = guard
        self.may_wait = 0 if direction.is_back else None
        self._own: dict[Connection, Connection] = {}
        """By the main connection of their node: on them copies are watched and written."""
        self._waiting: deque[tuple[list[Pair], bool]] = deque()
        """Pairs for the rounds to come, and whether the only one may take the longest pause."""
        self._round: _Round | None = None
        self._refreshed = -math.inf
        self._gap = Gap()

    @property
    def busy(self) -> list[Connection]:
        """The connections on which answers are to come."""
        return [own for own in self._own.values() if own.is_waiting]

    @property
    def is_full(self) -> bool:
        """Whether a round is under way."""
        return self._round is not None or bool(self._waiting)

    @property
    def has_arrived(self) -> bool:
        """Whether the round may take its next step."""
        under_way = self._round
        if not under_way:
            return bool(self._waiting)
        if math.isinf(under_way.barrier):
            return all(transaction.is_watching for transaction in under_way.transactions)
        return under_way.barrier <= self._guard.passed

    @property
    def in_flight(self) -> int:
        """How many pairs are under way."""
        return (len(self._round.pairs) if self._round else 0) + sum(len(pairs) for pairs, _ in self._waiting)

    def flush(self) -> None:
        """See that what was asked is sent."""
        for own in self._own.values():
            own.poll()

    def send_on(self, pairs: Sequence[Pair], *, whole: bool = False) -> None:
        """Begin with pairs, or have them wait for those that are under way."""
        self._waiting.append(([*pairs], whole))
        self._begin()

    def arrived(self, *, wait: bool = False) -> Iterator[Arrived]:
        """Yield what came of rounds; with `wait`, give up what is under way. Raises what calls do."""
        if wait:
            yield Arrived(undone=self.dropped())
        self.flush()
        while self.has_arrived:
            yield from self._advance()
            self._begin()
            self.flush()

    def dropped(self) -> list[Pair]:
        """Drop what is under way, whose answers will not come; return the pairs."""
        under_way, self._round = self._round, None
        pairs = [*(under_way.pairs if under_way else ()), *(pair for each, _ in self._waiting for pair in each)]
        self._waiting.clear()
        return pairs

    def prepare(self) -> None:
        """Make a connection to each node."""
        for node in self._cluster.primaries:
            self._own_for(node)

    @property
    def connections(self) -> Mapping[Connection, Sequence[Connection]]:
        """Those on which copies are watched and written."""
        return {node: [own] for node, own in self._own.items()}

    def reconnect(self, *, unwatched_since: float) -> None:
        """Make its own connections anew; copies that were touched since that moment may be a straggler's."""
        self.close()
        self._gap.begins(unwatched_since)

    def knows_all(self) -> None:
        """Note that all pairs have been looked at since."""
        self._gap.ends()

    def close(self) -> None:
        """Close the connections."""
        while self._own:
            self._own.popitem()[1].close()

    def _own_for(self, node: Connection) -> Connection:
        if node not in self._own:
            own = node.once_more()
            if own.identity.run_id != node.identity.run_id:
                own.close()
                raise ConnectionLost("another server process answers now")
            self._own[node] = own
        return self._own[node]

    def _begin(self) -> None:
        """Put the next pairs under WATCH."""
        if self._round or not self._waiting:
            return
        pairs, is_whole = self._waiting.popleft()
        self._round = under_way = _Round(pairs, is_whole)
        names: dict[Connection, list[bytes]] = {}
        groups: dict[tuple[Rule, Connection], _Group] = {}
        for pair in pairs:
            live, copy = self._direction.ends(pair)
            names.setdefault(self._cluster.node_of(key_slot(copy)), []).append(copy)
            place = pair.rule, self._cluster.node_of(key_slot(live))
            groups.setdefault(place, _Group(*place)).pairs.append(pair)
        under_way.groups += groups.values()
        for node, copies in names.items():
            transaction = _Transaction(node, self._own_for(node), copies)
            under_way.transactions.append(transaction)
            under_way.transaction_of |= dict.fromkeys(copies, transaction)
        self.flush()

    def _advance(self) -> list[Arrived]:
        """Take the next step of the round; return what came of it after the last."""
        under_way = self._round
        if not under_way:
            return []
        if math.isinf(under_way.barrier):
            elsewhere = {name for each in under_way.transactions for name in each.confirm()}
            if elsewhere:
                self._set_aside(under_way, elsewhere)
            under_way.barrier = self._guard.barrier()
            return []
        for group in under_way.groups:
            self._ask(group, under_way)
        self._step(under_way)
        executed = [(each, each.send()) for each in under_way.transactions]
        for transaction, call in executed:
            transaction.take(call)
        while self._step(under_way):
            pass
        arrived = [self._ended(group) for group in under_way.groups]
        self._round = None
        return arrived

    def _set_aside(self, under_way: _Round, elsewhere: set[bytes]) -> None:
        """Leave out what is being moved to another node, and learn which node has which slot now."""
        copy_of = self._direction.copy_of
        for group in under_way.groups:
            group.moving = [pair for pair in group.pairs if copy_of(pair) in elsewhere]
            group.pairs = [pair for pair in group.pairs if copy_of(pair) not in elsewhere]
        if time.monotonic() - self._refreshed >= SECONDS_BETWEEN_REFRESHES:
            self._cluster.refresh()
            self._refreshed = time.monotonic()

    def _ask(self, group: _Group, under_way: _Round) -> None:
        """Read the live names of what is still our own."""
        owned, group.left_alone = divided(group.pairs, self._guard)
        if not owned:
            return
        pace = self.pace_of(group.node)
        pause = Pause(int(self._limits.max_pause * 1000), pace.whole_key) if under_way.is_whole else pace.pause
        terms = Terms(lease=self._lease, may_wait=self.may_wait, untold=self._gap.seconds)
        rights = [pair.rights for pair in owned]
        steps = partial(mirror_pairs, rights=rights, terms=terms, write=under_way.write)
        lives, copies = zip(*map(self._direction.ends, owned), strict=True)
        batch = CrossSlotBatch(self._cluster, group.node, Pairs(group.rule, [*lives], [*copies]), pause, steps)
        group.flight = Flight(owned, batch, pace, is_whole=under_way.is_whole)

    def _step(self, under_way: _Round) -> bool:
        """Take the same step of all groups; tell whether there was any."""
        flights = [group.flight for group in under_way.groups if group.flight]
        return sum(flight.call.advance() for flight in flights) > 0

    def _ended(self, group: _Group) -> Arrived:
        if not group.flight:
            return Arrived(undone=group.left_alone, moving=group.moving)
        answers, seconds = group.flight.call.answers()
        self._learn(group.flight, len(answers), seconds)
        moving = [pair for pair, answer in zip(group.flight.pairs, answers, strict=False) if answer == PairReply.MOVED]
        undecided: list[Answer] = [MirrorReply.UNDECIDED if answer == PairReply.MOVED else answer for answer in answers]
        arrived = self._read(group.flight, undecided, seconds)
        undone = [pair for pair in arrived.undone if pair not in moving]
        return replace(arrived, undone=[*undone, *group.left_alone], moving=[*moving, *group.moving])
