"""The sources of a batch under WATCH, so that EXEC tells whether any of them has been written to since it was read.

That takes their node no second reading. Where it cannot be told, or one of them has been written to, the sources
are read again: no pair is decided by what is missing here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luamigrate.model.errors import Error
from luamigrate.server.call import Call
from luamigrate.server.connection import Connection
from luamigrate.server.errors import Redirected, Unsettled
from luamigrate.server.spare import SpareConnections


class SourceWatch:
    """Sources of one node under WATCH, on a connection that is lent to their batch alone until EXEC ends it."""

    def __init__(self, spare: SpareConnections, connection: Connection, sources: Sequence[bytes]) -> None:
        self._spare = spare
        self.connection = connection
        """On which they are to be read: the next call comes right behind WATCH."""
        self._watch = connection.watch(sources)
        self._execution: Call | None = None

    @classmethod
    def begin(cls, spare: SpareConnections, sources: Sequence[bytes]) -> SourceWatch | None:
        """Have sources put under WATCH; return None where there is no connection for that."""
        connection = spare.lend()
        return cls(spare, connection, sources) if connection else None

    @property
    def holds(self) -> bool:
        """Whether all of them are under WATCH, once they have been read."""
        return self._watch.refusal is None

    def ask(self, check: Callable[[Connection], object]) -> None:
        """Send EXEC, which makes the check if nobody has written to the sources; it ends WATCH in any case."""
        self.connection.call("MULTI", once=True)
        check(self.connection)
        self._execution = self.connection.call("EXEC", once=True)
        self.connection.flush()

    def answer(self) -> object:
        """Wait for what the check answers; None where somebody has written, or nobody can tell."""
        answers = None
        try:
            answers = self._execution.answer() if self._execution else None
        except Error as problem:
            self._learn(problem)
            self.drop()
        else:
            self._spare.give_back(self.connection)
        return answers[0] if isinstance(answers, list) and len(answers) == 1 else None

    def end(self) -> None:
        """Have it end unasked, before anything that is sent on its connection after that."""
        self._learn(self._watch.refusal)
        if self.connection.is_lost:
            self.drop()
            return
        self.ask(lambda _: None)
        self._spare.give_back(self.connection)

    def drop(self) -> None:
        """Close the connection, whatever is under way on it: WATCH ends with it."""
        self._spare.drop(self.connection)

    def _learn(self, problem: Error | None) -> None:
        # Slots come to rest, and one connection may be lost. What this user may not do, he may not do next time.
        if problem and not (self.connection.is_lost or isinstance(problem, (Redirected, Unsettled))):
            self._spare.refuse()
