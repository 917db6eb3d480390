"""A cluster: its primaries, which of them has a key, and who takes the place of a node that is lost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from redis.crc import key_slot

from luamigrate.model.errors import Error, Refused, printable
from luamigrate.server.connection import Connection, ReconnectPolicy
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Redirected, ServerChanged, Unsettled
from luamigrate.server.identity import PRIMARY, Identity, facts_of_pairs
from luamigrate.server.slots import SECONDS_BETWEEN_TRIES, SLOTS, NodeLine, Slots
from luamigrate.server.spare import SpareConnections

HOPS = 5
"""Redirections from node to node that are followed before a pause."""
UNKNOWN_HOST = b"?"
"""What a node that is to give names says of one that has none (`cluster-preferred-endpoint-type hostname`)."""

_ELSEWHERE = re.compile(r"non local key|rehashing of the slot|cluster is down")
"""How a script's error text says that a key is on another node."""

Address = tuple[str, int]


class Cluster(Deployment, Slots):
    """The primaries of a cluster, with a connection to each, and their slots.

    A node that is lost is waited for as a single server is, unless another one has taken its place: then
    calls to it raise ServerChanged, and `accept_change` finds out which node has its slots now.
    """

    def __init__(self, entry: Connection) -> None:
        super().__init__()
        self.url = entry.url
        self._entry = entry
        self._policy = ReconnectPolicy()
        self._nodes: dict[Address, Connection] = {}
        self._retired: list[Connection] = []
        self._spare: dict[Connection, SpareConnections] = {}
        self._known: list[Address] = []
        """Addresses of all nodes, replicas included, as last heard."""
        self._primaries: list[Connection] = []
        """The nodes that have slots; empty until somebody asks again who they are."""
        self._learn(_slots(entry))
        entry.close()

    @property
    def identity(self) -> Identity:
        """The identity of the node that was asked first."""
        return self._entry.identity

    @property
    def primaries(self) -> list[Connection]:
        """The nodes that have slots, in the order of their addresses."""
        if not self._primaries:
            with_slots = set(map(id, self._node_of))
            self._primaries = [server for _, server in sorted(self._nodes.items()) if id(server) in with_slots]
        return self._primaries

    @property
    def role(self) -> str:
        """That of a primary: every write goes to one."""
        return PRIMARY

    @property
    def slots(self) -> Self:
        """The cluster itself, which knows its slots."""
        return self

    def shard(self, server: Connection) -> str:
        """Return the host and port of a node."""
        return server.place

    def node_for(self, key: bytes) -> Connection:
        """Return the node that has a key's slot. Raises Error where there is none."""
        return self.node_of(key_slot(key))

    def reconnect_by(self, policy: ReconnectPolicy) -> None:
        """From now on, wait for nodes that are lost."""
        self._policy = policy
        for address, server in self._nodes.items():
            self._prepare(address, server)

    def spare(self, server: Connection) -> SpareConnections:
        """Return the connections to a node that are lent."""
        if server not in self._spare:
            self._spare[server] = SpareConnections(server, self._policy.control)
        return self._spare[server]

    def lent(self, server: Connection) -> Sequence[Connection]:
        """Return the connections to a node that are there to be lent."""
        return self._spare[server].all if server in self._spare else ()

    def refresh(self) -> None:
        """Ask anew which node has which slot. Raises Error where nobody can be asked in time."""
        self._patiently(lambda: self._learn(self._ask_around()))

    def find_primary(self, _problem: Error) -> None:
        """Find out who is a primary now, because some node has become a replica."""
        self.refresh()

    def is_unsettled(self, problem: Error) -> bool:
        """Tell whether something failed because a key is on another node, or is being moved there."""
        return isinstance(problem, (Redirected, Unsettled)) or bool(_ELSEWHERE.search(str(problem)))

    def confirm(self) -> None:
        """Check that no replica has taken a primary's place: it may lack some writes. Raises ServerChanged."""
        self.refresh()
        views = [server.call("CLUSTER", "NODES") for server in (*self._nodes.values(), *self._retired)]
        if any(b"myself,slave" in view.answer() for view in views):
            raise ServerChanged("a replica has taken the place of a primary: run again")

    def accept_change(self) -> None:
        """Go on with the nodes that have the slots now. Raises Error where some cannot be reached in time."""
        self._close_spare()
        self._patiently(self._meet_all)
        while self._retired:
            self._retired.pop().close()

    def _close_spare(self) -> None:
        while self._spare:
            self._spare.popitem()[1].close()

    def _meet_all(self) -> None:
        for server in self._nodes.values():
            server.accept_change()
        self._learn(self._ask_around())
        for server in self.primaries:
            server.keep_in_touch()

    def _patiently(self, step: Callable[[], None]) -> None:
        """Repeat a step that fails while nodes are down. Raises Error where it fails until the patience ends."""
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
        """Return the moment, by the monotonic clock, at which the patience ends."""
        return time.monotonic() + self._policy.patience

    def ask_alone(self, key: bytes, ask: Callable[[Connection], Any], deadline: float) -> Any:
        """Ask whichever node has a key now about it alone, and return the answer: `failed` after the deadline.

        `ask` sends the question, which must declare the key, and returns what has `answers`.
        """
        server, asking, hops = self.node_for(key), False, 0
        while True:
            hops += 1
            if asking:
                server.call("ASKING", once=True)
            try:
                answers, _ = ask(server).answers()
                if answers[0] != b"moved":
                    return answers[0]
                problem: Error = Error("it is on its way to another node")
                server, asking = self.node_for(key), False
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
        """Return the node that has a key, by what another one said, and whether the key is only being moved there."""
        if isinstance(problem, Redirected) and problem.host != UNKNOWN_HOST.decode():
            with suppress(Error):
                server = self._node((problem.host or said_by.host, problem.port))
                if not problem.asking:
                    self._node_of[key_slot(key)] = server
                    self._primaries = []
                return server, problem.asking
        self.refresh()
        return self.node_for(key), False

    def close(self) -> None:
        """End the connections."""
        self._close_spare()
        for server in (*self._nodes.values(), *self._retired):
            server.close()

    @property
    def whereabouts(self) -> str:
        """The URL, and how many primaries there are."""
        return f"{self.url}, {len(self.primaries)} primaries"

    def _learn(self, ranges: list[_Range]) -> None:
        """Note which node has which slots; connect to new nodes, retire those without slots."""
        with_slots = {where.primary for where in ranges}
        # Not closed yet: calls to them may still be under way.
        self._retired += [self._nodes.pop(address) for address in self._nodes.keys() - with_slots]
        servers = {address: self._node(address) for address in with_slots}
        self._known = list(dict.fromkeys([*with_slots, *(node for where in ranges for node in where.replicas)]))
        self._node_of, self._primaries = [None] * SLOTS, []
        for where in ranges:
            self._node_of[where.first : where.last + 1] = [servers[where.primary]] * (where.last + 1 - where.first)

    def _node(self, address: Address) -> Connection:
        if address not in self._nodes:
            self._nodes[address] = self._entry.at(*address)
            self._prepare(address, self._nodes[address])
        return self._nodes[address]

    def node_called(self, identifier: str, known_to: Connection) -> Connection:
        """Return the node with an identifier: one without slots is where another node says that it is."""
        for server in self.primaries:
            if NodeLine.parse(server.call("CLUSTER", "NODES").answer()).identifier == identifier:
                return server
        line = re.compile(rb"^%s (\S+):(\d+)@" % identifier.encode(), re.MULTILINE)
        match = line.search(known_to.call("CLUSTER", "NODES").answer())
        if not match:
            raise Error(f"the cluster has no node {identifier}, to which a slot is being moved")
        return self._node((printable(match[1]), int(match[2])))

    def _prepare(self, address: Address, server: Connection) -> None:
        replaced = partial(self._is_replaced, address)
        server.reconnect_by(replace(self._policy, needs_primary=True, replaced=replaced))

    def _is_replaced(self, address: Address) -> bool:
        with suppress(Error):
            return all(where.primary != address for where in self._ask_around(but=address))
        return False

    def _ask_around(self, but: Address | None = None) -> list[_Range]:
        """Ask the first node that answers which node has which slots."""
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
    """Ask a node which nodes have which slots. Raises Refused where that is not permitted."""
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
    """Return the host of a node in CLUSTER SLOTS; where it is not given, it is that of the node which answers."""
    host = node[0]
    if host == UNKNOWN_HOST:
        # Servers that are to give names give addresses beside, from Redis 7.0 on.
        host = facts_of_pairs(node[3] if len(node) > 3 else None).get("ip", "").encode()  # noqa: PLR2004
    return printable(host or b"") or server.host
