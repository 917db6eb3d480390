"""What a URL leads to: one server, a Sentinel's primary or a cluster, behind one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self

from luamigrate.model.errors import Error
from luamigrate.server.connection import Connection, ReconnectPolicy
from luamigrate.server.identity import Identity
from luamigrate.server.slots import Slots


class Place(NamedTuple):
    """Where a key lives."""

    node: Connection
    database: int


class Deployment(ABC):
    """The servers that have the keys, be it one or several. What differs between them is a question here.

    What is not abstract answers for one server, on which no key ever moves. Only the router asks which kind it has.
    """

    url: str
    """The URL without its password."""

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """The identity of the server that was asked first."""

    @property
    @abstractmethod
    def whereabouts(self) -> str:
        """The address, for people: the URL, and what it leads to."""

    @property
    @abstractmethod
    def primaries(self) -> list[Connection]:
        """The servers that have keys: more than one in a cluster."""

    @property
    @abstractmethod
    def role(self) -> str:
        """The role of whoever takes the writes: `PRIMARY` or `REPLICA`; empty where no server tells."""

    @property
    def database(self) -> int:
        """The number of the database that the URL names."""
        return self.primaries[0].database

    @property
    def slots(self) -> Slots | None:
        """The slots among which keys are spread; None where all keys are in one place."""
        return None

    @abstractmethod
    def node_for(self, key: bytes, /) -> Connection:
        """Return the server that has a key. Raises Error where there is none."""

    def place(self, key: bytes, /) -> Place:
        """Return where a key lives, whether it exists or not. Raises Error where no node has its slot."""
        node = self.node_for(key)
        return Place(node, node.database)

    def shard(self, _server: Connection, /) -> str:
        """Return the name of one of the primaries; empty where there can be no other."""
        return ""

    def lent(self, _server: Connection, /) -> Sequence[Connection]:
        """Return the connections to one of the primaries that are there to be lent."""
        return ()

    @abstractmethod
    def reconnect_by(self, policy: ReconnectPolicy, /) -> None:
        """From now on, wait for servers that are lost."""

    @abstractmethod
    def refresh(self) -> None:
        """Ask which server has which key now. Raises Error where nobody can be asked in time."""

    @abstractmethod
    def confirm(self) -> None:
        """Check that the servers are still those that are meant. Raises ServerChanged, or lets later calls do so."""

    @abstractmethod
    def find_primary(self, problem: Error, /) -> None:
        """Find out who takes writes now, because a server has become a replica."""

    def is_unsettled(self, _problem: Error, /) -> bool:
        """Tell whether something failed because a key is on another node, or is being moved there."""
        return False

    @abstractmethod
    def accept_change(self) -> None:
        """Go on with the servers that are there now, once nothing is left that was meant for the former ones."""

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
