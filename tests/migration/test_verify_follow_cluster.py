"""`verify --follow` on clusters: source and target are mostly on two nodes, each of which tells of its own keys."""

from __future__ import annotations

import time

import pytest

from luamigrate import Limits, Word
from luamigrate.model.following import Rescan
from tests import clusters
from tests.clusters import ClusterInstance
from tests.slots import Mover, fail_over, move
from tests.verifying import SETTLE, Application, Verifying

pytestmark = pytest.mark.cluster


def fill(cluster: ClusterInstance, count: int = 60) -> None:
    """Write equal pairs."""
    for number in range(count):
        for side in ("job", "step"):
            cluster.client.hset(f"{side}:{number}", mapping={"a": number, "b": "x"})


@pytest.mark.parametrize("at_once", [False, True], ids=["key-by-key", "at-once"])
def test_slots_that_move_hide_no_drift_and_make_none_up(movable: ClusterInstance, *, at_once: bool) -> None:
    """While an application writes to both names."""
    if at_once and movable.version < (9, 0):
        pytest.skip("this server does not move slots by itself")
    fill(movable, 200)
    with Verifying(movable.url, extra=True) as verifying:
        verifying.wait_until_complete()
        with Mover(movable, at_once=at_once) as mover, Application(movable, gap=SETTLE / 20):
            time.sleep(2)
            movable.client.hset("job:100", "a", "other")
            verifying.wait_for(Word.DIFFERS, "job:100")
        assert mover.moves > 3
        movable.client.hset("step:100", "a", "other")
        verifying.wait_for(None, "job:100")
        verifying.wait_until_complete()
    assert {source for source, *_ in verifying.told} == {"job:100"}
    assert verifying.now.rescans[Rescan.MOVED] > 0
    assert verifying.summary.exit_code == 0


def test_a_node_that_joins_is_listened_to(movable: ClusterInstance) -> None:
    """What was written there before is found by comparing everything again."""
    fill(movable)
    with clusters.added(movable, movable.nodes[0].name) as node, Verifying(movable.url) as verifying:
        verifying.wait_until_complete()
        move(movable, clusters.slot_of("job:1"), node)
        movable.client.hset("job:1", "a", "on the new node")
        verifying.wait_for(Word.DIFFERS, "job:1")
        verifying.wait_until(lambda now: Rescan.MOVED in now.rescans and now.is_complete)
        movable.client.hset("job:1", "a", "1")
        verifying.wait_for(None, "job:1")


def test_a_replica_that_takes_over_is_listened_to(replicated: ClusterInstance) -> None:
    """It compares everything again there."""
    fill(replicated)
    with Verifying(replicated.url, limits=Limits(patience=30)) as verifying:
        verifying.wait_until_complete()
        for node in replicated.primaries():
            node.client.wait(1, 5000)
        fail_over(replicated, replicated.primaries()[1])
        verifying.wait_until(lambda now: bool(now.rescans) and now.is_complete)
        clusters.surviving(lambda: replicated.client.hset("job:1", "a", "after"))
        verifying.wait_for(Word.DIFFERS, "job:1")
    assert verifying.error is None
