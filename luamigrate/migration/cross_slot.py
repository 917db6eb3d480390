"""A batch of pairs whose halves live in two slots, on its way through the steps that its verb takes.

Keys are asked about in batches, undeclared, each at the node that holds it; one that has moved is asked about
alone and declared, so that the nodes say where it is.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from redis.crc import key_slot

from luamigrate.model.errors import Error
from luamigrate.model.limits import Pause
from luamigrate.model.rules import ANY, Pairs
from luamigrate.scripts import calls
from luamigrate.scripts.calls import Answer, ScriptCall
from luamigrate.scripts.replies import CrossSlotReply, KeyId, KeyState, PairReply, key_state, said
from luamigrate.server.cluster import Cluster
from luamigrate.server.connection import Server

Way = Generator[None, None, None]


class Across(Protocol):
    """A verb's way with pairs whose halves live in two slots."""

    def __call__(self, apart: Apart) -> Way:
        """Go it, and leave an answer for each pair in `apart`."""


Halves = dict[int, KeyState | None]
"""By the index of the pair; None where the key is gone."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be answered for a pair if its source turns out not to have changed."""

    source: KeyState
    answer: Answer
    target: KeyId | None = None
    """Of the target for which it holds, where that may be acted on."""


Claims = dict[int, Claim]


class Ask(Protocol):
    """A script, asked about names at a server, given their indexes too and whether it is one `alone`."""

    def __call__(self, server: Server, names: list[bytes], indexes: list[int], *, alone: bool) -> ScriptCall:
        """Have it on its way."""


class Apart:
    """A batch of such pairs on its way. It answers as a script does: for the first of them, or for all."""

    waited = False
    """The times are the servers' own."""

    def __init__(self, cluster: Cluster, server: Server, pairs: Pairs, pause: Pause, way: Across) -> None:
        self.pairs, self.pause = pairs, pause
        self.settled: dict[int, Answer] = {}
        """The answers, by index."""
        self.begun = 0
        """How many pairs it answers for, from the first on."""
        self.seconds = 0.0
        """The longest that one call held a server."""
        self.repeated = False
        self._cluster, self._server = cluster, server
        self._way: Way | None = way(self)
        self._problem: Error | None = None
        self.advance()

    def advance(self) -> bool:
        """Wait for the calls under way, and send the next; tell whether there were any."""
        if self._way:
            try:
                next(self._way)
            except StopIteration:
                self._way = None
            except Error as problem:
                # Whoever waits for the answers is to hear of it: others may be on their way beside this.
                self._way, self._problem = None, problem
        return self._way is not None

    def answers(self) -> tuple[list[Answer], float]:
        """Go the way to its end, and return the answers, and how long the longest script says it has taken."""
        while self.advance():
            pass
        if self._problem:
            raise self._problem
        return [self.settled[index] for index in range(self.begun)], self.seconds

    @property
    def looked(self) -> list[bytes]:
        """What the last look at each pair found that this one may act on; empty in a first look."""
        return self.pairs.digests

    def first(self, names: Sequence[bytes], beside: str) -> Generator[None, None, Halves]:
        """Read the halves that the batch was found by, in one call: as many as its pause allows."""
        ask = self.reading(kind=self.pairs.rule.type, beside=beside)
        call = ask(self._server, list(names), [], alone=False)
        self._server.flush()
        yield
        replies = dict(enumerate(self._replies(call)))
        self.begun = len(replies)
        return self._halves(replies | self._alone(names, replies, ask))

    def halves(
        self, names: Sequence[bytes], indexes: Iterable[int], *, kind: str = ANY, beside: str = ""
    ) -> Generator[None, None, Halves]:
        """Read halves, each where it is."""
        return self._halves((yield from self.ask(names, indexes, self.reading(kind=kind, beside=beside))))

    def again(self, claims: Claims, beside: str, *, acts: bool) -> Generator[None, None, tuple[Claims, Halves]]:
        """Read the sources again: return the claims on those that are as they were, and the other sources.

        Whoever `acts` on the claims must not take an old answer for a new one.
        """
        digests = {index: claim.source.digest for index, claim in claims.items()}
        ask = self.reading(kind=self.pairs.rule.type, beside=beside, digests=digests, steadily=acts)
        replies = yield from self.ask(self.pairs.sources, claims, ask)
        confirmed: Claims = {}
        expiring_anew = []
        for index, claim in claims.items():
            word, expiry = said(replies[index])
            if word == CrossSlotReply.UNCHANGED:
                del replies[index]
                if int(expiry) != claim.source.at:
                    expiring_anew.append(index)
                else:
                    confirmed[index] = claim
        changed = self._halves(replies)
        if expiring_anew:
            kind = self.pairs.rule.type
            changed |= yield from self.halves(self.pairs.sources, expiring_anew, kind=kind, beside=beside)
        return confirmed, changed

    def ask(self, names: Sequence[bytes], indexes: Iterable[int], ask: Ask) -> Generator[None, None, dict[int, Answer]]:
        """Ask about some of the names, each where it is, until all are answered for."""
        replies: dict[int, Answer] = {}
        left = list(indexes)
        while left:
            by_holder: dict[Server, list[int]] = {}
            for index in left:
                by_holder.setdefault(self._cluster.holder(names[index]), []).append(index)
            calls = [
                (group, ask(server, [names[index] for index in group], group, alone=False))
                for server, group in by_holder.items()
            ]
            for server in by_holder:
                server.flush()
            yield
            left = []
            for group, call in calls:
                answers = self._replies(call)
                replies.update(zip(group, answers, strict=False))
                left += group[len(answers) :]
        return replies | self._alone(names, replies, ask)

    def reading(
        self, *, kind: str = ANY, beside: str = "", digests: dict[int, bytes] | None = None, steadily: bool = False
    ) -> Ask:
        """Return the question what a key is, and what is asked for beside."""

        def read(server: Server, names: list[bytes], indexes: list[int], *, alone: bool) -> ScriptCall:
            known = [digests[index] for index in indexes] if digests else ()
            return calls.cross_slot_read(
                server, names, self.pause, kind=kind, beside=beside, digests=known, steadily=steadily, alone=alone
            )

        return read

    def _halves(self, replies: dict[int, Answer]) -> Halves:
        """Return what was read, and settle what could not be."""
        halves: Halves = {}
        for index, reply in replies.items():
            if reply == b"gone":
                halves[index] = None
            elif isinstance(reply, bytes):
                self.settled[index] = reply
            else:
                halves[index] = key_state(reply)
        return halves

    def _alone(self, names: Sequence[bytes], replies: dict[int, Answer], ask: Ask) -> dict[int, Answer]:
        """Ask one by one about what has moved: declared, so that the servers say where it is."""
        moved = [index for index, reply in replies.items() if reply == PairReply.MOVED]
        if not moved:
            return {}
        self._cluster.refresh()
        deadline = self._cluster.deadline()
        return {
            index: self._cluster.ask_alone(
                names[index], partial(ask, names=[names[index]], indexes=[index], alone=True), deadline
            )
            for index in moved
        }

    def _replies(self, call: ScriptCall) -> list[Answer]:
        answers, seconds = call.answers()
        self.repeated |= call.repeated
        self.seconds = max(self.seconds, call.seconds if call.waited and not seconds else seconds)
        if not answers:
            raise call.odd()
        return answers


def are_apart(source: bytes, target: bytes) -> bool:
    """Tell whether two keys live in different slots."""
    return key_slot(source) != key_slot(target)
