"""Mirroring after a flip: a name that was left is written only if nobody else has written it since it was looked at.

These names are put under WATCH; a barrier then tells who had written one before; EXEC fails where somebody has written
one since. So the write of a straggler is not overwritten unseen. Only one that comes in the very turn of the server's
loop in which ours was made is told together with it, and cannot be told from it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from luamigrate.migration.direction import Direction
from luamigrate.migration.guard import Gap, Guard, divided
from luamigrate.migration.lease import Lease
from luamigrate.migration.mirror import Arrived, Big, Flight, Mirror, Result
from luamigrate.migration.standing import Pair
from luamigrate.model.errors import Error, printable
from luamigrate.model.limits import Limits
from luamigrate.model.status import Word
from luamigrate.scripts import library
from luamigrate.scripts.calls import Answer
from luamigrate.scripts.replies import said
from luamigrate.server.call import Call
from luamigrate.server.connection import Connection
from luamigrate.server.errors import ScriptMissing, explain

SECONDS_OF_MARKS = 10.0
"""For which it is remembered what an old name was made: far longer than it takes to notice that nobody is told."""


@dataclass
class _Batch:
    """Pairs that are under way: under WATCH, then waiting for a barrier, then being written."""

    pairs: list[Pair]
    is_whole: bool
    watching: list[Call]
    barrier: float = math.inf
    """The one after which it is known who had written them."""
    executed: Call | None = None
    left_alone: list[Pair] = field(default_factory=list)
    """Pairs whose copies somebody else has written."""


class _Executed:
    """A script's answers for pairs, given by EXEC."""

    waited = repeated = False

    def __init__(self, call: Call) -> None:
        self.seconds = call.seconds or 0.0
        self._reply = call.answer()

    @property
    def is_disturbed(self) -> bool:
        """Whether somebody has written one of the names, so that nothing was done."""
        return self._reply is None

    def advance(self) -> bool:
        """Take no step: all have been taken."""
        return False

    def answers(self) -> tuple[list[Answer], float]:
        """Return the answers for pairs, and how long the script says it has taken, in seconds."""
        match self._reply:
            case [[*answers, int(microseconds)]]:
                return answers, microseconds / 1e6
            case [Exception() as problem]:
                raise explain(problem)
        raise Error("the server does not answer EXEC as it should")


