"""Clusters, what a client does to copy a namespace across their slots, and luamigrate beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import hiredis
import redis
from redis.cluster import RedisCluster
from redis.connection import AbstractConnection
from redis.crc import key_slot

from bench import jobs
from bench.contenders import TARGET, Measured, luamigrate
from bench.pairs import COLUMNS, measure, show
from bench.record import recorded
from bench.setting import Bench
from luamigrate.cli.embedded import throwaway_server
from tests.clusters import SLOTS, Client, wait_until

PRIMARIES = 3
BATCH = 500
"""How many keys a client's pipeline has."""

MOST_KEYS = 60_000

# The same sources, for both rules: with the braces in it, a target is in its source's slot.
NAME = "job:{{{:08}}}"
CROSS_SLOT = ("--map", "job:{*}=step:*")
ONE_SLOT = ("--map", "job:{*}=step:{*}")

_CLEAR = """
local cursor = '0'
repeat
  local reply = redis.call('SCAN', cursor, 'MATCH', 'step:*', 'COUNT', 1000)
  cursor = reply[1]
  for _, target in ipairs(reply[2]) do redis.call('UNLINK', target) end
until cursor == '0'
"""


@dataclass(frozen=True)
class Cluster:
    """A running cluster with jobs on it."""

    client: Any
    """An ordinary one: `tests.clusters.Client`, to which it is one large server."""
    url: str
    keys: int

    def clear(self) -> None:
        """Remove the targets."""
        self.client.execute_command("EVAL", _CLEAR, 0, target_nodes=RedisCluster.PRIMARIES)

    def luamigrate(self, verb: str, rule: tuple[str, str]) -> Measured:
        """Have luamigrate copy or verify all jobs."""
        measured = luamigrate(self.url, verb, "--quiet", "--json", "--type", "hash", *rule)
        assert measured.copied == self.keys, f"{measured.copied} of {self.keys} keys"
        return measured


@contextmanager
def cluster(binary: Path, primaries: int, keys: int) -> Iterator[Cluster]:
    """Run a cluster of so many primaries, with so many jobs; end it after that."""
    options = ("--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1")
    with ExitStack() as stack:
        urls = [stack.enter_context(throwaway_server(binary, *options)) for _ in range(primaries)]
        nodes = [stack.enter_context(redis.Redis.from_url(url, protocol=2)) for url in urls]
        _form(nodes)
        client = stack.enter_context(Client.from_url(urls[0], protocol=2, socket_timeout=3600))
        jobs.fill(client, keys, name=NAME)
        yield Cluster(client, urls[0], keys)


