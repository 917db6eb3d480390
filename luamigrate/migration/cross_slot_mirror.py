"""Mirroring in a cluster, where no script sees both keys of a pair: sources are read, then their targets are written.

A source that changes in between is told, and so is mirrored again. Nothing is in flight twice: a later look at a
source never comes to its target before an earlier one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, takewhile
from typing import Protocol

from redis.crc import key_slot

from luamigrate.migration.cross_slot import CrossSlotBatch, KeyStates, Steps
from luamigrate.migration.cross_slot_verbs import Comparing
from luamigrate.migration.direction import Direction
from luamigrate.migration.lease import Lease
from luamigrate.migration.mirror import Arrived, Flight, Mirror
from luamigrate.migration.pace import Pace
from luamigrate.migration.standing import Pair
from luamigrate.model.comparison import Comparison
from luamigrate.model.limits import Limits, Pause
from luamigrate.model.rules import Pairs, Rule
from luamigrate.model.status import Word
from luamigrate.scripts import follow_calls
from luamigrate.scripts.calls import Answer, ScriptCall
from luamigrate.scripts.replies import CrossSlotReply, KeyState, MirrorReply, PairReply, said
from luamigrate.server.cluster import Cluster
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment

SCRIPTS = ("cross_slot/read", "cross_slot/mirror", "cross_slot/compare")

MOST_FRAMED_BYTES = 12_000
"""Of payloads in one packet while writes are held: it has names and what else is asked too, and has to stay small."""
LEAST_BYTES = 100
"""That a target takes in a packet beside its payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """On which terms targets are written."""

    lease: Lease
    away: int | None = None
    """How long nobody followed, while that is asked for: what its source was not touched for so long is not our own."""
    may_wait: int | None = None
    untold: int | None = None
    """See cross_slot/mirror.lua."""


_Given = tuple[bytes, int, int, str, str]


class Give(Protocol):
    """Gives targets, by their indexes in a batch, the payloads that were read; as many of them as fit in a packet."""

    def __call__(
        self,
        server: Connection,
        names: list[bytes],
        indexes: list[int],
        *,
        alone: bool,
        through: Connection | None = None,
        room: int = MOST_FRAMED_BYTES,
    ) -> ScriptCall:
        """Send it to a server, or `through` another connection to that."""


class Write(Protocol):
    """Has targets of a batch written, and returns an answer for each."""

    def __call__(
        self, batch: CrossSlotBatch, indexes: list[int], give: Give, /
    ) -> Generator[None, None, dict[int, Answer]]:
        """Yield between round trips."""


class CrossSlotMirror(Mirror):
    """Sends batches to the nodes of a cluster, each at the pace of its node."""

    def __init__(self, cluster: Cluster, direction: Direction, limits: Limits, lease: Lease) -> None:
        super().__init__(cluster.primaries[0], direction, limits, lease)
        self._cluster = cluster
        self._paces: dict[Connection, Pace] = {}

    def pace_of(self, server: Connection) -> Pace:
        """Return the pace of a node."""
        if server not in self._paces:
            self._paces[server] = Pace(self._limits, server.round_trip)
        return self._paces[server]

    def _all_paces(self) -> Iterable[Pace]:
        return self._paces.values()

    @property
    def size(self) -> int:
        """The most pairs for the next batch, which all nodes share."""
        return sum(self.pace_of(server).size for server in self._cluster.primaries)

    @property
    def has_arrived(self) -> bool:
        """Whether there is something to be waited for: several steps follow one another here."""
        return bool(self._flights)

    @property
    def busy(self) -> list[Connection]:
        """No connection: whoever waits here waits for what is told."""
        return []

    def flush(self) -> None:
        """Do nothing: what was asked has been sent."""

    def send(self, pairs: Sequence[Pair]) -> None:
        """Send pairs, by the nodes that have the sources."""
        self.send_on(pairs)

    def send_on(self, pairs: Sequence[Pair], *, whole: bool = False) -> None:
        """Send pairs, by the nodes that have the sources; `whole`, if the only one may take the longest pause."""
        groups: dict[tuple[Rule, Connection], list[Pair]] = {}
        for pair in pairs:
            live, _ = self._direction.ends(pair)
            node = self._cluster.node_of(key_slot(live))
            groups.setdefault((pair.rule, node), []).append(pair)
        for (rule, node), group in groups.items():
            pace = self.pace_of(node)
            pause = Pause(int(self._limits.max_pause * 1000), pace.whole_key) if whole else pace.pause
            lives, copies = zip(*map(self._direction.ends, group), strict=True)
            together = Pairs(rule, [*lives], [*copies])
            rights = [pair.rights for pair in group]
            steps = partial(mirror_pairs, rights=rights, terms=Terms(lease=self._lease, away=self.away))
            batch = CrossSlotBatch(self._cluster, node, together, pause, steps)
            self._flights.append(Flight(group, batch, pace, is_whole=whole))

    def arrived(self, *, wait: bool = False) -> Iterator[Arrived]:
        """Yield what came of all batches, one step of all after the other."""
        # Side by side: each takes the same step.
        while sum(flight.call.advance() for flight in self._flights):
            pass
        yield from super().arrived(wait=wait)


