"""What goes wrong: each fault strikes, lasts, and is over when its function returns."""

from __future__ import annotations

import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis

from chaos.processes import Tool
from chaos.sites import USER, Clustered, Guarded, Site, Standalone, allow
from luamigrate.model.rules import RESERVED
from tests import slots
from tests.clusters import slot_of, surviving, wait_until
from tests.instances import Instance

DISK_SECONDS = 2.0
"""In which a server ends whose disk is full, if anything is written."""
OTHER_DATABASE = 3
"""The number of the database to which the writers of a follow move keys."""
LEASES = RESERVED + b"follow:*"
FLOOD = """
for number = 1, 1000 do
  redis.call('SET', 'job:' .. number .. ('x'):rep(1000), ARGV[1], 'PX', ARGV[2])
end
"""
FLOODS, FLOOD_MS = 60, 3000
"""Each is a megabyte to tell."""
MOST_KEPT = 36 << 20
"""Bytes: the limit of servers for subscribers, and what may come at once."""

Strike = Callable[[Any, random.Random, Tool], None]


@dataclass(frozen=True)
class Fault:
    """A fault, and what it may excuse."""

    name: str
    strike: Strike
    kills: bool = False
    """Whether luamigrate ends of it, between any two of its steps."""
    loses: bool = False
    """Whether what a server has acknowledged may be lost with it."""
    blocks: bool = False
    """Whether scripts may take longer, because a process stops in the middle of one."""
    empties: bool = False
    """Whether all keys of the plan's database are deleted."""
    in_follows: bool = True
    """Whether a follow has to get over it; the others end it, or make no sense there."""


def _lasting(chance: random.Random, most: float) -> None:
    time.sleep(chance.uniform(0.1, most))


def _signal(number: int) -> Strike:
    return lambda _site, _chance, tool: tool.send(number)


def _interrupt_twice(_site: Site, chance: random.Random, tool: Tool) -> None:
    tool.send(signal.SIGINT)
    _lasting(chance, 0.2)
    tool.send(signal.SIGINT)


def _hang(server: Instance, chance: random.Random, most: float) -> None:
    server.process.send_signal(signal.SIGSTOP)
    _lasting(chance, most)
    server.process.send_signal(signal.SIGCONT)


def _restart(site: Standalone, server: Instance, chance: random.Random) -> None:
    _lasting(chance, 0.6)
    site.start_again(server)
    wait_until(lambda: _is_up(server))


def _is_up(server: Instance) -> bool:
    with suppress(redis.RedisError):
        return bool(server.client.ping())
    return False


def _kill_server(site: Standalone, chance: random.Random, _tool: Tool) -> None:
    site.primary.kill()
    _restart(site, site.primary, chance)


def _stop_server(site: Standalone, chance: random.Random, _tool: Tool) -> None:
    site.primary.process.terminate()
    site.primary.process.wait()
    _restart(site, site.primary, chance)


def _kill_replica(site: Standalone, chance: random.Random, _tool: Tool) -> None:
    site.replica.kill()
    _restart(site, site.replica, chance)
    site.follow(site.replica)


def _hang_primary(site: Site, chance: random.Random, _tool: Tool) -> None:
    _hang(chance.choice(site.servers()), chance, 1.2)


def _promote(site: Standalone, chance: random.Random, _tool: Tool) -> None:
    # One that has not caught up yet would lose what an application has been acknowledged.
    wait_until(site.follows)
    site.promote()
    _lasting(chance, 0.3)


def _on_each(*command: str | int) -> Strike:
    def strike(site: Site, chance: random.Random, _tool: Tool) -> None:
        times, pause = chance.choice(((1, 0.0), (4, 0.1), (40, 0.02), (100, 0.005)))
        for _ in range(times):
            for server in site.servers():
                surviving(partial(server.client.execute_command, *command))
            time.sleep(pause)

    return strike


def _pause_clients(site: Site, chance: random.Random, _tool: Tool) -> None:
    server = chance.choice(site.servers())
    server.client.execute_command("CLIENT", "PAUSE", chance.randint(100, 800), chance.choice(("WRITE", "ALL")))


def _cut(where: str, share: float) -> Strike:
    def strike(site: Standalone, chance: random.Random, _tool: Tool) -> None:
        cuts: list[float] = getattr(site.link, where)
        times, pause = chance.choice(((1, 0.1), (4, 0.1), (20, 0.03)))
        for _ in range(times):
            cuts.append(share)
            time.sleep(pause)
        cuts.clear()

    return strike


def _slow_link(site: Standalone, chance: random.Random, _tool: Tool) -> None:
    site.link.delay = chance.uniform(0.002, 0.02)
    _lasting(chance, 1.0)
    site.link.delay = 0.0


