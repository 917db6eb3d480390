"""A batch of pairs whose source and target live in two slots, and the steps that take it to its results.

Keys are asked about in batches, undeclared, each at the node that holds it; one that has moved is asked about
alone and declared, so that the nodes say where it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from redis.crc import key_slot

from luamigrate.migration.source_watch import SourceWatch
from luamigrate.model.errors import Error
from luamigrate.model.limits import Pause
from luamigrate.model.rules import ANY, Pairs
from luamigrate.model.status import Word
from luamigrate.scripts import calls
from luamigrate.scripts.calls import Answer, ScriptCall
from luamigrate.scripts.replies import KeyState, PairReply, equal_expiry, equal_reply, key_state
from luamigrate.server.cluster import Cluster
from luamigrate.server.connection import Connection

SCRIPTS = ("cross_slot/read", "cross_slot/create", "cross_slot/replace", "cross_slot/compare")
"""What any verb may call about such pairs."""

Steps = Generator[None, None, None]
"""A verb at work on a batch: it yields between round trips, and stores one result per pair in `batch.results`."""

KeyStates = dict[int, KeyState | None]
"""By the index of the pair; None where the key is gone."""


class Provisional(NamedTuple):
    """The result for a pair, valid only if its source turns out not to have changed."""

    source: KeyState
    answer: Answer
    target: KeyState | None = None
    """The target for which it is valid, where that may be acted on."""


Provisionals = dict[int, Provisional]


class Ask(Protocol):
    """A script call about names at one server, given their indexes in the batch, and whether it is one name `alone`."""

    def __call__(self, server: Connection, names: list[bytes], indexes: list[int], *, alone: bool) -> ScriptCall:
        """Send it."""


class CrossSlotBatch:
    """Pairs of two slots each that are being decided. Like a script, it answers for the first of them, or for all."""

    waited = False
    """The times are the servers' own."""

    def __init__(
        self, cluster: Cluster, server: Connection, pairs: Pairs, pause: Pause, steps: Callable[[CrossSlotBatch], Steps]
    ) -> None:
        self.pairs, self.pause = pairs, pause
        self.results: dict[int, Answer] = {}
        """One answer per pair that has been decided, by index."""
        self.answered = 0
        """How many pairs are answered for, from the first on."""
        self.seconds = 0.0
        """The longest time for which one call kept a server busy."""
        self.repeated = False
        self._cluster, self._server = cluster, server
        self._steps: Steps | None = steps(self)
        self._problem: Error | None = None
        self._watch: SourceWatch | None = None
        """The sources as they were first read, until they are read again."""
        self.advance()

    def advance(self) -> bool:
        """Wait for the calls in flight, and send the next; tell whether there were any."""
        if self._steps:
            try:
                next(self._steps)
            except StopIteration:
                self._steps = None
                self._unwatch()
            except Error as problem:
                # Whoever waits for the answers is to hear of it: others may be in flight beside this.
                self._steps, self._problem = None, problem
                if self._watch:
                    self._watch.drop()
        return self._steps is not None

    def answers(self) -> tuple[list[Answer], float]:
        """Take all steps that are left; return the results, and how long the longest script says it has taken."""
        while self.advance():
            pass
        if self._problem:
            raise self._problem
        return [self.results[index] for index in range(self.answered)], self.seconds

    def read_sources(self, beside: str) -> Generator[None, None, KeyStates]:
        """Read the sources by which the pairs were found, under WATCH where that is possible."""
        self._watch = SourceWatch.begin(self._cluster.spare(self._server), self.pairs.sources)
        return (yield from self.read_found(self.pairs.sources, beside))

    def read_found(self, names: Sequence[bytes], beside: str) -> Generator[None, None, KeyStates]:
        """Read the keys by which the pairs were found, in one call: as many as its pause allows."""
        ask = self.reading(kind=self.pairs.rule.type, beside=beside)
        replies = dict(enumerate((yield from self._ask_about_found(names, ask))))
        self.answered = len(replies)
        return self._states(replies | self._alone(names, replies, ask), beside)

    def _ask_about_found(self, names: Sequence[bytes], ask: Ask) -> Generator[None, None, list[Answer]]:
        answers: list[Answer] = []
        if watch := self._watch:
            call = ask(watch.connection, list(names), [], alone=False)
            watch.connection.flush()
            yield
            try:
                answers = self._replies(call)
            except Error:
                if not watch.connection.is_lost:
                    raise
            # What is elsewhere by now is read there, and not under WATCH.
            if not answers or not watch.holds or PairReply.MOVED in answers:
                self._unwatch()
        if not answers:
            call = ask(self._server, list(names), [], alone=False)
            self._server.flush()
            yield
            answers = self._replies(call)
        return answers

    def read(
        self, names: Sequence[bytes], indexes: Iterable[int], *, kind: str = ANY, beside: str = ""
    ) -> Generator[None, None, KeyStates]:
        """Read keys, each at the node that holds it."""
        return self._states((yield from self.ask(names, indexes, self.reading(kind=kind, beside=beside))), beside)

    def read_targets(self, sources: dict[int, KeyState], beside: str = "") -> Generator[None, None, KeyStates]:
        """Read the targets of sources: nothing is told of the payload of one that has its source's."""
        known = {} if beside else sources
        replies = yield from self.ask(self.pairs.targets, sources, self.reading(beside=beside, known=known))
        states: KeyStates = {}
        for index, source in sources.items():
            if (expiry := equal_expiry(replies[index])) is not None:
                states[index] = source.expiring(expiry)
                del replies[index]
        return states | self._states(replies, beside)

    def reread(
        self, found: Provisionals, beside: str, *, acts: bool
    ) -> Generator[None, None, tuple[Provisionals, KeyStates]]:
        """Read the sources again: return what was found about those that are as they were, and the other sources.

        Whoever `acts` on what was found must not take an old answer for a new one.
        """
        if (yield from self._are_untouched(found, acts=acts)):
            return found, {}
        kind = self.pairs.rule.type
        known = {index: result.source for index, result in found.items()}
        ask = self.reading(kind=kind, beside=beside, known=known, steadily=acts)
        replies = yield from self.ask(self.pairs.sources, found, ask)
        changed = {index for index, result in found.items() if replies[index] != equal_reply(result.source.at)}
        if not changed:
            return found, {}
        expiring_anew = {index for index in changed if equal_expiry(replies[index]) is not None}
        states = self._states({index: replies[index] for index in changed - expiring_anew}, beside)
        if expiring_anew:
            states |= yield from self.read(self.pairs.sources, sorted(expiring_anew), kind=kind, beside=beside)
        return {index: result for index, result in found.items() if index not in changed}, states

    def _are_untouched(self, found: Provisionals, *, acts: bool) -> Generator[None, None, bool]:
        """Tell whether it is certain that nobody has written to the sources since they were first read.

        What `acts` could write, so a node that hands its slots over lets EXEC wait, as it does with other writes. One
        source is read again to see that the node has its slots still.
        """
        watch = self._watch
        if not watch or not found:
            self._unwatch()
            return not found
        index, result = next(iter(found.items()))
        ask = self.reading(kind=self.pairs.rule.type, known={index: result.source}, steadily=acts)
        watch.ask(partial(ask, names=[self.pairs.sources[index]], indexes=[index], alone=False))
        yield
        self._watch = None
        answer = watch.answer()
        return isinstance(answer, list) and answer[:1] == [equal_reply(result.source.at)]

    def _unwatch(self) -> None:
        if self._watch:
            self._watch.end()
        self._watch = None

    def ask(self, names: Sequence[bytes], indexes: Iterable[int], ask: Ask) -> Generator[None, None, dict[int, Answer]]:
        """Ask about some of the names, each where it is, until all are answered for."""
        replies: dict[int, Answer] = {}
        left = list(indexes)
        while left:
            by_node = self._cluster.by_node({index: key_slot(names[index]) for index in left})
            calls = [
                (group, ask(server, [names[index] for index in group], group, alone=False))
                for server, group in by_node.items()
            ]
            for server in by_node:
                server.flush()
            yield
            left = []
            for group, call in calls:
                answers = self._replies(call)
                replies.update(zip(group, answers, strict=False))
                left += group[len(answers) :]
        return replies | self._alone(names, replies, ask)

    def reading(
        self, *, kind: str = ANY, beside: str = "", known: dict[int, KeyState] | None = None, steadily: bool = False
    ) -> Ask:
        """Return the call that tells what keys are, or that they are as `known`, and what is asked for `beside`."""

        def read(server: Connection, names: list[bytes], indexes: list[int], *, alone: bool) -> ScriptCall:
            marks = [known[index].mark for index in indexes] if known else ()
            return calls.cross_slot_read(
                server, names, self.pause, kind=kind, beside=beside, known=marks, steadily=steadily, alone=alone
            )

        return read

    def _states(self, replies: dict[int, Answer], beside: str) -> KeyStates:
        """Return what was read, and asked for beside; what could not be read is a result."""
        states: KeyStates = {}
        for index, reply in replies.items():
            if isinstance(reply, list):
                states[index] = key_state(reply, beside)
            elif reply == Word.GONE.reply:
                states[index] = None
            else:
                self.results[index] = reply
        return states

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
