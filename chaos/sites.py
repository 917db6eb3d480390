"""Where trials take place: a primary with its replica behind a link, or a cluster; whole again after every trial."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import redis

from luamigrate.cli.embedded import free_port
from tests import binaries, clusters
from tests.clusters import QUICK_MS, ClusterInstance, Node, slot_of, surviving, wait_until
from tests.instances import Instance, start
from tests.proxies import cutting
from tests.sentinels import SERVICE, sentinel

MS_TO_REPLICATE = 500
SLOW_MS = 10
"""The duration of a script from which on the server itself keeps a record of it."""
USER, PASSWORD = "migrator", "sesame"
SECONDS_TO_CONNECT = 2
MAY_ALL = ("on", f">{PASSWORD}", "~*", "&*", "+@all")
KNOWN = ("--user", USER, *MAY_ALL)
AOF = ("--appendonly", "yes", "--auto-aof-rewrite-percentage", "0")
AT_ONCE = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
SYNC = ("always", "everysec")


class Link:
    """What stands between luamigrate and a server, and can be slow, cut, or lead elsewhere."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.cut_requests: list[float] = []
        """Parts of the next requests that still pass before their connection is cut."""
        self.cut_replies: list[float] = []

    def requests(self, content: bytes) -> int | None:
        """Pass requests on."""
        return self._passing(content, self.cut_requests)

    def replies(self, content: bytes) -> int | None:
        """Pass replies on."""
        return self._passing(content, self.cut_replies)

    def _passing(self, content: bytes, cuts: list[float]) -> int | None:
        time.sleep(self.delay)
        return int(len(content) * cuts.pop()) if cuts else None


class Site(Protocol):
    """Servers that trials can be made on."""

    name: str
    is_one: bool
    """Whether one server has all keys, so that an application can write to two of them in one moment."""
    has_moments: bool
    """Whether fields of hashes can expire."""

    def url(self) -> str:
        """Return where luamigrate finds it."""

    def servers(self) -> list[Instance]:
        """Return the primaries."""

    def all_servers(self) -> list[Instance]:
        """Return the replicas too."""

    def has(self, server: Any, key: bytes) -> bool:
        """Tell whether a key lives on a primary."""

    def client(self) -> Any:
        """Return a client of an application, with connections of its own."""

    def has_all(self, client: Any, key: bytes) -> bool:
        """Tell whether all that the client last wrote, to this key, would survive its primary."""

    def heal(self) -> None:
        """Have everything up, connected and without limits."""


def replicated(client: Any, node: Any = None) -> bool:
    """Tell whether a replica has what this connection wrote last."""
    options = {"target_nodes": node} if node else {}
    return bool(client.wait(1, MS_TO_REPLICATE, **options) >= 1)


def reset(site: Site) -> None:
    """Empty it, forget the scripts and what was slow, and let luamigrate's user do everything."""
    # A Sentinel may still act on what the last trial did.
    surviving(partial(_reset, site))


def _reset(site: Site) -> None:
    site.heal()
    for server in site.all_servers():
        allow(server)
        server.client.config_set("slowlog-log-slower-than", SLOW_MS * 1000)
        server.client.config_set("slowlog-max-len", 1000)
    for server in site.servers():
        server.client.flushall()
        for command in ("SCRIPT FLUSH", "SLOWLOG RESET"):
            server.client.execute_command(command)
        wait_until(partial(replicated, server.client))


def allow(server: Instance) -> None:
    """Let luamigrate's user do everything."""
    server.client.execute_command("ACL", "SETUSER", USER, "reset", *MAY_ALL)


def without_limits(server: Instance) -> None:
    """Take back what faults have set."""
    server.client.config_set("maxmemory", 0)
    with suppress(redis.ResponseError):
        server.client.execute_command("CLIENT", "UNPAUSE")
    allow(server)


class Standalone:
    """A primary and its replica, that luamigrate reaches by one address, whichever of them is the primary."""

    is_one = True

    def __init__(self, name: str, instances: list[Instance], options: list[tuple[str, ...]]) -> None:
        self.name = name
        self.primary, self.replica = instances
        self._options = dict(zip((each.url for each in instances), options, strict=True))
        self.link = Link()
        self.has_moments = self.primary.has_field_expiries
        self.address = ""

    def url(self) -> str:
        """Return the address of the link."""
        return self.address.replace("://", f"://{USER}:{PASSWORD}@")

    def path(self) -> str:
        """Return the socket that the link leads to now."""
        return self.primary.url.removeprefix("unix://")

    def servers(self) -> list[Instance]:
        """Return the primary."""
        return [self.primary]

    def all_servers(self) -> list[Instance]:
        """Return the replica too."""
        return [self.primary, self.replica]

    def has(self, _server: Instance, _key: bytes) -> bool:
        """Tell that all keys live on the primary."""
        return True

    def client(self) -> redis.Redis:
        """Connect to whoever is the primary."""
        return self.primary.another_client(socket_timeout=SECONDS_TO_CONNECT)

    def has_all(self, client: Any, _key: bytes) -> bool:
        """Ask for the replica's acknowledgement."""
        return replicated(client)

    def follow(self, replica: Instance) -> None:
        """Have an instance follow the primary."""
        _, port = self.primary.client.config_get("port").popitem()
        surviving(lambda: replica.client.replicaof("127.0.0.1", port))

    def start_again(self, instance: Instance) -> None:
        """Start the primary or the replica as it was."""
        instance.start_again(*self._options[instance.url])

    def promote(self) -> None:
        """Have primary and replica change places from one moment to the next."""
        self.replica.client.replicaof("NO", "ONE")
        self.primary, self.replica = self.replica, self.primary
        self.follow(self.replica)

    def heal(self) -> None:
        """Have both up, and the replica follow."""
        self.link.delay = 0.0
        self.link.cut_requests.clear()
        self.link.cut_replies.clear()
        for server in self.all_servers():
            surviving(partial(without_limits, server))
        wait_until(self.follows)

    def follows(self) -> bool:
        """Tell whether the replica has all of the primary."""
        with suppress(redis.RedisError):
            facts: Any = self.replica.client.info("replication")
            return bool(facts.get("master_link_status") == "up")
        return False