def scripts_for(deployment: Deployment) -> tuple[str, ...]:
    """Return the scripts that a follow calls."""
    return ("lease", *(SCRIPTS if deployment.slots else ("mirror", "mirror_plain")))


def _write(batch: CrossSlotBatch, indexes: list[int], give: Give) -> Generator[None, None, dict[int, Answer]]:
    return (yield from batch.ask(batch.pairs.targets, indexes, give))


def mirror_pairs(batch: CrossSlotBatch, *, rights: list[str], terms: Terms, write: Write = _write) -> Steps:
    """Read the sources, and make their targets the same; one that is absent or of another type has none."""
    away = terms.away
    beside = "payload" if away is None else "idle"
    sources = yield from batch.read_found(batch.pairs.sources, beside)
    if away is not None:
        batch.results |= {index: _told_of_big(reply, away) for index, reply in batch.results.items()}
    ignored = {index: reply for index, reply in batch.results.items() if said(reply)[0] == Word.IGNORED.reply}
    for index in ignored:
        del batch.results[index]
        sources[index] = None

    def give(
        server: Connection,
        names: list[bytes],
        indexes: list[int],
        *,
        alone: bool,
        through: Connection | None = None,
        room: int = MOST_FRAMED_BYTES,
    ) -> ScriptCall:
        connection = through or server
        given = [_given(sources[index], rights[index], away) for index in indexes]
        fitting = _fitting(given, room) if connection.frame else len(given)
        payloads: list[bytes | str | int] = [value for each in given[:fitting] for value in each]
        return follow_calls.cross_slot_mirror(
            connection,
            names[:fitting],
            batch.pause,
            *payloads,
            kind=batch.pairs.rule.type,
            held_until=terms.lease.held_until(server),
            may_wait=terms.may_wait,
            untold=terms.untold,
            alone=alone,
        )

    unlike: dict[int, KeyState] = {}
    for index, reply in (yield from write(batch, sorted(sources), give)).items():
        source = sources[index]
        if reply == CrossSlotReply.UNLIKE and source:
            unlike[index] = source
        else:
            batch.results[index] = ignored.get(index, reply) if reply == Word.GONE.reply else reply
    if unlike:
        yield from _judge(batch, unlike)
    if terms.untold is not None:
        yield from _see_who_wrote(batch, terms.untold)


def _see_who_wrote(batch: CrossSlotBatch, untold: int) -> Steps:
    """Mark big pairs whose targets may be somebody else's, because they were touched while nobody was told of it."""
    big = [index for index, reply in batch.results.items() if said(reply)[0] == PairReply.BIG]
    if not big:
        return
    replies = yield from batch.ask(batch.pairs.targets, big, batch.reading(beside="idle"))
    for index, reply in replies.items():
        idle = reply[-1] if isinstance(reply, list) else _number_behind(reply)
        told = batch.results[index]
        if reply != Word.GONE.reply and not (isinstance(idle, int) and idle > untold) and isinstance(told, bytes):
            batch.results[index] = told + b" untouched"


def _number_behind(reply: bytes) -> int:
    number = reply.rpartition(b" ")[2]
    return int(number) if number.isdigit() else -1


def _told_of_big(reply: Answer, away: int) -> Answer:
    """Return what mirror.lua would say of a big source, given the reply that ends with how long it was idle."""
    if not isinstance(reply, bytes) or said(reply)[0] != PairReply.BIG:
        return reply
    told, _, idle = reply.rpartition(b" ")
    return told + b" untouched" if int(idle) > away else told


def _fitting(given: Sequence[_Given], room: int) -> int:
    """Return how many targets fit in a packet with what they are given, but one at least."""
    sizes = accumulate(len(payload) + LEAST_BYTES for payload, *_ in given)
    return max(1, sum(1 for _ in takewhile(lambda size: size <= room, sizes)))


def _given(source: KeyState | None, rights: str, away: int | None) -> _Given:
    """Return what cross_slot/mirror.lua takes for a target."""
    if source is None:
        return b"", -1, 0, "", rights
    payload, *idle = source.beside
    # One that differs, though its source was not touched since before nobody followed, was written by somebody else.
    is_untouched = away is not None and idle[0] > away
    return payload, source.at, source.size, source.kind, "0" if is_untouched else rights


def _judge(batch: CrossSlotBatch, sources: dict[int, KeyState]) -> Generator[None, None, None]:
    """Say of targets that are not the follow's own, and have other payloads, whether they are equal in value."""
    targets: KeyStates = yield from batch.read_targets(sources)
    comparing = Comparing(batch, Comparison())
    found = yield from comparing.provisionals(sources, comparing.present(sources, targets))
    for index in sources:
        if batch.results.get(index) in (Word.MISSING.reply, Word.GONE.reply):
            # One of the two was deleted meanwhile: how the other one is, is not known.
            batch.results[index] = MirrorReply.UNDECIDED
    for index, result in found.items():
        expires_together = result.target is not None and result.target.at == result.source.at
        is_same = expires_together and result.answer == Word.SAME.reply
        batch.results[index] = Word.SAME.reply if is_same or _only_groups_differ(result.answer) else Word.FOREIGN.reply


def _only_groups_differ(answer: Answer) -> bool:
    """Tell whether it is nothing but the groups of a stream, of whose changes nobody is told."""
    return isinstance(answer, list) and isinstance(answer[-1], list) and answer[-1] == [b"groups"]
