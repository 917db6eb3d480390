"""A cluster: its primaries, which of them holds a key, and how that changes while the work is under way."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from redis.crc import key_slot

from luamigrate.model.errors import Error, Refused, printable
from luamigrate.server.connection import Connection, ReconnectPolicy, at_one_moment
from luamigrate.server.deployment import SLOTS, Layout, Place
from luamigrate.server.errors import Redirected, ServerChanged, Unsettled
from luamigrate.server.identity import PRIMARY, Identity, facts_of_pairs

SECONDS_BETWEEN_TRIES = 0.05
MOST_KEYS_AT_ONCE = 10_000
"""Of slots: naming them takes a millisecond or two."""
MOST_SLOTS_AT_ONCE = 500
HOPS = 5
"""From node to node, without a pause."""
UNKNOWN_HOST = b"?"
"""What a node that is to give names says of one that has none (`cluster-preferred-endpoint-type hostname`)."""
PASSES = 100
"""Over slots, until none of them is moved meanwhile."""

_ELSEWHERE = re.compile(r"non local key|rehashing of the slot|cluster is down")
"""In a script's words."""

Address = tuple[str, int]


class Cluster:
    """The primaries of a cluster, with a connection to each.

    A node that is lost is waited for as a single server is, unless another one has taken its place: then
    calls to it raise ServerChanged, and `accept_change` finds out who holds its slots now.
    """

    def __init__(self, entry: Connection) -> None:
        self.url = entry.url
        self.identity: Identity = entry.identity
        """Of the node that was asked first."""
        self._entry = entry
        self._policy = ReconnectPolicy()
        self._nodes: dict[Address, Connection] = {}
        self._retired: list[Connection] = []
        self._known: list[Address] = []
        """Of all nodes, replicas included, as last heard."""
        self._holders: list[Connection | None] = [None] * SLOTS
        self._learn(_slots(entry))
        entry.close()

    @property
    def primaries(self) -> list[Connection]:
        """The nodes that hold slots, in the order of their addresses."""
        holding = set(map(id, self._holders))
        return [server for _, server in sorted(self._nodes.items()) if id(server) in holding]

    @property
    def role(self) -> str:
        """A primary's: whatever is written goes to one of them."""
        return PRIMARY

    @property
    def slots(self) -> Self:
        """Itself: it is asked about its slots."""
        return self

    def shard(self, server: Connection) -> str:
        """Name a node by its host and port."""
        return server.place

    def held_by(self, server: Connection) -> list[int]:
        """Return the slots that a node holds, in order."""
        return [slot for slot, holder in enumerate(self._holders) if holder is server]

    @property
    def unheld(self) -> int:
        """How many slots nobody holds."""
        return self._holders.count(None)

    def holder(self, key: bytes) -> Connection:
        """Return the node that holds a key's slot. Raises Error where nobody does."""
        return self.holder_of(key_slot(key))

    def place(self, key: bytes) -> Place:
        """Return the node that holds a key's slot, and the database. Raises Error where nobody does."""
        node = self.holder(key)
        return Place(node, node.database)

    def holder_of(self, slot: int) -> Connection:
        """Return the node that holds a slot. Raises Error where nobody does."""
        server = self._holders[slot]
        if server is None:
            raise Error(f"the cluster is incomplete: nobody holds slot {slot}")
        return server

    def reconnect_by(self, policy: ReconnectPolicy) -> None:
        """From now on, wait for nodes that are lost."""
        self._policy = policy
        for address, server in self._nodes.items():
            self._prepare(address, server)

    def refresh(self) -> None:
        """Ask anew who holds which slot. Raises Error where nobody can be asked in time."""
        self._patiently(lambda: self._learn(self._ask_around()))

    def find_primary(self, _problem: Error) -> None:
        """Find out who is a primary now, because some node has become a replica."""
        self.refresh()

    def is_unsettled(self, problem: Error) -> bool:
        """Tell whether something failed because a key is elsewhere, or on its way there."""
        return isinstance(problem, (Redirected, Unsettled)) or bool(_ELSEWHERE.search(str(problem)))

    def confirm(self) -> None:
        """See that no replica has taken a primary's place: it may lack what that was given. Raises ServerChanged."""
        self.refresh()
        views = [server.call("CLUSTER", "NODES") for server in (*self._nodes.values(), *self._retired)]
        if any(b"myself,slave" in view.answer() for view in views):
            raise ServerChanged("a replica has taken the place of a primary: run again")

    def accept_change(self) -> None:
        """Go on with the nodes that hold the slots now. Raises Error where some cannot be reached in time."""
        self._patiently(self._meet_all)
        while self._retired:
            self._retired.pop().close()

    def _meet_all(self) -> None:
        for server in self._nodes.values():
            server.accept_change()
        self._learn(self._ask_around())
        for server in self.primaries:
            server.keep_in_touch()

    def _patiently(self, step: Callable[[], None]) -> None:
        """Take a step that fails while nodes are down. Raises Error where it fails until the patience ends."""
        deadline = self.deadline()
        while True:
            try:
                step()
            except Error as problem:
                if self._policy.control.stop() or time.monotonic() >= deadline:
                    raise Error(str(problem)) from None
                self._policy.control.tell(f"waiting for the cluster: {problem}")
                time.sleep(SECONDS_BETWEEN_TRIES)
            else:
                return

    def deadline(self) -> float:
        """Return until when somebody is to be patient, by the monotonic clock."""
        return time.monotonic() + self._policy.patience

    def ask_alone(self, key: bytes, ask: Callable[[Connection], Any], deadline: float) -> Any:
        """Ask about a single key, which must be declared, whoever has it now, and return the answer.

        `ask` returns what takes `answers`. Where nobody has it before the deadline, that is the answer.
        """
        server, asking, hops = self.holder(key), False, 0
        while True:
            hops += 1
            if asking:
                server.call("ASKING", once=True)
            try:
                answers, _ = ask(server).answers()
                if answers[0] != b"moved":
                    return answers[0]
                problem: Error = Error("it is on its way to another node")
                server, asking = self.holder(key), False
            except (Redirected, Unsettled) as error:
                problem = error
                server, asking = self._where(key, error, server)
            if time.monotonic() >= deadline or self._policy.control.stop():
                return b"failed " + str(problem).encode()
            # Two nodes may send us to and fro until they agree.
            if not isinstance(problem, Redirected) or hops % HOPS == 0:
                self._policy.control.tell(f"waiting for the cluster: {problem}")
                time.sleep(SECONDS_BETWEEN_TRIES)

    def _where(self, key: bytes, problem: Redirected | Unsettled, said_by: Connection) -> tuple[Connection, bool]:
        """Return who has a key by what a node said, and whether it is only on its way there."""
        if isinstance(problem, Redirected) and problem.host != UNKNOWN_HOST.decode():
            with suppress(Error):
                server = self._node((problem.host or said_by.host, problem.port))
                if not problem.asking:
                    self._holders[key_slot(key)] = server
                return server, problem.asking
        self.refresh()
        return self.holder(key), False

    def layout(self) -> Layout:
        """Ask every primary which slots it holds, and which are on their way to or from it."""
        holders: dict[int, str] = {}
        epochs: dict[str, str] = {}
        on_the_way: set[int] = set()
        for node, epoch, held, moving in map(_own_line, [server.call("CLUSTER", "NODES") for server in self.primaries]):
            epochs[node] = epoch
            holders |= dict.fromkeys(held, node)
            on_the_way |= moving.keys()
        return Layout(holders, epochs, frozenset(on_the_way))

    def moved_since(self, before: Layout) -> list[int]:
        """Return the slots of which keys may have moved since, and know who holds them now."""
        self.refresh()
        return self.layout().unlike(before)

    def keys_of(self, slots: list[int]) -> Generator[tuple[Connection, list[bytes]], None, list[int]]:
        """Yield all keys of slots, those of several slots as they are at one moment, with the node that has them.

        Where a slot is on its way, first those that are still here, then those that are there. Returns the slots
        that have too many keys to be named. Raises Error where a slot does not come to rest.
        """
        crowded: list[int] = []
        for _ in range(PASSES):
            elsewhere: list[int] = []
            for server, group in self._in_groups(slots, crowded):
                (_, _, held, moving), keys = _line_and_keys(server, group)
                for slot, names in zip(group, keys, strict=True):
                    if slot not in held:
                        elsewhere.append(slot)
                        continue
                    if slot in moving:
                        other = self._node_called(moving[slot], server)
                        if other.call("CLUSTER", "COUNTKEYSINSLOT", slot).answer() > MOST_KEYS_AT_ONCE:
                            crowded.append(slot)
                            continue
                        yield server, names
                        yield server, _line_and_keys(other, [slot])[1][0]
                    else:
                        yield server, names
            if not elsewhere:
                return crowded
            time.sleep(SECONDS_BETWEEN_TRIES)
            self.refresh()
            slots = elsewhere
        raise Error(f"slot {slots[0]} does not come to rest: run again when no slots are being moved")

    def _in_groups(self, slots: list[int], crowded: list[int]) -> Iterator[tuple[Connection, list[int]]]:
        """Yield slots of a node, with few enough keys to name them at once; the others are added to the crowded."""
        by_holder: dict[Connection, list[int]] = {}
        for slot in slots:
            by_holder.setdefault(self.holder_of(slot), []).append(slot)
        for server, held in by_holder.items():
            calls = [(slot, server.call("CLUSTER", "COUNTKEYSINSLOT", slot)) for slot in held]
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

    def close(self) -> None:
        """End the connections."""
        for server in (*self._nodes.values(), *self._retired):
            server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def whereabouts(self) -> str:
        """Where it is, in words."""
        return f"{self.url}, {len(self.primaries)} primaries"

    def _learn(self, ranges: list[_Range]) -> None:
        """Take in who holds which slots; connect to whom we do not know, part from whom holds none."""
        holding = {where.primary for where in ranges}
        # Not closed yet: calls to them may still be under way.
        self._retired += [self._nodes.pop(address) for address in self._nodes.keys() - holding]
        servers = {address: self._node(address) for address in holding}
        self._known = list(dict.fromkeys([*holding, *(node for where in ranges for node in where.replicas)]))
        self._holders = [None] * SLOTS
        for where in ranges:
            self._holders[where.first : where.last + 1] = [servers[where.primary]] * (where.last + 1 - where.first)

    def _node(self, address: Address) -> Connection:
        if address not in self._nodes:
            self._nodes[address] = self._entry.at(*address)
            self._prepare(address, self._nodes[address])
        return self._nodes[address]

    def _node_called(self, node: str, known_to: Connection) -> Connection:
        """Return the node with this identifier: one that has no slots yet is where another one says."""
        for server in self.primaries:
            if _own_line(server.call("CLUSTER", "NODES"))[0] == node:
                return server
        line = re.compile(rb"^%s (\S+):(\d+)@" % node.encode(), re.MULTILINE)
        match = line.search(known_to.call("CLUSTER", "NODES").answer())
        if not match:
            raise Error(f"the cluster has no node {node}, to which a slot is being moved")
        return self._node((printable(match[1]), int(match[2])))

    def _prepare(self, address: Address, server: Connection) -> None:
        replaced = partial(self._is_replaced, address)
        server.reconnect_by(replace(self._policy, needs_primary=True, replaced=replaced))

    def _is_replaced(self, address: Address) -> bool:
        with suppress(Error):
            return all(where.primary != address for where in self._ask_around(but=address))
        return False

    def _ask_around(self, but: Address | None = None) -> list[_Range]:
        """Ask the first node that answers who holds which slots."""
        problem = Error("no node of the cluster can be asked")
        for address in self._known:
            if address == but:
                continue
            try:
                with self._entry.at(*address) as server:
                    return _slots(server)
            except Error as error:
                problem = error
        raise problem


