"""Whether the servers are as they were all through a freeze: who has which slot, and how much was written where.

On one server flip.lua sees for itself whether anybody has written. Of the other nodes of a cluster it knows nothing, so
that they are compared before the flip and after it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from luamigrate.server.changes import UNKNOWN, read_changes
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.slots import Layout

MOVED = "slots are being moved, or another node has taken over"


@dataclass
class Witness:
    """What was seen of the servers, of which `home` has the flag."""

    deployment: Deployment
    home: Connection
    _layout: Layout | None = field(init=False, default=None)
    _marks: dict[Connection, bytes] = field(init=False, default_factory=dict)
    """How much the other nodes had counted of changes."""

    def begin(self) -> str:
        """See who has which slot; say what speaks against holding writes, empty for nothing. Raises Error."""
        self._layout = self._seen_layout()
        return MOVED if self._layout and self._layout.moving else ""

    def read_changes(self) -> bytes:
        """Return the mark of `home`'s changes, having read those of all; UNKNOWN where one is. Raises Error."""
        others = [server for server in self.deployment.primaries if server is not self.home]
        self._marks = {server: read_changes(server) for server in others}
        return UNKNOWN if UNKNOWN in self._marks.values() else read_changes(self.home)

    def refusal(self) -> str:
        """Say why nothing is to be flipped now; empty where nothing speaks against it. Raises Error."""
        return "" if self._seen_layout() == self._layout else MOVED

    def doubts(self) -> list[str]:
        """Say, after the flip and while writes are held, what may have been written before it. Raises Error."""
        found = [
            f"{server.whereabouts} counts changes that came between the last barrier and the flip"
            for server, mark in self._marks.items()
            if read_changes(server) != mark
        ]
        return found if self._seen_layout() == self._layout else [*found, MOVED]

    def _seen_layout(self) -> Layout | None:
        slots = self.deployment.slots
        return slots.layout() if slots else None
