"""One server as a deployment: the one at a URL, or the primary that Sentinels name."""

from __future__ import annotations

from luamigrate.model.errors import Error
from luamigrate.server.connection import Connection, ReconnectPolicy
from luamigrate.server.deployment import Deployment
from luamigrate.server.identity import Identity


class Standalone(Deployment):
    """One server that has all keys, and the connection to it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.url = connection.url

    @property
    def identity(self) -> Identity:
        """The identity of the server process that answered last."""
        return self.connection.identity

    @property
    def whereabouts(self) -> str:
        """The URL, and the primary that Sentinels name."""
        return self.connection.whereabouts

    @property
    def primaries(self) -> list[Connection]:
        """The one server."""
        return [self.connection]

    @property
    def role(self) -> str:
        """The role that the server tells."""
        return self.identity.role

    def node_for(self, _key: bytes) -> Connection:
        """Return the one connection: it has every key."""
        return self.connection

    def reconnect_by(self, policy: ReconnectPolicy) -> None:
        """From now on, wait for a server that is lost."""
        self.connection.reconnect_by(policy)

    def refresh(self) -> None:
        """Do nothing: no key moves."""

    def confirm(self) -> None:
        """Check that it is still the server that is meant: otherwise calls raise ServerChanged from now on."""
        self.connection.confirm()

    def find_primary(self, problem: Error) -> None:
        """Wait for a primary at this address, because what is there has become a replica."""
        self.connection.recover(problem)

    def accept_change(self) -> None:
        """Go on with another server process, once nothing is left that was meant for the former."""
        self.connection.accept_change()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


Server = Standalone
"""The former public name of Standalone."""
