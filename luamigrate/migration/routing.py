"""Who is asked about which pairs, and how: by one script where a slot has both keys, else in several steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import ne
from typing import Protocol

from redis.crc import key_slot

from luamigrate.migration import cross_slot
from luamigrate.migration.cross_slot import CrossSlotBatch
from luamigrate.migration.pace import Pace, Rate
from luamigrate.migration.verbs import Verb
from luamigrate.model.errors import Error
from luamigrate.model.limits import Limits, Pause
from luamigrate.model.rules import Pairs, Rule
from luamigrate.scripts.calls import Answer
from luamigrate.server.cluster import Cluster
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment, Place


class PairsCall(Protocol):
    """Pairs that a server is being asked about: by a script, or in several steps."""

    @property
    def waited(self) -> bool:
        """Whether we waited for the answers: else `seconds` are our own."""

    @property
    def seconds(self) -> float:
        """How long it took, seen from here."""

    @property
    def repeated(self) -> bool:
        """Whether it was sent again, because a connection was lost before its answer came."""

    def advance(self) -> bool:
        """Take the next step, if there is one before the last; tell whether there was."""

    def answers(self) -> tuple[list[Answer], float]:
        """Wait for the answers, and how long they say a server was kept busy, in seconds; 0 for unknown."""


@dataclass(frozen=True, slots=True)
class RoutedBatch:
    """Pairs that are asked about together: at which server, by which call, and for how long at most."""

    server: Connection
    pairs: Pairs
    pause: Pause
    ask: Callable[[Connection, Pairs, Pause], PairsCall]
    cross_slot: bool = False
    """Whether source and target live in different slots."""
    shard: str = ""
    """The name of a node of a cluster."""

    def chosen(self, indexes: Sequence[int]) -> RoutedBatch:
        """Return only these pairs."""
        return replace(self, pairs=self.pairs.chosen(indexes))


class Router:
    """Decides which protocol each pair needs and which server is asked about it, at the pace of each server."""

    def __init__(self, deployment: Deployment, verb: Verb, limits: Limits, rate: Rate) -> None:
        self._deployment, self._verb, self._limits, self._rate = deployment, verb, limits, rate
        self._paces: dict[Connection, Pace] = {}

    def pace(self, server: Connection) -> Pace:
        """Return the pace of a server."""
        if server not in self._paces:
            self._paces[server] = Pace(self._limits, server.round_trip)
        return self._paces[server]

    def limit(self, limits: Limits) -> None:
        """Go by other limits from now on."""
        if limits is not self._limits:
            self._limits = limits
            for pace in self._paces.values():
                pace.limit(limits)

    def place(self, key: bytes) -> Place:
        """Return where a source lives: two places make two commands of what one script would do."""
        return self._deployment.place(key)

    def target_place(self, rule: Rule, target: bytes) -> Place:
        """Return where a target of a rule lives, whether it exists or not."""
        place = self._deployment.place(target)
        return place if rule.database is None else place._replace(database=rule.database)

    def route(self, pairs: Pairs, found: Sequence[bytes]) -> Iterator[RoutedBatch]:
        """Yield pairs by the server that has the key by which they were found, and by whether it has both.

        Whoever is given a batch sends it before the next one.
        """
        if not found:
            return
        self._rate.sent(len(pairs), time.monotonic)
        cluster = cluster_of(self._deployment)
        if not cluster:
            yield self._batch(self.place(found[0]).node, pairs)  # and that of all others
            return
        slots = [*map(key_slot, found)]
        crossing = [*map(ne, slots, map(key_slot, pairs.targets if found == pairs.sources else pairs.sources))]
        for server, group in cluster.by_node(dict(enumerate(slots))).items():
            for crosses in (True, False):
                chosen = [index for index in group if crossing[index] is crosses]
                if chosen:
                    batch = self._batch(server, pairs.chosen(chosen) if len(chosen) < len(pairs) else pairs)
                    yield self._across(batch, cluster) if crosses else batch
                    server.flush()  # another server will be waited for first

    def send_again(self, batch: RoutedBatch) -> PairsCall:
        """Ask once more about pairs of a batch that has been answered."""
        self._rate.sent(len(batch.pairs), time.monotonic)
        return batch.ask(batch.server, batch.pairs, batch.pause)

    def rerouted(self, batch: RoutedBatch) -> RoutedBatch:
        """Return a batch of which a key lives elsewhere now. Raises Error where there is no elsewhere."""
        cluster = cluster_of(self._deployment)
        if not cluster:
            raise Error("the server says that a key has moved, and there is no cluster")
        return self._across(replace(batch, pause=self.pace(batch.server).pause), cluster)

    def _batch(self, server: Connection, pairs: Pairs) -> RoutedBatch:
        shard = self._deployment.shard(server)
        return RoutedBatch(server, pairs, self.pace(server).pause, self._verb.same_slot, shard=shard)

    def _across(self, batch: RoutedBatch, cluster: Cluster) -> RoutedBatch:
        ask = partial(CrossSlotBatch, cluster, steps=self._verb.cross_slot)
        return replace(batch, ask=ask, cross_slot=True)


def cluster_of(deployment: Deployment) -> Cluster | None:
    """Return the cluster that a deployment is; None for one server."""
    return deployment if isinstance(deployment, Cluster) else None


def scripts_for(deployment: Deployment, verb: Verb) -> tuple[str, ...]:
    """Return the scripts that a verb's batches may call."""
    return (*verb.scripts, *(cross_slot.SCRIPTS if deployment.slots else ()))