def _form(nodes: list[redis.Redis]) -> None:
    ports = [node.get_connection_kwargs()["port"] for node in nodes]
    for number, node in enumerate(nodes):
        node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        first, end = (each * SLOTS // len(nodes) for each in (number, number + 1))
        node.execute_command("CLUSTER", "ADDSLOTS", *range(first, end))
        for port in ports[:number]:
            node.execute_command("CLUSTER", "MEET", "127.0.0.1", port)
    wait_until(lambda: all(_serves(node, len(nodes)) for node in nodes))


def _serves(node: redis.Redis, nodes: int) -> bool:
    state = node.execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in state and b"cluster_known_nodes:%d\r" % nodes in state


class _Node:
    """A primary, and what is on its way to it."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._connection: AbstractConnection = client.connection_pool.get_connection()
        self._packed: list[bytes] = []

    def add(self, *command: bytes | str | int) -> None:
        self._packed.append(hiredis.pack_command(command))  # type: ignore[arg-type]  # its stub knows 1-tuples only

    def send(self) -> int:
        """Send what was added, and return how many answers are to come."""
        self._connection.send_packed_command([b"".join(self._packed)], check_health=False)
        count, self._packed = len(self._packed), []
        return count

    def receive(self, count: int) -> list[Any]:
        return [self._connection.read_response() for _ in range(count)]


def client_restores(cluster: Cluster, *, compares: bool) -> Measured:
    """DUMP and PTTL of many keys at their node in one pipeline, then RESTORE at the targets', and DUMP to compare.

    The pipelines are packed and sent by hand, and those to several nodes at once: redis-py's own take twice as long.
    """
    began, processor = time.perf_counter(), time.process_time()
    holders = cluster.client.nodes_manager
    nodes = {node.name: _Node(node.redis_connection) for node in cluster.client.get_primaries()}
    copied = 0
    for node in nodes.values():
        for sources in _batches(node.client.scan_iter(match=b"job:*", count=1000), BATCH):
            payloads = _read(node, sources)
            wanted: dict[str, list[bytes]] = {name: [] for name in nodes}
            for source, (payload, left) in zip(sources, payloads, strict=True):
                target = TARGET + source[len(b"job:{") : -1]
                holder = holders.get_node_from_slot(key_slot(target)).name
                nodes[holder].add("RESTORE", target, max(left, 0), payload)
                if compares:
                    nodes[holder].add("DUMP", target)
                wanted[holder].append(payload)
            copied += _count_restored(nodes, wanted, compares=compares)
    return Measured(time.perf_counter() - began, copied, cpu_seconds=time.process_time() - processor)


def _read(node: _Node, sources: list[bytes]) -> list[tuple[bytes, int]]:
    for source in sources:
        node.add("DUMP", source)
        node.add("PTTL", source)
    replies = iter(node.receive(node.send()))
    return list(zip(replies, replies, strict=True))


def _count_restored(nodes: dict[str, _Node], wanted: dict[str, list[bytes]], *, compares: bool) -> int:
    sent = {name: node.send() for name, node in nodes.items()}
    copied = 0
    for name, count in sent.items():
        replies = nodes[name].receive(count)
        if compares:
            found = zip(replies[::2], replies[1::2], wanted[name], strict=True)
            copied += sum(made == b"OK" and payload == source for made, payload, source in found)
        else:
            copied += replies.count(b"OK")
    return copied


def _batches(names: Iterable[Any], size: int) -> Iterator[list[bytes]]:
    names = iter(names)
    while batch := list(islice(names, size)):
        yield batch


def show_shards(bench: Bench) -> None:
    """Show pairs in two slots beside what a client does with them, and beside the same sources' pairs in one."""
    keys = min(bench.keys, MOST_KEYS)
    with cluster(bench.binary, PRIMARIES, keys) as running:
        run = partial(running.luamigrate, "run", CROSS_SLOT)
        verify = partial(running.luamigrate, "verify", CROSS_SLOT)
        contenders: dict[str, Callable[[], Measured]] = {
            "run: a client that compares": partial(client_restores, running, compares=True),
            "run: a client that does not": partial(client_restores, running, compares=False),
            "run: the same in one slot": partial(running.luamigrate, "run", ONE_SLOT),
        }
        bench.table.begin(f"a cluster of {PRIMARIES}, across slots", *COLUMNS)
        for name, contender in contenders.items():
            show(bench.table, name, *measure(running.client, bench.rounds, contender, run, running.clear))
        # All targets are there, in other slots and in their sources'.
        running.luamigrate("run", ONE_SLOT)
        one_slot = partial(running.luamigrate, "verify", ONE_SLOT)
        show(bench.table, "verify: the same in one slot", *measure(running.client, bench.rounds, one_slot, verify))
        show_record(running)


def show_record(running: Cluster) -> None:
    """Show how long scripts blocked the nodes in a run across slots, and what each took for a key."""
    running.clear()
    work = partial(running.luamigrate, "run", CROSS_SLOT)
    _, record = recorded(running.client, 10_000 + running.keys // 10, work)
    each = {**record.seconds_of, "SCAN": record.scans.seconds}
    costs = ", ".join(f"{name} {seconds / running.keys * 1e6:.1f}" for name, seconds in each.items())
    p99, longest = record.scripts.percentile(99), record.scripts.longest
    print(f"µs of the nodes for a key, by script: {costs}; scripts p99 {p99:.2f} ms, longest {longest:.2f} ms")
