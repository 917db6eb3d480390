"""Who is asked about which pairs: each server about those that it holds, by one script or in several steps."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from luamigrate.migration.cross_slot import Across, Apart, are_apart
from luamigrate.migration.pace import Pace, Rate
from luamigrate.model.limits import Limits, Pause
from luamigrate.model.rules import Pairs
from luamigrate.scripts.calls import Answer, Question
from luamigrate.server.cluster import Cluster, Deployment
from luamigrate.server.connection import Server


class Asked(Protocol):
    """A batch of pairs that is on its way: a script, or what takes several steps."""

    @property
    def waited(self) -> bool:
        """Whether we waited for the answer: else `seconds` are our own."""

    @property
    def seconds(self) -> float:
        """How long it took, seen from here."""

    @property
    def repeated(self) -> bool:
        """Whether it was sent again, because a connection was lost before its answer came."""

    def advance(self) -> bool:
        """Take the next step, if there is one before the last; tell whether there was."""

    def answers(self) -> tuple[list[Answer], float]:
        """Wait for the answers, and how long they say a server was held for, in seconds; 0 for unknown."""


@dataclass(frozen=True, slots=True)
class Part:
    """Pairs of one server, that all take the same way."""

    server: Server
    pairs: Pairs
    across: bool = False
    """Whether source and target live in different slots."""

    def chosen(self, indexes: Sequence[int]) -> Part:
        """Return only these pairs."""
        return replace(self, pairs=self.pairs.chosen(indexes))


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """How the servers of a deployment are asked, at the pace of each."""

    deployment: Deployment
    ask: Question
    across: Across
    """The way with pairs whose halves live in two slots."""
    limits: Limits
    rate: Rate
    _paces: dict[Server, Pace] = field(default_factory=dict)

    def pace(self, server: Server) -> Pace:
        """Return the pace of a server."""
        if server not in self._paces:
            self._paces[server] = Pace(self.limits, server.round_trip)
        return self._paces[server]

    def parts(self, pairs: Pairs, found: Sequence[bytes]) -> Iterator[Part]:
        """Part pairs by the server that has the half by which they were found, and by whether it has both."""
        if isinstance(self.deployment, Server):
            yield from [Part(self.deployment, pairs)] if found else ()
            return
        indexes: dict[tuple[Server, bool], list[int]] = {}
        for index, name in enumerate(found):
            across = are_apart(pairs.sources[index], pairs.targets[index])
            indexes.setdefault((self.deployment.holder(name), across), []).append(index)
        for (server, across), chosen in indexes.items():
            yield Part(server, pairs.chosen(chosen), across)

    def send(self, part: Part, pause: Pause | None = None) -> Asked:
        """Ask about pairs, no longer than the pause: that of the server's pace, if none is given."""
        pairs, pause = part.pairs, pause or self.pace(part.server).pause
        self.rate.sent(len(pairs), time.monotonic)
        if part.across and isinstance(self.deployment, Cluster):
            return Apart(self.deployment, part.server, pairs, pause, self.across)
        call = self.ask(part.server, pairs, pause)
        if isinstance(self.deployment, Cluster):
            part.server.flush()
        return call