def _too_little_memory(site: Site, chance: random.Random, _tool: Tool) -> None:
    server = chance.choice(site.servers())
    used: Any = server.client.info("memory")["used_memory"]
    server.client.config_set("maxmemory", max(1, int(used * chance.uniform(0.7, 1.02))))
    _lasting(chance, 0.8)
    server.client.config_set("maxmemory", 0)


def _less_permitted(site: Site, chance: random.Random, _tool: Tool) -> None:
    taken = chance.choice(("-evalsha", "-evalsha_ro", "-copy", "-dump", "-restore", "-scan", "-hgetall", "-watch"))
    server = chance.choice(site.servers())
    try:
        server.client.execute_command("ACL", "SETUSER", USER, taken)
    except redis.ResponseError:
        return  # this version has no such command
    _lasting(chance, 0.6)
    allow(server)


def _disk_full(site: Standalone, chance: random.Random, _tool: Tool) -> None:
    """Let no file of the server grow any more: it ends of that, in the middle of writing to its AOF."""
    most = max(file.stat().st_size for file in Path(site.path()).parent.rglob("*") if "aof" in file.name)
    limit = (most + chance.randint(0, 2000), resource.RLIM_INFINITY)
    resource.prlimit(site.primary.process.pid, resource.RLIMIT_FSIZE, limit)
    with suppress(AssertionError):
        wait_until(lambda: site.primary.process.poll() is not None, DISK_SECONDS)
    site.primary.kill()
    _restart(site, site.primary, chance)


def _second_run(_site: Site, _chance: random.Random, tool: Tool) -> None:
    tool.beside()


def _fail_over(site: Guarded, _chance: random.Random, _tool: Tool) -> None:
    site.fail_over()


def _kill_until_replaced(site: Guarded, _chance: random.Random, _tool: Tool) -> None:
    former = site.primary
    former.kill()
    site.await_other_than(former)
    site.start_again(former)


def _kill_node(site: Clustered, chance: random.Random, _tool: Tool) -> None:
    primary = chance.choice(site.cluster.primaries())
    slots.fail_over(site.cluster, primary)
    primary.start_again()
    allow(primary)
    site.cluster.wait_until_agreed()


def _kill_replica_node(site: Clustered, chance: random.Random, _tool: Tool) -> None:
    replica = site.cluster.replica_of(chance.choice(site.cluster.primaries()))
    replica.kill()
    _lasting(chance, 0.5)
    replica.start_again()
    allow(replica)
    site.cluster.wait_until_agreed()


def _hang_until_replaced(site: Clustered, chance: random.Random, _tool: Tool) -> None:
    primary = chance.choice(site.cluster.primaries())
    replica = site.cluster.replica_of(primary)
    primary.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: replica.is_primary)
    finally:
        primary.process.send_signal(signal.SIGCONT)
    site.cluster.wait_until_agreed()


def _hand_over(site: Clustered, chance: random.Random, _tool: Tool) -> None:
    slots.hand_over(site.cluster, chance.choice(site.cluster.primaries()))


def _take_over(site: Clustered, chance: random.Random, _tool: Tool) -> None:
    """Promote a replica without asking its primary, which may have what it has not."""
    primary = chance.choice(site.cluster.primaries())
    replica = site.cluster.replica_of(primary)
    replica.cluster("FAILOVER", "TAKEOVER")
    wait_until(lambda: replica.is_primary and not primary.is_primary)
    site.cluster.wait_until_agreed()


def _move_slots(site: Clustered, chance: random.Random, _tool: Tool) -> None:
    with slots.Mover(site.cluster, seed=chance.randrange(1000)):
        _lasting(chance, 1.2)


def _move_slots_at_once(site: Clustered, chance: random.Random, _tool: Tool) -> None:
    with slots.Mover(site.cluster, seed=chance.randrange(1000), at_once=True):
        _lasting(chance, 1.2)


def _half_move_a_slot(site: Clustered, chance: random.Random, _tool: Tool) -> None:
    source, target = chance.sample(site.cluster.primaries(), 2)
    key: Any = source.client.randomkey()
    if key is not None:
        move = slots.Move.begin(site.cluster, slot_of(key), target)
        surviving(partial(move.take, 1))
        _lasting(chance, 0.6)
        surviving(move.finish)
        site.cluster.wait_until_agreed()


def _empty_another(site: Site, _chance: random.Random, _tool: Tool) -> None:
    for server in site.servers():
        with server.another_client(db=OTHER_DATABASE) as client:
            client.flushdb()


def _hang_luamigrate(site: Site, chance: random.Random, tool: Tool) -> None:
    """Stop it while more is told than a server may keep for who does not read."""
    tool.send(signal.SIGSTOP)
    try:
        for server in site.servers():
            for number in range(FLOODS):
                server.client.eval(FLOOD, 0, number, FLOOD_MS)
                kept = sum(int(client["omem"]) for client in server.client.client_list(_type="pubsub"))
                if kept > MOST_KEPT:
                    tool.complaints.append(f"{kept:,} bytes are kept for a listener that does not read")
                    return
        _lasting(chance, 2.0)
    finally:
        tool.send(signal.SIGCONT)


