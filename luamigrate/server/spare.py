"""Connections to a server beside its main one, for what needs one to itself; nobody has to have one."""

from __future__ import annotations

from luamigrate.model.control import Control
from luamigrate.model.errors import Error
from luamigrate.server.connection import Connection, ReconnectPolicy

MOST_AT_ONCE = 2
"""Connections to one server that are lent: as many as it has batches in flight, but for a moment."""

MOST_IN_ALL = 20
"""Made for one server: where they are lost again and again, something ends them."""


class SpareConnections:
    """Lends connections to one server, each to one borrower at a time.

    They are not made again where they are lost, which is for the main connection to wait for. So whatever is under
    WATCH on one stays so for as long as it answers.
    """

    def __init__(self, server: Connection, control: Control) -> None:
        self._server, self._policy = server, ReconnectPolicy(control=control)
        self._lent: set[Connection] = set()
        self._left = MOST_IN_ALL
        self._is_refused = False
        # All at once, as the work begins: a server that hangs later has nobody wait for a new one without a word.
        self._idle = [connection for connection in (self._another() for _ in range(MOST_AT_ONCE)) if connection]

    def lend(self) -> Connection | None:
        """Lend a connection to the process that the main one leads to; None where there is none to lend."""
        if self._is_refused or len(self._lent) >= MOST_AT_ONCE:
            return None
        while self._idle or self._left:
            connection = self._idle.pop() if self._idle else self._another()
            if connection is None:
                return None
            if connection.identity.run_id == self._server.identity.run_id:
                self._lent.add(connection)
                return connection
            connection.close()
        return None

    @property
    def all(self) -> list[Connection]:
        """Those that are lent, and those that can be."""
        return [*self._idle, *self._lent]

    def give_back(self, connection: Connection) -> None:
        """Take back a connection on which nothing is left that the next borrower could take for his own."""
        self._lent.discard(connection)
        self._idle.append(connection)

    def drop(self, connection: Connection) -> None:
        """Close a connection of which nobody knows what is under way on it."""
        self._lent.discard(connection)
        connection.close()

    def refuse(self) -> None:
        """Lend no more of them: they are of no use with this server, or to this user."""
        self._is_refused = True

    def close(self) -> None:
        """Close all of them, those that are lent too, and lend no more."""
        self.refuse()
        for connection in (*self._idle, *self._lent):
            connection.close()

    def _another(self) -> Connection | None:
        self._left -= 1
        try:
            connection = self._server.once_more()
        except Error:
            self.refuse()
            return None
        connection.reconnect_by(self._policy)
        return connection
