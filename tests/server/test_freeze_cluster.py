"""The freeze of a cluster: all primaries hold writes until one moment, or none does."""

from __future__ import annotations

from contextlib import suppress

import pytest
import redis

from luamigrate import Error, connect
from luamigrate.scripts.cutover_calls import FlipReply, flip
from luamigrate.server.changes import read_changes
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.freeze import Freeze, Held
from tests.clusters import ClusterInstance, Node, wait_until
from tests.freezing import LONG_MS
from tests.slots import hand_over

pytestmark = pytest.mark.cluster

HARMLESS = ("EVAL", "return 1", 0)
"""No key, so that each node takes it."""
FLAG, RECORD = b"flag", b"luamigrate:cutover:x:{flag}"


def freeze_of(deployment: Deployment, most_ms: int = LONG_MS) -> Freeze:
    """Prepare a freeze of all nodes, with the clock of the one that has the flag."""
    freeze = Freeze(deployment.primaries, deployment.node_for(FLAG), most_ms, HARMLESS)
    freeze.prepare()
    return freeze


def waits(node: Node) -> bool:
    """Tell whether another client's write waits at a node."""
    with node.another_client(socket_timeout=0.3) as client:
        try:
            client.set(node.own_name("elsewhere"), 1)
        except redis.TimeoutError:
            return True
    return False


def flipped(home: Connection, freeze: Freeze) -> FlipReply:
    """Flip the flag as a cut-over does."""
    changes = read_changes(home)
    return flip(home, FLAG, RECORD, value=b"step:", former=None, deadline=freeze.deadline, changes=changes)


def test_all_primaries_hold_writes(cluster: ClusterInstance) -> None:
    """Ours go through on each of them, and the flag is flipped on its own."""
    with connect(cluster.url) as deployment:
        freeze = freeze_of(deployment)
        freeze.begin()
        try:
            assert all(map(waits, cluster.primaries()))
            for node in cluster.primaries():
                name = node.own_name("ours").encode()
                assert deployment.node_for(name).call("SET", name, 1).answer() == b"OK"
            assert all(map(waits, cluster.primaries()))
            assert flipped(deployment.node_for(FLAG), freeze) is FlipReply.FLIPPED
            freeze.confirm()
        finally:
            freeze.end()
    for node in cluster.primaries():
        assert_writes_go_on_at(node)
    assert cluster.client.get(FLAG) == b"step:"


def assert_writes_go_on_at(node: Node) -> None:
    """See that another client's write is answered there."""
    with node.another_client(socket_timeout=10) as client:
        client.set(node.own_name("elsewhere"), 1)


def test_where_one_is_held_by_somebody_none_is(cluster: ClusterInstance) -> None:
    """The others go on at once, and the one is left as it is."""
    *others, held = cluster.primaries()
    held.client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
    try:
        with connect(cluster.url) as deployment, pytest.raises(Held, match=str(held.port)):
            freeze_of(deployment).begin()
        for node in others:
            assert_writes_go_on_at(node)
        assert waits(held)
    finally:
        held.client.execute_command("CLIENT", "UNPAUSE")


def test_all_end_by_themselves_and_nothing_is_flipped_then(cluster: ClusterInstance) -> None:
    """However late the flip comes."""
    with connect(cluster.url) as deployment:
        freeze = freeze_of(deployment, 100)
        freeze.begin()
        wait_until(lambda: freeze.is_over)
        for node in cluster.primaries():
            assert_writes_go_on_at(node)
        assert flipped(deployment.node_for(FLAG), freeze) is FlipReply.LATE
        assert freeze.end() == 100
    assert not cluster.client.exists(FLAG)


@pytest.mark.timeout(120)
def test_a_primary_that_hands_over_meanwhile_flips_nothing(replicated: ClusterInstance) -> None:
    """The flag's node has become a replica: what is sent to it is refused, and the freeze ends."""
    with connect(replicated.url) as deployment:
        freeze = freeze_of(deployment)
        freeze.begin()
        home = deployment.node_for(FLAG)
        node = next(each for each in replicated.primaries() if home.place.endswith(f":{each.port}"))
        with suppress(AssertionError):
            hand_over(replicated, node)
        try:
            with pytest.raises(Error):
                flipped(home, freeze)
        finally:
            freeze.end()
    replicated.wait_until_agreed()
    assert not replicated.client.exists(FLAG)