def _beside(*command: str) -> Strike:
    """Have the same command once more, or another one with the same rules, refused beside it."""

    def strike(site: Site, _chance: random.Random, tool: Tool) -> None:
        # Before it has its lease, nobody is refused.
        wait_until(lambda: not tool.is_under_way or any(holds_lease(server) for server in site.servers()))
        other = tool.beside(*command)
        wait_until(lambda: not other.is_under_way)

    return strike


def holds_lease(server: Instance) -> bool:
    """Tell whether a follow holds a lease there."""
    with suppress(redis.RedisError):
        return any(server.client.scan_iter(LEASES, count=1000))
    return False


ANYWHERE = (
    Fault("kill -9 of luamigrate", _signal(signal.SIGKILL), kills=True),
    Fault("Ctrl-C", _signal(signal.SIGINT), in_follows=False),
    Fault("Ctrl-C twice", _interrupt_twice, kills=True, in_follows=False),
    Fault("SIGHUP", _signal(signal.SIGHUP), in_follows=False),
    Fault("closed output", lambda _site, _chance, tool: tool.close_output(), in_follows=False),
    Fault("two runs at once", _second_run, in_follows=False),
    Fault("SIGSTOP of a server", _hang_primary, blocks=True),
    Fault("SCRIPT FLUSH", _on_each("SCRIPT", "FLUSH")),
    Fault("CLIENT PAUSE", _pause_clients, blocks=True),
    Fault("CLIENT KILL", _on_each("CLIENT", "KILL", "TYPE", "normal")),
    Fault("maxmemory lowered", _too_little_memory),
    Fault("permissions taken away", _less_permitted, in_follows=False),
)
ON_ONE_SERVER = (
    Fault("kill -9 of the server", _kill_server, blocks=True),
    Fault("restart of the server", _stop_server, blocks=True),
    Fault("kill -9 of a replica", _kill_replica),
    Fault("promotion by REPLICAOF", _promote, loses=True),
    Fault("cut before the request", _cut("cut_requests", 0.0)),
    Fault("cut in the request", _cut("cut_requests", 0.5)),
    Fault("cut before the reply", _cut("cut_replies", 0.0)),
    Fault("cut in the reply", _cut("cut_replies", 0.5)),
    Fault("slow link", _slow_link),
    Fault("disk full for the AOF", _disk_full, blocks=True),
)
UNDER_A_SENTINEL = (
    Fault("SENTINEL FAILOVER", _fail_over, loses=True),
    Fault("kill -9 until the Sentinel acts", _kill_until_replaced, loses=True, blocks=True),
)
ON_A_CLUSTER = (
    Fault("kill -9 of a primary", _kill_node, loses=True),
    Fault("kill -9 of a replica", _kill_replica_node),
    Fault("SIGSTOP until replaced", _hang_until_replaced, loses=True, blocks=True),
    Fault("CLUSTER FAILOVER", _hand_over),
    Fault("CLUSTER FAILOVER TAKEOVER", _take_over, loses=True),
    Fault("slots moved", _move_slots),
    Fault("slot half moved", _half_move_a_slot),
)

ON_A_CLUSTER_OF_VALKEY = (Fault("slots moved as a whole", _move_slots_at_once),)

IN_A_FOLLOW = (
    Fault("CLIENT KILL of the listener", _on_each("CLIENT", "KILL", "TYPE", "pubsub")),
    Fault("FLUSHALL", _on_each("FLUSHALL"), empties=True),
    Fault("FLUSHDB", _on_each("FLUSHDB"), empties=True),
    Fault("FLUSHDB of another database", _empty_another),
    Fault("SIGSTOP of luamigrate", _hang_luamigrate),
    Fault("two follows at once", _beside()),
    Fault("run beside", _beside("run")),
    Fault("fill beside", _beside("run", "--on-existing", "fill")),
    Fault("rollback beside", _beside("rollback", "--yes")),
)


def possible(site: Site) -> tuple[Fault, ...]:
    """Return the faults that can strike there."""
    if isinstance(site, Guarded):
        return (*ANYWHERE, *UNDER_A_SENTINEL)
    if isinstance(site, Standalone):
        return (*ANYWHERE, *ON_ONE_SERVER)
    return (*ANYWHERE, *ON_A_CLUSTER, *(ON_A_CLUSTER_OF_VALKEY if site.name.startswith("valkey") else ()))


def possible_in_a_follow(site: Site) -> tuple[Fault, ...]:
    """Return the faults that a follow has to get over there."""
    return (*IN_A_FOLLOW, *(fault for fault in possible(site) if fault.in_follows))
