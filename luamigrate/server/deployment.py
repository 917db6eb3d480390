"""What one server, a Sentinel's primary and a cluster have in common: what may be asked of any of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from luamigrate.model.errors import Error
from luamigrate.server.connection import Connection, ReconnectPolicy
from luamigrate.server.identity import Identity

SLOTS = 16_384
"""How many slots a cluster has."""


class Place(NamedTuple):
    """Where a key lives."""

    node: Connection
    database: int


@dataclass(frozen=True)
class Layout:
    """Who holds which slot at a moment, as the primaries themselves say."""

    holders: dict[int, str]
    """The node of each slot."""
    epochs: dict[str, str]
    """Of the nodes: raised by every slot that they are given."""
    on_the_way: frozenset[int]
    """Slots whose keys are being moved one by one: some may be here and some there."""

    def unlike(self, before: Layout) -> list[int]:
        """Return the slots of which keys may have moved since `before`, be it there and back."""
        raised = {node for node, epoch in self.epochs.items() if before.epochs.get(node) != epoch}
        moved = (
            slot
            for slot in range(SLOTS)
            if self.holders.get(slot) != before.holders.get(slot) or self.holders.get(slot) in raised
        )
        return sorted({*moved, *self.on_the_way, *before.on_the_way})


class Slots(Protocol):
    """The slots of a deployment that has them: a scan watches them, because they may be moved meanwhile."""

    @property
    def unheld(self) -> int:
        """How many slots nobody holds."""

    def held_by(self, server: Connection, /) -> Sequence[int]:
        """Return the slots that a node holds, in order."""

    def holder_of(self, slot: int, /) -> Connection:
        """Return the node that holds a slot. Raises Error where nobody does."""

    def layout(self) -> Layout:
        """Ask every primary which slots it holds, and which are on their way to or from it."""

    def moved_since(self, before: Layout, /) -> list[int]:
        """Return the slots of which keys may have moved since, and know who holds them now."""

    def keys_of(self, slots: list[int], /) -> Generator[tuple[Connection, list[bytes]], None, list[int]]:
        """Yield all keys of slots with the node that has them; return the slots with too many keys to be named."""


class Deployment(Protocol):
    """What a URL leads to: whoever holds the keys, be it one server or several.

    What differs between them is a question here. Only the router asks which one it is.
    """

    url: str
    """The URL without its password."""

    @property
    def identity(self) -> Identity:
        """Of the server that was asked first."""

    @property
    def whereabouts(self) -> str:
        """Where it is, in words for people."""

    @property
    def primaries(self) -> list[Connection]:
        """The servers that hold keys: more than one in a cluster."""

    @property
    def role(self) -> str:
        """What writes to it meet: `PRIMARY` or `REPLICA`; empty where no server tells."""

    @property
    def slots(self) -> Slots | None:
        """The slots among which keys are spread; None where any two keys are in one place, and stay there."""

    def holder(self, key: bytes, /) -> Connection:
        """Return the server that holds a key. Raises Error where nobody does."""

    def place(self, key: bytes, /) -> Place:
        """Return where a key lives, whether it is there or not. Raises Error where nobody holds its slot."""

    def shard(self, server: Connection, /) -> str:
        """Name one of the primaries; empty where there can be no other."""

    def reconnect_by(self, policy: ReconnectPolicy, /) -> None:
        """From now on, wait for servers that are lost."""

    def refresh(self) -> None:
        """Find out who holds which key now. Raises Error where nobody can be asked in time."""

    def confirm(self) -> None:
        """See that the servers are still those that are meant. Raises ServerChanged, or lets later calls do so."""

    def find_primary(self, problem: Error, /) -> None:
        """Find out who takes writes now, because a server has become a replica."""

    def is_unsettled(self, problem: Error, /) -> bool:
        """Tell whether something failed because a key is elsewhere, or on its way there."""

    def accept_change(self) -> None:
        """Go on with the servers that are there now, once nothing is left that was meant for the former."""

    def close(self) -> None:
        """End the connections."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
