"""Following a cluster: each node tells of its own keys, and source and target are mostly on two of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest
import redis

from luamigrate import Limits
from luamigrate.model.following import Rescan
from tests import clusters
from tests.clusters import ClusterInstance, wait_until
from tests.following import Following, Writer, assert_in_step
from tests.slots import Mover, fail_over, move

pytestmark = pytest.mark.cluster

SECONDS_BETWEEN = 0.3


def fill(cluster: ClusterInstance, count: int = 60) -> None:
    """Write sources."""
    for number in range(count):
        cluster.client.hset(f"job:{number}", mapping={"a": number, "b": "x"})


def survive(
    cluster: ClusterInstance, following: Following, faults: Sequence[Callable[[], object]], *, seed: int
) -> None:
    """Have writers write while one thing happens after the other; then all is in step."""
    following.wait_until_in_step()
    with Writer(cluster, seed), Writer(cluster, seed + 1):
        for fault in faults:
            time.sleep(SECONDS_BETWEEN)
            fault()
    with suppress(AssertionError):
        assert_in_step(cluster)  # once nothing is about to expire
    following.wait_until_in_step()
    assert_in_step(cluster)
    assert following.error is None
    assert following.keys == []


def kill_connections(cluster: ClusterInstance) -> None:
    """End all connections of all nodes but those of nodes, and our own."""
    for node in cluster.primaries():
        for kind in ("pubsub", "normal"):
            node.client.client_kill_filter(_type=kind, skipme=True)


def test_it_converges_beside_writers_and_lost_connections(cluster: ClusterInstance) -> None:
    """Scripts are forgotten, and one node is emptied, too."""
    fill(cluster)

    def empty_one() -> None:
        cluster.primaries()[0].client.flushall()

    with Following(cluster.url) as following:
        survive(cluster, following, (lambda: kill_connections(cluster), cluster.client.script_flush, empty_one), seed=3)
        assert following.now.copies > 0
    assert set(following.now.rescans) >= {Rescan.EMPTIED, Rescan.LOST}
    assert following.summary.exit_code == 0


@pytest.mark.parametrize("at_once", [False, True], ids=["key-by-key", "at-once"])
def test_slots_that_move_cost_no_write(movable: ClusterInstance, at_once: bool) -> None:
    """Keys, and their targets, are moved to and fro while everybody writes."""
    if at_once and movable.version < (9, 0):
        pytest.skip("this server does not move slots by itself")
    fill(movable, 200)
    with Following(movable.url) as following:
        following.wait_until_in_step()
        with Mover(movable, at_once=at_once) as mover:
            survive_moves(movable, following)
        assert mover.moves > 3
        following.wait_until_in_step()
        assert_in_step(movable)
    assert following.now.rescans[Rescan.MOVED] > 0
    assert following.keys == []


def survive_moves(cluster: ClusterInstance, following: Following) -> None:
    """Write for a while."""
    with Writer(cluster, 5), Writer(cluster, 6):
        time.sleep(2)
    assert following.is_alive(), following.error


def test_a_node_that_joins_is_heard(movable: ClusterInstance) -> None:
    """What is written on it before it is heard is found by scanning."""
    fill(movable)
    with clusters.added(movable, movable.nodes[0].name) as node:
        with Following(movable.url) as following:
            following.wait_until_in_step()
            slot = clusters.slot_of("job:1")
            move(movable, slot, node)
            movable.client.hset("job:1", "a", "on the new node")
            following.wait_until(lambda now: now.rescans.get(Rescan.MOVED, 0) > 0)
            following.wait_until_in_step()
            assert movable.client.hget("step:1", "a") == b"on the new node"
            movable.client.hset("job:1", "a", "again")
            wait_until(lambda: movable.client.hget("step:1", "a") == b"again")
        assert following.keys == []


def test_a_replica_that_takes_over_is_followed(replicated: ClusterInstance) -> None:
    """It registers there, and looks at everything again."""
    fill(replicated)
    with Following(replicated.url, limits=Limits(patience=30)) as following:
        following.wait_until_in_step()
        for node in replicated.primaries():
            node.client.wait(1, 5000)
        fail_over(replicated, replicated.primaries()[1])
        following.wait_until(lambda now: now.rescans.get(Rescan.OTHER_SERVER, 0) > 0)
        with suppress(redis.RedisError):
            replicated.client.hset("job:1", "a", "after")
        following.wait_until_in_step()
        assert_in_step(replicated)
    assert following.error is None
    assert following.keys == []
