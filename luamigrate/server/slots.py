"""The slots of a cluster: which node has which, the keys in them, and how slots are moved meanwhile."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from luamigrate.model.errors import Error, printable
from luamigrate.server.connection import RECONNECTIONS, Connection
from luamigrate.server.errors import ConnectionLost

SLOTS = 16_384
"""How many slots a cluster has."""
SECONDS_BETWEEN_TRIES = 0.05
MOST_KEYS_AT_ONCE = 10_000
"""Keys named in one answer: that takes a server a millisecond or two."""
MOST_SLOTS_AT_ONCE = 500
PASSES = 100
"""Times that slots are asked about, until none of them is moved meanwhile."""


@dataclass(frozen=True)
class Layout:
    """Which node had which slot at a moment, as the primaries themselves say."""

    nodes: dict[int, str]
    """The node of each slot."""
    epochs: dict[str, str]
    """The epoch of each node: every slot that it is given raises it."""
    moving: frozenset[int]
    """Slots whose keys are being moved one by one: they may be on either node."""

    def changed_since(self, before: Layout) -> list[int]:
        """Return the slots whose keys may have moved since `before`, even there and back."""
        raised = {node for node, epoch in self.epochs.items() if before.epochs.get(node) != epoch}
        moved = (
            slot
            for slot in range(SLOTS)
            if self.nodes.get(slot) != before.nodes.get(slot) or self.nodes.get(slot) in raised
        )
        return sorted({*moved, *self.moving, *before.moving})


class Slots(ABC):
    """The slots of a cluster. A scan watches them, because they may be moved meanwhile."""

    def __init__(self) -> None:
        self._node_of: list[Connection | None] = [None] * SLOTS

    @property
    @abstractmethod
    def primaries(self) -> list[Connection]:
        """The nodes that have slots."""

    @abstractmethod
    def refresh(self) -> None:
        """Ask anew which node has which slot. Raises Error where nobody can be asked in time."""

    @abstractmethod
    def node_called(self, identifier: str, known_to: Connection) -> Connection:
        """Return the node with an identifier, which may have no slots yet, with the help of one that knows it."""

    @property
    def unassigned(self) -> int:
        """How many slots no node has."""
        return self._node_of.count(None)

    def slots_of(self, server: Connection) -> list[int]:
        """Return the slots that a node has, in order."""
        return [slot for slot, node in enumerate(self._node_of) if node is server]

    def node_of(self, slot: int) -> Connection:
        """Return the node that has a slot. Raises Error where there is none."""
        server = self._node_of[slot]
        if server is None:
            raise Error(f"the cluster is incomplete: nobody holds slot {slot}")
        return server

    def by_node(self, slots: Mapping[int, int]) -> dict[Connection, list[int]]:
        """Return indexes, given the slot of each, by the node that has it. Raises Error where there is none."""
        groups: dict[Connection, list[int]] = {}
        node_of = self._node_of
        for index, slot in slots.items():
            groups.setdefault(node_of[slot] or self.node_of(slot), []).append(index)
        return groups

    def layout(self) -> Layout:
        """Ask every primary which slots it has, and which are being moved to it or away."""
        calls = [server.call("CLUSTER", "NODES") for server in self.primaries]
        lines = [NodeLine.parse(call.answer()) for call in calls]
        return Layout(
            nodes={slot: line.identifier for line in lines for slot in line.slots},
            epochs={line.identifier: line.epoch for line in lines},
            moving=frozenset(slot for line in lines for slot in line.moving),
        )

    def moved_since(self, before: Layout) -> list[int]:
        """Return the slots whose keys may have moved since, and learn which nodes have them now."""
        self.refresh()
        return self.layout().changed_since(before)

    def keys_of(self, slots: list[int]) -> Generator[tuple[Connection, list[bytes]], None, list[int]]:
        """Yield all keys of slots with the node that has them; the keys of several slots are those of one moment.

        Of a slot that is being moved, the keys that are still here come first, then those that have arrived. Returns
        the slots that have too many keys to be named. Raises Error where a slot does not come to rest.
        """
        crowded: list[int] = []
        for _ in range(PASSES):
            elsewhere: list[int] = []
            for server, group in self._in_groups(slots, crowded):
                line, keys = _line_and_keys(server, group)
                for slot, names in zip(group, keys, strict=True):
                    if slot not in line.slots:
                        elsewhere.append(slot)
                    elif slot not in line.moving:
                        yield server, names
                    elif _count(other := self.node_called(line.moving[slot], server), slot) > MOST_KEYS_AT_ONCE:
                        crowded.append(slot)
                    else:
                        yield server, names
                        yield server, _line_and_keys(other, [slot])[1][0]
            if not elsewhere:
                return crowded
            time.sleep(SECONDS_BETWEEN_TRIES)
            self.refresh()
            slots = elsewhere
        raise Error(f"slot {slots[0]} does not come to rest: run again when no slots are being moved")

    def _in_groups(self, slots: list[int], crowded: list[int]) -> Iterator[tuple[Connection, list[int]]]:
        """Yield slots of one node, with few enough keys to name them at once; add the others to the crowded."""
        by_node: dict[Connection, list[int]] = {}
        for slot in slots:
            by_node.setdefault(self.node_of(slot), []).append(slot)
        for server, its_slots in by_node.items():
            calls = [(slot, server.call("CLUSTER", "COUNTKEYSINSLOT", slot)) for slot in its_slots]
            group: list[int] = []
            room = MOST_KEYS_AT_ONCE
            for slot, call in calls:
                count = call.answer()
                if count > MOST_KEYS_AT_ONCE:
                    crowded.append(slot)
                    continue
                if group and (count > room or len(group) == MOST_SLOTS_AT_ONCE):
                    yield server, group
                    group, room = [], MOST_KEYS_AT_ONCE
                group.append(slot)
                room -= count
            if group:
                yield server, group


@dataclass(frozen=True, slots=True)
class NodeLine:
    """What a node says of itself in CLUSTER NODES."""

    identifier: str
    epoch: str
    slots: set[int]
    moving: dict[int, str]
    """Slots that are being moved to it or away, each with the other node's identifier."""

    @classmethod
    def parse(cls, reply: Any) -> NodeLine:
        """Read the line of the node that answers. Raises Error where there is none."""
        match = re.search(rb"^(\S+) \S+ \S*myself\S* \S+ \S+ \S+ (\d+) \S+(.*)$", reply, re.MULTILINE)
        if not match:
            raise Error("the server does not answer CLUSTER NODES as it should")
        line = cls(printable(match[1]), printable(match[2]), set(), {})
        for text in printable(match[3]).split():
            if moving := re.fullmatch(r"\[(\d+)-[<>]-(\w+)\]", text):
                line.moving[int(moving[1])] = moving[2]
            elif span := re.fullmatch(r"(\d+)(?:-(\d+))?", text):
                line.slots.update(range(int(span[1]), int(span[2] or span[1]) + 1))
        return line


def _count(server: Connection, slot: int) -> int:
    return int(server.call("CLUSTER", "COUNTKEYSINSLOT", slot).answer())


def _line_and_keys(server: Connection, slots: list[int]) -> tuple[NodeLine, list[list[bytes]]]:
    """Ask a node for its line and for the keys of slots, all at one moment."""
    keys_of_slots = [("CLUSTER", "GETKEYSINSLOT", slot, 2 * MOST_KEYS_AT_ONCE) for slot in slots]
    nodes, *keys = at_one_moment(server, [("CLUSTER", "NODES"), *keys_of_slots])
    return NodeLine.parse(nodes), keys


def at_one_moment(server: Connection, commands: Sequence[tuple[bytes | str | int, ...]]) -> list[Any]:
    """Return the answers to commands between which no other client's command runs. Raises Error."""
    for _ in range(RECONNECTIONS):
        try:
            server.call("MULTI", once=True)
            for command in commands:
                server.call(*command, once=True)
            answers = server.call("EXEC", once=True).answer()
        except ConnectionLost:
            if server.is_lost:
                raise
        else:
            return list(answers)
    raise Error(
        f"the connection to {server.url} was lost {RECONNECTIONS} times between MULTI and EXEC: see what ends it, then "
        "run again"
    )
