"""Work on a large pair that counts only if nobody writes to the pair meanwhile: WATCH, EXEC, and again.

Where a writer comes between, it is done again, a few times, and then the word is `failed: busy`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from luamigrate.migration.chunks import KeyAt, LargePair, Progress, Stopping, unlink_target
from luamigrate.model.errors import Error, printable
from luamigrate.model.status import KeyOutcome, Word
from luamigrate.scripts import library
from luamigrate.scripts.chunk_replies import ChunkReply
from luamigrate.server.call import Call
from luamigrate.server.connection import Connection
from luamigrate.server.errors import Answered, ConnectionLost, ScriptMissing, explain

ATTEMPTS = 5
"""To find a moment in which nobody writes to a large key."""

RECONNECTIONS = 20
"""Allowed while one large key is processed."""

LargeSteps = Generator[Progress, None, KeyOutcome | None]
"""Yields the progress of each chunk; returns the outcome, or None where the work was to end first."""


class Replaced(Exception):
    """The source is of another type now: the pair is to be processed as any other."""


class Disturbed(Exception):
    """Somebody wrote to the source or the target, or the staging key has expired."""


class Unheld(Exception):
    """The lease under which a target is replaced is not ours any more."""


@dataclass(frozen=True, slots=True)
class Act:
    """What is done to the target, if nobody has written to the pair meanwhile."""

    call: Callable[[], Call]
    makes: bool
    """Whether it makes the target, which must then have been made of a source that is still the same."""


Decision = tuple[KeyOutcome, Act | None]
"""What comes of a pair if nobody has written to it meanwhile, and what is to be done then."""

Attempt = Generator[Progress, None, Decision]

_Result = TypeVar("_Result")


def undisturbed(pair: LargePair, attempt: Callable[[str], Attempt]) -> LargeSteps:
    """Make attempts until EXEC confirms one: each is given the type of the target."""
    for server, name in (
        ((pair.source_node, "chunk/read"), (pair.target_node, "chunk/compare_elements")) if pair.cross_slot else ()
    ):
        library.register(server, name)
    disturbed = 0
    while disturbed < ATTEMPTS:
        try:
            return (yield from reconnecting(pair, lambda: _attempted(pair, attempt)))
        except Disturbed:
            disturbed += 1
        except Stopping:
            return None
        finally:
            for server in (pair.source_node, pair.target_node):
                with suppress(Error):
                    server.call("UNWATCH").answer()
    text = f"busy: somebody wrote to it in each of {disturbed} attempts; try again when it is quieter"
    return pair.outcome(Word.FAILED, text)


def reconnecting(
    pair: LargePair, work: Callable[[], Generator[Progress, None, _Result]]
) -> Generator[Progress, None, _Result]:
    """Do the work again where the connection was lost and made again meanwhile."""
    for _ in range(RECONNECTIONS):
        try:
            return (yield from work())
        except ConnectionLost:
            if pair.source_node.is_lost or pair.target_node.is_lost:
                raise
    raise Answered(f"busy: the connection was lost {RECONNECTIONS} times in the middle of this key")


def _attempted(pair: LargePair, attempt: Callable[[str], Attempt]) -> Generator[Progress, None, KeyOutcome]:
    """Make an attempt, given the target's type, that counts only if nobody writes meanwhile.

    Raises Disturbed where somebody does, Replaced where the source is of another type by now, Unheld.
    """
    watched = _watch(pair)
    try:
        source_kind, target_kind = _types(pair)
        if source_kind not in (pair.kind, "none"):
            raise Replaced
        gone = source_kind == "none"
        outcome, act = (pair.outcome(Word.GONE), None) if gone else (yield from attempt(target_kind))
    except Answered:
        # It may come from what somebody wrote, such as another type. Else it is as it says.
        watched.confirm()
        raise
    match watched.execute(act):
        case ChunkReply.EXISTS | ChunkReply.VANISHED:
            raise Disturbed
        case ChunkReply.UNHELD:
            raise Unheld
        case ChunkReply.GONE:
            return pair.outcome(Word.GONE)
        case _:
            return outcome


@dataclass(frozen=True, slots=True)
class _Watched:
    """Source and target under WATCH, which holds for the connections that they were watched on."""

    pair: LargePair
    connections: dict[Connection, int]

    def execute(self, act: Act | None) -> Any:
        """Act, if nobody has written meanwhile; return the answer. Raises Disturbed."""
        if len(self.connections) == 1:
            return self._exec(self.pair.source_node, act)
        # No node has both. So a second watch on the source begins before the first one ends.
        with self.pair.source_node.once_more() as second:
            second.call("WATCH", self.pair.source, once=True).answer()
            self._exec(self.pair.source_node, None)
            answer = self._exec(self.pair.target_node, act)
            if act and act.makes:
                try:
                    self._exec(second, None)
                except Disturbed:
                    self._withdraw(second, act)
                    raise
        return answer

    def _withdraw(self, source_server: Connection, act: Act) -> None:
        """Delete what has been made of a source that is gone now, unless somebody has written to it since."""
        if not source_server.call("EXISTS", self.pair.source).answer():
            self._exec(self.pair.target_node, replace(act, call=partial(unlink_target, self.pair)))

    def confirm(self) -> None:
        """Raise Disturbed where somebody has written."""
        for server in self.connections:
            self._exec(server, None)

    def _exec(self, server: Connection, act: Act | None) -> Any:
        if server.connections != self.connections.get(server, server.connections):
            # It was lost and made again without anybody noticing, and WATCH with it.
            raise ConnectionLost("the connection was lost")
        server.call("MULTI", once=True)
        queued = act.call() if act else None
        execution = server.call("EXEC", once=True)
        if act and act.makes and len(self.connections) > 1:
            server.call("WATCH", self.pair.target, once=True)
        if queued:
            queued.answer()  # what is refused here and now says why
        answers = execution.answer()
        if not isinstance(answers, list) or len(answers) != (queued is not None):
            raise Disturbed
        if queued and isinstance(answers[0], Exception):
            problem = explain(answers[0])
            # What EXEC runs is not sent again where the scripts have been forgotten meanwhile.
            raise Disturbed if isinstance(problem, ScriptMissing) else problem
        return answers[0] if queued else None


def _watch(pair: LargePair) -> _Watched:
    watched = _Watched(pair, {server: server.connections for server in (pair.source_node, pair.target_node)})
    for key in (pair.source_key, pair.target_key):
        if key.place.database == key.node.database:
            _expect_ok(key.node.call("WATCH", key.name, once=True))
        else:
            _watch_in_database(key)
    return watched


def _watch_in_database(key: KeyAt) -> None:
    """Watch a key of another database than the connection's, which is left in its own."""
    node = key.node
    steps = (("SELECT", key.place.database), ("WATCH", key.name), ("SELECT", node.database))
    calls = [node.call(*step, once=True) for step in steps]
    try:
        for call in calls:
            _expect_ok(call)
    except ConnectionLost:
        raise  # another connection begins in its own database
    except Error as problem:
        # Nobody must take the other database for the connection's own.
        node.recover(problem)
        raise


def _expect_ok(call: Call) -> None:
    if call.answer() != b"OK":
        raise Error(f"the server does not answer {call.name} as it should")


def _types(pair: LargePair) -> tuple[str, str]:
    return printable(pair.source_key.call("TYPE")), printable(pair.target_key.call("TYPE"))
