"""Clusters of a test's own: three primaries, each with a replica where that is wanted, on loopback ports."""

from __future__ import annotations

import random
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import combinations, count, cycle
from pathlib import Path
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import RedisClusterException
from redis.retry import Retry

from luamigrate.cli.embedded import start_server, wait_until_up
from tests import binaries
from tests.instances import Instance, Reachable, debugging, expires_at

T = TypeVar("T")

PRIMARIES = 3
SLOTS = 16_384
SECONDS = 20
"""What a cluster may take to agree on something."""
NODE_TIMEOUT_MS = 5_000
"""After which a silent node is lost; where no node is to be lost, longer than a busy machine delays one."""
QUICK_MS = 1_000
"""The same where one is to be lost."""
PORTS = range(10_000, 22_000)
"""The bus listens 10,000 above: both are below the ports that the system gives to those who do not ask."""


def _sum(_: str, replies: dict[str, Any], **__: Any) -> Any:
    """Add up what the nodes answered: numbers, also those in tables; of anything else, the first one's."""
    first, *others = replies.values()
    for other in others:
        first = _added(first, other)
    return first


def _added(one: Any, other: Any) -> Any:
    if isinstance(one, dict):
        return {**one, **other, **{name: _added(one[name], other[name]) for name in one.keys() & other.keys()}}
    return one + other if isinstance(one, int | float | list) else one


FLAGS = {
    **RedisCluster.COMMAND_FLAGS,
    **dict.fromkeys(("ACL DELUSER", "ACL SETUSER", "CONFIG RESETSTAT", "CONFIG SET"), RedisCluster.ALL_NODES),
    **dict.fromkeys(("CLIENT KILL", "CLIENT LIST", "DBSIZE", "DEBUG"), RedisCluster.PRIMARIES),
    **dict.fromkeys(("INFO", "KEYS", "SLOWLOG GET", "SLOWLOG RESET"), RedisCluster.PRIMARIES),
    "HELLO": RedisCluster.DEFAULT_NODE,
}
CALLBACKS = {
    **RedisCluster.RESULT_CALLBACKS,
    **dict.fromkeys(("CLIENT KILL", "CLIENT LIST", "INFO", "SLOWLOG GET"), _sum),
}


class Client(RedisCluster):
    """An ordinary client of a cluster; a command without a key goes to every node."""

    COMMAND_FLAGS = FLAGS
    RESULT_CALLBACKS = CALLBACKS

    def copy(self, source: Any, destination: Any) -> bool:  # type: ignore[override]  # of COPY's options there are none
        """Read and write, for COPY does not reach across slots."""
        payload = self.dump(source)
        if payload is None or self.exists(destination):
            return False
        self.restore(destination, expires_at(self, source), payload, absttl=True)
        return True

    def mset(self, mapping: Any) -> bool:
        """Slot by slot, for MSET does not reach across."""
        return all(self.mset_nonatomic(mapping))


@dataclass
class Node(Instance):
    """A node of a cluster."""

    folder: Path
    options: tuple[str, ...]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def id(self) -> str:
        """The name that the cluster knows it by."""
        return str(self.cluster("MYID").decode())

    @property
    def epoch(self) -> int:
        """The latest epoch of the cluster that it has heard of."""
        facts = dict(line.split(":") for line in self.cluster("INFO").decode().split())
        return int(facts["cluster_current_epoch"])

    @property
    def is_primary(self) -> bool:
        """Whether it runs, and says that it is a cluster."""
        return self.process.poll() is None and self.client.execute_command("ROLE")[0] == b"master"

    def own_name(self, name: str) -> str:
        """Return the name of a key that would be on this node."""
        names = (f"{name}:{number}" for number in count())
        return next(each for each in names if self.has(slot_of(each)))

    def has(self, slot: int) -> bool:
        """Tell whether it has a slot, by its own account."""
        mine = next(slots for name, _, *slots in self.view() if name == self.id)
        ranges = [each.partition("-") for each in mine if not each.startswith("[")]
        return any(int(first) <= slot <= int(last or first) for first, _, last in ranges)

    def cluster(self, *command: str | int) -> Any:
        """Call a CLUSTER command, and return the answer as it came."""
        return self.client.execute_command("CLUSTER", *command)

    def kill(self) -> None:
        """Kill it with -9."""
        self.process.kill()
        self.process.wait()

    def start_again(self, *options: str) -> None:
        """Start it where it was, another process with no data, and wait until it answers."""
        self.process = _start(self.name, self.folder, *self.options, *options)
        assert wait_until_up(self.process, self.client)

    def view(self) -> frozenset[tuple[str, ...]]:
        """Return how it sees the cluster: of each node that is not lost, its id, its primary and its slots."""
        lines = [line.split() for line in self.cluster("NODES").decode().splitlines()]
        return frozenset(
            (name, primary, *sorted(slots))
            for name, _, flags, primary, _, _, _, _, *slots in lines
            if "fail" not in flags.split(",")
        )

    def is_content(self) -> bool:
        """Tell whether it would serve whoever asks, and has all that its primary has."""
        with suppress(redis.RedisError):
            link: Any = self.client.info("replication").get("master_link_status", "up")
            return link == "up" and b"cluster_state:ok" in self.cluster("INFO")
        return False


