"""Slots that move and primaries that go, as an operator, or chance, has them do."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import Self

from tests.clusters import ClusterInstance, Node, slot_of, surviving, wait_until

PORTION = 10
"""Keys that MIGRATE takes at once."""
MIGRATE_MS = 5000
PAUSE = 0.005
"""Seconds between the steps of those who move slots all the time."""


@dataclass
class Move:
    """A slot that is moved from one primary to another, step by step, as redis-cli does it."""

    cluster: ClusterInstance
    slot: int
    source: Node
    target: Node

    @classmethod
    def begin(cls, cluster: ClusterInstance, slot: int, target: Node) -> Move:
        """Have the source send clients on to the target for keys that it has no more."""
        move = cls(cluster, slot, cluster.owner(slot), target)
        target.cluster("SETSLOT", slot, "IMPORTING", move.source.id)
        move.source.cluster("SETSLOT", slot, "MIGRATING", target.id)
        return move

    def take(self, most: int = PORTION) -> int:
        """Take some keys along, by which they are in one place at any moment; return how many there were."""
        keys = self.source.cluster("GETKEYSINSLOT", self.slot, most)
        if keys:
            to = ("127.0.0.1", self.target.port, "", 0, MIGRATE_MS, "KEYS", *keys)
            self.source.client.execute_command("MIGRATE", *to)
        return len(keys)

    def finish(self) -> None:
        """Take what is left, and tell everybody: the target first, or nobody would have the slot for a moment."""
        while self.take():
            pass
        primaries = self.cluster.primaries()
        for node in (self.target, self.source, *primaries):
            node.cluster("SETSLOT", self.slot, "NODE", self.target.id)
        # Who does not know the latest epoch would take the next slot with one that does not count,
        # lose it again to a late message from its former primary, and delete its keys.
        wait_until(lambda: len({node.epoch for node in primaries}) == 1)


def move(cluster: ClusterInstance, slot: int, target: Node) -> None:
    """Move a slot."""
    Move.begin(cluster, slot, target).finish()


def move_slowly(cluster: ClusterInstance, slot: int, target: Node) -> None:
    """Move a slot, with some time in which its keys are here and there."""
    step = Move.begin(cluster, slot, target)
    while surviving(step.take):
        time.sleep(PAUSE)
    surviving(step.finish)


def move_at_once(cluster: ClusterInstance, slot: int, target: Node) -> None:
    """Move a slot as Valkey 9 does by itself: all of its keys from one moment to the next."""
    cluster.owner(slot).cluster("MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
    wait_until(lambda: target.has(slot))
    cluster.wait_until_agreed()


class Mover(threading.Thread):
    """Moves slots with keys to and fro until the block ends; then all is in order."""

    def __init__(self, cluster: ClusterInstance, *, seed: int = 7, at_once: bool = False) -> None:
        super().__init__(daemon=True)
        self.moves = 0
        self._cluster, self._move = cluster, move_at_once if at_once else move_slowly
        self._chance, self._done = random.Random(seed), threading.Event()
        self._failed: Exception | None = None

    def run(self) -> None:
        """Move one slot after the other."""
        try:
            while not self._done.wait(PAUSE):
                self._take_turn()
        except Exception as error:  # noqa: BLE001  # the test is told when it ends
            self._failed = error

    def _take_turn(self) -> None:
        source, target = self._chance.sample(self._cluster.primaries(), 2)
        key = source.client.randomkey()
        if key is not None:
            self._move(self._cluster, slot_of(key), target)
            self.moves += 1

    def __enter__(self) -> Self:
        self.start()
        wait_until(lambda: self.moves > 0 or not self.is_alive())
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        if self._failed:
            raise self._failed
        self._cluster.wait_until_agreed()


def fail_over(cluster: ClusterInstance, primary: Node) -> Node:
    """Kill a primary, and wait until its replica has been made one and everybody knows; return that."""
    replica = cluster.replica_of(primary)
    primary.kill()
    wait_until(lambda: replica.is_primary)
    cluster.wait_until_agreed()
    return replica


def hand_over(cluster: ClusterInstance, primary: Node) -> Node:
    """Have a primary and its replica change places, as for an upgrade; return the new primary."""
    replica = cluster.replica_of(primary)
    replica.cluster("FAILOVER")
    wait_until(lambda: replica.is_primary and not primary.is_primary)
    cluster.wait_until_agreed()
    return replica