@dataclass(frozen=True)
class _Range:
    first: int
    last: int
    primary: Address
    replicas: list[Address]


def _slots(server: Connection) -> list[_Range]:
    """Ask a node who holds which slots. Raises Refused where that is not permitted."""
    reply = server.call("CLUSTER", "SLOTS").answer()
    try:
        ranges = []
        for first, last, *nodes in reply:
            primary, *replicas = [(_host(node, server), int(node[1])) for node in nodes]
            ranges.append(_Range(first, last, primary, replicas))
    except (IndexError, TypeError, ValueError):
        raise Error("the server does not answer CLUSTER SLOTS as it should") from None
    if not ranges:
        raise Refused("cluster: no slot is held by any node: the cluster has not been formed")
    return ranges


def _host(node: list[Any], server: Connection) -> str:
    """Return the host of a node of CLUSTER SLOTS; where there is none, it is that of the server which tells."""
    host = node[0]
    if host == UNKNOWN_HOST:
        # Servers that are to give names give addresses beside, from Redis 7.0 on.
        host = facts_of_pairs(node[3] if len(node) > 3 else None).get("ip", "").encode()  # noqa: PLR2004
    return printable(host or b"") or server.host


_Line = tuple[str, str, set[int], dict[int, str]]
"""A node's identifier and epoch, the slots that it holds, and those on their way, with the other node."""