class ClusterInstance(Reachable):
    """A running cluster, with the interface of a running server."""

    mode = "cluster"

    def __init__(self, name: str, nodes: list[Node]) -> None:
        self.name, self.nodes, self.url = name, nodes, nodes[0].url
        self.client: Any = self.another_client()

    def another_client(self, **options: Any) -> Any:
        """Return a client with connections of its own."""
        return Client.from_url(self.url, **{"protocol": 2, **options})

    def primaries(self) -> list[Node]:
        """Return the nodes that are primaries at this moment."""
        return [node for node in self.nodes if node.is_primary]

    def shards(self) -> list[Node]:
        """Return the servers that share the keys."""
        return self.primaries()

    def shard_for(self, *command: str | int) -> Node:
        """Return the node to which a command is sent: any, where it has no key."""
        try:
            key, *_ = self.nodes[0].client.execute_command("COMMAND GETKEYS", *command)
        except redis.ResponseError:
            return self.nodes[0]
        return self.owner(slot_of(key))

    def owner(self, slot: int) -> Node:
        """Return the primary that has a slot."""
        return next(node for node in self.primaries() if node.has(slot))

    def replica_of(self, primary: Node) -> Node:
        """Return the first replica of a primary."""
        ids = {name for name, of, *_ in primary.view() if of == primary.id}
        return next(node for node in self.nodes if node.process.poll() is None and node.id in ids)

    def digest(self) -> Any:
        """Return the nodes' own digests of all their keys, in an order that does not depend on which node has what."""
        return tuple(sorted(node.digest() for node in self.primaries()))

    def digest_value(self, key: bytes | str) -> Any:
        """Return the digest of a key's value by the node that has it: the others answer nought."""
        return max(node.digest_value(key) for node in self.primaries())

    def wait_until_agreed(self) -> None:
        """Wait until all nodes that run see the same cluster, and serve it."""
        wait_until(lambda: agreed([node for node in self.nodes if node.process.poll() is None]))


def slot_of(key: bytes | str) -> int:
    """Return the slot of a key."""
    return int(key_slot(key.encode() if isinstance(key, str) else key))


def agreed(nodes: list[Node]) -> bool:
    """Tell whether all of these nodes, and no others, make up a cluster that serves."""
    views = {node.view() for node in nodes}
    return len(views) == 1 and len(views.pop()) == len(nodes) and all(node.is_content() for node in nodes)


def wait_until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait for something to come about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def surviving(step: Callable[[], T]) -> T:
    """Do something until it succeeds, which may be done again; return what came of it."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return step()
        except (redis.RedisError, RedisClusterException) as error:
            # A key that is in two places has been made twice: no patience mends that.
            if "BUSYKEY" in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


@contextmanager
def start(*kinds: str, replicas: bool = False, node_timeout: int = NODE_TIMEOUT_MS) -> Iterator[ClusterInstance]:
    """Start a cluster of these servers, its primaries in turn, and form it; end it afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="luamigrate-test-")))
        nodes = []
        for number, kind in zip(range(PRIMARIES * (1 + replicas)), cycle(kinds), strict=False):
            nodes.append(_start_on_free_ports(kind, folder / str(number), node_timeout))
            stack.callback(nodes[-1].client.close)
            stack.callback(nodes[-1].kill)
        form(nodes)
        cluster = ClusterInstance("+".join(kinds), nodes)
        stack.callback(cluster.client.close)
        yield cluster


@contextmanager
def added(cluster: ClusterInstance, kind: str) -> Iterator[Node]:
    """Start one more node, without slots, that all others know; end it afterwards."""
    with tempfile.TemporaryDirectory(prefix="luamigrate-test-") as folder:
        node = _start_on_free_ports(kind, Path(folder) / "added", NODE_TIMEOUT_MS)
        try:
            cluster.nodes[0].cluster("MEET", "127.0.0.1", node.port)
            cluster.nodes.append(node)
            cluster.wait_until_agreed()
            yield node
        finally:
            node.client.close()
            node.kill()


def form(nodes: list[Node]) -> None:
    """Make a cluster of empty nodes: the first of them primaries, the others their replicas in turn."""
    primaries, replicas = nodes[:PRIMARIES], nodes[PRIMARIES:]
    for number, node in enumerate(nodes):
        node.cluster("SET-CONFIG-EPOCH", number + 1)
        if node in primaries:
            node.cluster("ADDSLOTS", *range(number * SLOTS // PRIMARIES, (number + 1) * SLOTS // PRIMARIES))
    for one, other in combinations(nodes, 2):
        one.cluster("MEET", "127.0.0.1", other.port)
    for replica, primary in zip(replicas, cycle(primaries), strict=False):
        # It is refused as long as the two have not met.
        surviving(partial(replica.cluster, "REPLICATE", primary.id))
    wait_until(lambda: agreed(nodes))


def _start_on_free_ports(kind: str, folder: Path, node_timeout: int) -> Node:
    # Between finding free ports and using them, somebody else may take them.
    folder.mkdir()
    while True:
        port = free_port()
        options = ("--port", str(port), "--cluster-node-timeout", str(node_timeout))
        process = _start(kind, folder, *options)
        client = redis.Redis(port=port, protocol=2, socket_timeout=SECONDS, retry=Retry(NoBackoff(), 0))
        if wait_until_up(process, client):
            return Node(kind, f"redis://127.0.0.1:{port}", process, client, folder, options)
        process.wait()


def _start(kind: str, folder: Path, *options: str) -> Any:
    binary = binaries.find(kind)
    assert isinstance(binary, Path), binary
    address = ("--bind", "127.0.0.1", "--cluster-announce-ip", "127.0.0.1")
    quick = ("--cluster-enabled", "yes", "--repl-diskless-sync-delay", "0")
    return start_server(binary, folder, *address, *quick, *debugging(binary), *options)


def free_port() -> int:
    """Return a port that is free, as that of its bus is."""
    while True:
        port = random.choice(PORTS)
        if _is_free(port) and _is_free(port + 10_000):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False