@contextmanager
def pair(name: str, sync: str, *more: str) -> Iterator[tuple[list[Instance], list[tuple[str, ...]]]]:
    """Start a primary whose AOF is synchronised as told, and its replica; yield both, and how they were started."""
    options: list[tuple[str, ...]] = [
        ("--port", str(free_port()), "--bind", "127.0.0.1", "--appendfsync", sync, *AOF, *AT_ONCE, *KNOWN, *more)
        for _ in range(2)
    ]
    with start(name, *options[0]) as primary, start(name, *options[1]) as replica:
        replica.client.replicaof("127.0.0.1", options[0][1])
        yield [primary, replica], options


@contextmanager
def standalone(name: str, sync: str) -> Iterator[Standalone]:
    """Start a primary whose AOF is synchronised as told, its replica, and the link."""
    with pair(name, sync) as (instances, options):
        site = Standalone(name, instances, options)
        site.heal()
        with cutting(site.path, site.link.requests, site.link.replies) as site.address:
            yield site


class Guarded(Standalone):
    """A primary and its replica, that a Sentinel tells of, and has change places."""

    def __init__(self, name: str, instances: list[Instance], options: list[tuple[str, ...]], sentinel: int) -> None:
        super().__init__(name, instances, options)
        self.port = sentinel
        self._sentinel = redis.Redis(port=sentinel, protocol=2)
        self.address = f"sentinel://127.0.0.1:{sentinel}/{SERVICE}"

    def client(self) -> redis.Redis:
        """Connect to whom the Sentinel names."""
        self._learn()
        return super().client()

    def be_quick(self) -> None:
        """Let failovers follow soon upon each other, yet none because the machine is busy."""
        for name, value in (("failover-timeout", 2000), ("down-after-milliseconds", 1500)):
            self._sentinel.execute_command("SENTINEL", "SET", SERVICE, name, value)

    def fail_over(self) -> None:
        """Have the replica promoted while the primary is up."""
        former = self.primary
        surviving(partial(self._sentinel.execute_command, "SENTINEL FAILOVER", SERVICE))
        self.await_other_than(former)

    def await_other_than(self, former: Instance) -> None:
        """Wait until another one is the primary."""
        wait_until(lambda: self._learn() and self.primary is not former)

    def heal(self) -> None:
        """Have both up, and the Sentinel know that."""
        wait_until(lambda: self._learn() and self._knows_the_replica())
        super().heal()

    def _learn(self) -> bool:
        """Ask the Sentinel who is the primary; tell whether that one agrees."""
        address: Any = self._sentinel.sentinel_get_master_addr_by_name(SERVICE)
        both = (self.primary, self.replica)
        self.primary, self.replica = sorted(both, key=lambda each: self._options[each.url][1] != str(address[1]))
        with suppress(redis.RedisError):
            return bool(self.primary.client.execute_command("ROLE")[0] == b"master")
        return False

    def _knows_the_replica(self) -> bool:
        replicas: Any = self._sentinel.sentinel_slaves(SERVICE)
        return bool([replica["flags"] for replica in replicas] == ["slave"])


@contextmanager
def guarded(name: str) -> Iterator[Guarded]:
    """Start a primary, its replica, and a Sentinel that decides alone."""
    with pair(name, "everysec") as (instances, options):
        binary = binaries.find(name)
        assert isinstance(binary, Path), binary
        port: Any = instances[0].client.config_get("port")["port"]
        with sentinel(binary, int(port)) as own:
            site = Guarded(name, instances, options, own)
            site.be_quick()
            site.heal()
            yield site


class Clustered:
    """Three primaries with a replica each."""

    is_one = False

    def __init__(self, cluster: ClusterInstance) -> None:
        self.name, self.cluster = cluster.name, cluster
        self.has_moments = cluster.has_field_expiries

    def url(self) -> str:
        """Return the address of the first node that is up."""
        node = next(node for node in self.cluster.nodes if node.process.poll() is None)
        return node.url_for(USER, PASSWORD)

    def servers(self) -> list[Instance]:
        """Return the primaries."""
        return list(self.cluster.primaries())

    def all_servers(self) -> list[Instance]:
        """Return the replicas too."""
        return list(self.cluster.nodes)

    def has(self, server: Node, key: bytes) -> bool:
        """Tell whether a key's slot is a primary's."""
        return server.has(slot_of(key))

    def client(self) -> Any:
        """Connect to the cluster."""
        node = next(node for node in self.cluster.nodes if node.process.poll() is None)
        return clusters.Client.from_url(node.url, protocol=2, socket_timeout=SECONDS_TO_CONNECT)

    def has_all(self, client: Any, key: bytes) -> bool:
        """Ask for the acknowledgement of the replica of the key's primary."""
        return replicated(client, client.get_node_from_key(key))

    def heal(self) -> None:
        """Have all nodes up and agreed."""
        for node in self.cluster.nodes:
            if node.process.poll() is not None:
                node.start_again()
        self.cluster.wait_until_agreed()
        for node in self.cluster.nodes:
            surviving(partial(without_limits, node))


@contextmanager
def clustered(name: str) -> Iterator[Clustered]:
    """Start a cluster whose nodes are missed soon."""
    with clusters.start(name, replicas=True, node_timeout=QUICK_MS) as cluster:
        yield Clustered(cluster)
