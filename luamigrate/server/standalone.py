"""One server as a deployment: the one at a URL, or the primary that Sentinels name."""

from __future__ import annotations

from typing import Self

from luamigrate.model.errors import Error
from luamigrate.server.connection import Connection, ReconnectPolicy
from luamigrate.server.deployment import Place
from luamigrate.server.identity import Identity


class Standalone:
    """One server that holds all keys, and the connection to it."""

    slots = None
    """It has none: all keys are in one place, and stay there."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.url = connection.url
        self.primaries = [connection]

    @property
    def identity(self) -> Identity:
        """Of the server process that answered last."""
        return self.connection.identity

    @property
    def whereabouts(self) -> str:
        """Where it is, in words: the URL, and what leads from there to it."""
        return self.connection.whereabouts

    @property
    def role(self) -> str:
        """Its own, as it tells."""
        return self.identity.role

    def shard(self, _server: Connection) -> str:
        """Name nothing: there is no other."""
        return ""

    def holder(self, _key: bytes) -> Connection:
        """Return its connection: it holds every key."""
        return self.connection

    def place(self, _key: bytes) -> Place:
        """Return the only place there is: its connection, in the database of its URL."""
        return Place(self.connection, self.connection.database)

    def reconnect_by(self, policy: ReconnectPolicy) -> None:
        """From now on, wait for a server that is lost."""
        self.connection.reconnect_by(policy)

    def refresh(self) -> None:
        """Learn nothing: no key moves."""

    def confirm(self) -> None:
        """See that it is still the server that is meant: otherwise calls raise ServerChanged from now on."""
        self.connection.confirm()

    def find_primary(self, problem: Error) -> None:
        """Wait for a primary at this address, because what is there has become a replica."""
        self.connection.recover(problem)

    def is_unsettled(self, _problem: Error) -> bool:
        """Tell that everything is settled: no key moves."""
        return False

    def accept_change(self) -> None:
        """Go on with another server process, once nothing is left that was meant for the former."""
        self.connection.accept_change()

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Server = Standalone
"""The public name that it had before."""