class GuardedMirror(Mirror):
    """Sends one batch at a time, on a connection of its own, on which nothing else is watched."""

    def __init__(self, server: Connection, direction: Direction, limits: Limits, lease: Lease, guard: Guard) -> None:
        super().__init__(server, direction, limits, lease)
        self._guard = guard
        self.may_wait = 0 if direction.is_back else None
        self.connection = server.once_more()
        """On which old names are watched and written."""
        self._waiting: deque[tuple[list[Pair], bool]] = deque()
        """Pairs for the batches to come, and whether each may take the longest pause."""
        self._batch: _Batch | None = None
        self._gap = Gap()
        self._marks: dict[bytes, tuple[float, str]] = {}
        """When old names were made last, and what tells what they were made from all else; the last ones alone."""

    @property
    def busy(self) -> list[Connection]:
        """The connections on which answers are to come."""
        return [*super().busy, *([self.connection] if self.connection.is_waiting else [])]

    @property
    def is_full(self) -> bool:
        """Whether a batch is under way."""
        return self._batch is not None or bool(self._waiting)

    @property
    def has_arrived(self) -> bool:
        """Whether the batch may take its next step."""
        batch = self._batch
        if not batch:
            return bool(self._waiting)
        if batch.executed:
            return batch.executed.is_answered
        return batch.barrier <= self._guard.passed or (math.isinf(batch.barrier) and batch.watching[-1].is_answered)

    @property
    def in_flight(self) -> int:
        """How many pairs are under way."""
        batch = self._batch
        under_way = len(batch.pairs) + len(batch.left_alone) if batch else 0
        return under_way + sum(len(pairs) for pairs, _ in self._waiting)

    def flush(self) -> None:
        """See that what was asked is sent."""
        super().flush()
        self.connection.poll()

    def send(self, pairs: Sequence[Pair]) -> None:
        """Begin with pairs, whose copies are in one database, or have them wait."""
        self.send_on(pairs)

    def send_on(self, pairs: Sequence[Pair], *, whole: bool = False) -> None:
        """Begin with pairs, or have them wait for those that are under way."""
        self._waiting.append(([*pairs], whole))
        self._begin()

    def arrived(self, *, wait: bool = False) -> Iterator[Arrived]:
        """Yield what came of batches; with `wait`, give up what is under way. Raises what calls do."""
        if wait:
            yield Arrived(undone=self.dropped())
        self.flush()
        while self.has_arrived:
            if arrived := self._advance():
                yield arrived
            self._begin()
            self.flush()

    def dropped(self) -> list[Pair]:
        """Drop what is under way, whose answers will not come; return the pairs."""
        batch, self._batch = self._batch, None
        pairs = [*batch.pairs, *batch.left_alone] if batch else []
        pairs += [pair for waiting, _ in self._waiting for pair in waiting]
        self._waiting.clear()
        return pairs

    def reconnect(self, *, unwatched_since: float) -> None:
        """Make its own connection anew; old names that were touched since that moment may be a straggler's."""
        self.connection.close()
        self.connection = self._server.once_more()
        self._gap.begins(unwatched_since)

    def knows_all(self) -> None:
        """Note that all pairs have been looked at since."""
        self._gap.ends()

    @property
    def connections(self) -> Mapping[Connection, Sequence[Connection]]:
        """The one on which old names are watched and written."""
        return {self._server: [self.connection]}

    def keep_in_touch(self) -> None:
        """See that the server does not close the connection because it is idle. Raises what calls do."""
        if not self._batch:
            self.connection.keep_in_touch()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def _begin(self) -> None:
        """Put the next pairs under WATCH."""
        if self._batch or not self._waiting:
            return
        pairs, is_whole = self._waiting.popleft()
        copies = [self._direction.copy_of(pair) for pair in pairs]
        rule = pairs[0].rule
        home, database = self.connection.database, self._direction.databases(rule)[1]
        commands: list[tuple[bytes | str | int, ...]] = [("WATCH", *copies)]
        if database != home:
            commands = [("SELECT", database), *commands, ("SELECT", home)]
        watching = [self.connection.call(*command, once=True) for command in commands]
        self._batch = _Batch(pairs, is_whole, watching)

    def _advance(self) -> Arrived | None:
        """Take the next step of the batch; return what came of it after the last."""
        batch = self._batch
        if not batch:
            return None
        if batch.executed:
            return self._ended(batch, batch.executed)
        if math.isinf(batch.barrier):
            for call in batch.watching:
                if call.answer() != b"OK":
                    raise Error(f"the server does not answer {call.name} as it should")
            batch.barrier = self._guard.barrier()
            return None
        self._execute(batch)
        return None if batch.executed else self._given_up(batch)

    def _execute(self, batch: _Batch) -> None:
        """Write what is still our own, if it stays so until then."""
        batch.pairs, batch.left_alone = divided(batch.pairs, self._guard)
        if batch.pairs:
            seconds = self._gap.seconds
            self.away = None if seconds is None else -seconds
            self.connection.call("MULTI", once=True)
            self._called(self.connection, batch.pairs, whole=batch.is_whole)
            batch.executed = self.connection.call("EXEC", once=True)

    def _given_up(self, batch: _Batch) -> Arrived:
        self._batch = None
        self.connection.call("UNWATCH", once=True)
        return Arrived(undone=batch.left_alone)

    def _keys_and_how(self, pairs: Sequence[Pair]) -> tuple[list[bytes], list[str]]:
        keys, how = super()._keys_and_how(pairs)
        nothing = (0.0, "")
        how[1::2] = [f"{pair.rights}+{self._marks.get(pair.source, nothing)[1]}" for pair in pairs]
        return keys, how

    def _read_rest(self, flight: Flight, pair: Pair, answer: Answer) -> Result | Big | None:
        word, mark = said(answer)
        if word != Word.COPIED.reply:
            return super()._read_rest(flight, pair, answer)
        now = time.monotonic()
        self._marks.pop(pair.source, None)
        self._marks[pair.source] = now, printable(mark)
        # While it is not known who has written old names, all that is known is needed.
        while self._gap.seconds is None and next(iter(self._marks.values()))[0] < now - SECONDS_OF_MARKS:
            del self._marks[next(iter(self._marks))]
        return Result(pair, Word.COPIED)

    def _ended(self, batch: _Batch, call: Call) -> Arrived:
        self._batch = None
        executed = _Executed(call)
        if executed.is_disturbed:
            return Arrived(undone=[*batch.pairs, *batch.left_alone])
        try:
            answers, seconds = executed.answers()
        except ScriptMissing:
            library.register(self._server, "mirror")
            return Arrived(undone=[*batch.pairs, *batch.left_alone])
        flight = Flight(batch.pairs, executed, self._pace, is_whole=batch.is_whole)
        if not 1 <= len(answers) <= len(batch.pairs):
            raise Error(f"the script answered for {len(answers)} of {len(batch.pairs)} keys")
        self._learn(flight, len(answers), seconds)
        arrived = self._read(flight, answers, seconds or executed.seconds)
        arrived.undone.extend(batch.left_alone)
        return arrived