def _own_line(call: Any) -> _Line:
    return _parse_own_line(call.answer())


def _parse_own_line(reply: Any) -> _Line:
    match = re.search(rb"^(\S+) \S+ \S*myself\S* \S+ \S+ \S+ (\d+) \S+(.*)$", reply, re.MULTILINE)
    if not match:
        raise Error("the server does not answer CLUSTER NODES as it should")
    held: set[int] = set()
    moving: dict[int, str] = {}
    for part in printable(match[3]).split():
        if on_the_way := re.fullmatch(r"\[(\d+)-[<>]-(\w+)\]", part):
            moving[int(on_the_way[1])] = on_the_way[2]
        elif span := re.fullmatch(r"(\d+)(?:-(\d+))?", part):
            held.update(range(int(span[1]), int(span[2] or span[1]) + 1))
    return printable(match[1]), printable(match[2]), held, moving


def _line_and_keys(server: Connection, slots: list[int]) -> tuple[_Line, list[list[bytes]]]:
    """Ask a node for its line and for the keys of slots, all at one moment."""
    keys_of_slots = [("CLUSTER", "GETKEYSINSLOT", slot, 2 * MOST_KEYS_AT_ONCE) for slot in slots]
    nodes, *keys = at_one_moment(server, [("CLUSTER", "NODES"), *keys_of_slots])
    return _parse_own_line(nodes), keys
