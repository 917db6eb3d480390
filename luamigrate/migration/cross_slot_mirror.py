"""Mirroring in a cluster, where no script sees both keys of a pair: sources are read, then their targets are written.

A source that changes in between is told, and so is mirrored again. Nothing is in flight twice: a later look at a
source never comes to its target before an earlier one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import partial

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
            steps = partial(_mirror, rights=rights, lease=self._lease, away=self.away)
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


def _mirror(batch: CrossSlotBatch, *, rights: list[str], lease: Lease, away: int | None) -> Steps:
    """Read the sources, and make their targets the same; one that is absent or of another type has none."""
    beside = "payload" if away is None else "idle"
    sources = yield from batch.read_found(batch.pairs.sources, beside)
    if away is not None:
        batch.results |= {index: _told_of_big(reply, away) for index, reply in batch.results.items()}
    ignored = {index: reply for index, reply in batch.results.items() if said(reply)[0] == Word.IGNORED.reply}
    for index in ignored:
        del batch.results[index]
        sources[index] = None

    def give(server: Connection, names: list[bytes], indexes: list[int], *, alone: bool) -> ScriptCall:
        payloads: list[bytes | str | int] = []
        for index in indexes:
            payloads += _given(sources[index], rights[index], away)
        held_until = lease.held_until(server)
        kind = batch.pairs.rule.type
        return follow_calls.cross_slot_mirror(
            server, names, batch.pause, *payloads, kind=kind, held_until=held_until, alone=alone
        )

    unlike: dict[int, KeyState] = {}
    for index, reply in (yield from batch.ask(batch.pairs.targets, sorted(sources), give)).items():
        source = sources[index]
        if reply == CrossSlotReply.UNLIKE and source:
            unlike[index] = source
        else:
            batch.results[index] = ignored.get(index, reply) if reply == Word.GONE.reply else reply
    if unlike:
        yield from _judge(batch, unlike)


def _told_of_big(reply: Answer, away: int) -> Answer:
    """Return what mirror.lua would say of a big source, given the reply that ends with how long it was idle."""
    if not isinstance(reply, bytes) or said(reply)[0] != PairReply.BIG:
        return reply
    told, _, idle = reply.rpartition(b" ")
    return told + b" untouched" if int(idle) > away else told


def _given(source: KeyState | None, rights: str, away: int | None) -> tuple[bytes | str | int, ...]:
    """Return what cross_slot/mirror.lua takes for a target."""
    if source is None:
        return b"", -1, 0, rights
    payload, *idle = source.beside
    # One that differs, though its source was not touched since before nobody followed, was written by somebody else.
    is_untouched = away is not None and idle[0] > away
    return payload, source.at, source.size, "0" if is_untouched else rights


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
