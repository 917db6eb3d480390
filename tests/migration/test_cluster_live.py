"""A cluster in which something happens while it copies: slots move, nodes are killed, hang or refuse."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from luamigrate import Limits, Operator, Summary, connect, migrate, plan
from tests import clusters
from tests.clusters import QUICK_MS, ClusterInstance, Node, slot_of
from tests.conftest import ON_A_CLUSTER, luamigrate
from tests.instances import snapshot
from tests.judge import DualWriter, assert_alike, assert_migrated
from tests.migration.test_cluster import EACH
from tests.migration.test_types import KINDS, write
from tests.slots import Move, Mover, fail_over, hand_over

pytestmark = pytest.mark.cluster

RULES = plan([("job:*", "step:*", "any")])
KEYS_A_SECOND = 500
"""So that it is still under way when what happens meanwhile has happened."""
SHORT_STOP, LONG_STOP = 2.0, 3.0
"""Seconds: nobody misses the node; where nodes are missed soon, the others refuse everything meanwhile."""


def write_to_be_changed(cluster: ClusterInstance, jobs: int) -> None:
    """Write so many hashes, sets and strings that an application may change."""
    pipeline = cluster.client.pipeline()
    for number in range(jobs):
        pipeline.hset(f"job:hash:{number}", mapping={"id": number, "text": "x" * (number % 90)})
        pipeline.sadd(f"job:set:{number}", "member", number)
        pipeline.set(f"job:string:{number}", number)
    pipeline.execute()
    wait_until_replicated(cluster)


def wait_until_replicated(cluster: ClusterInstance) -> None:
    """Wait until what has been written is on the replicas, if there are any."""
    for node in cluster.primaries():
        node.client.wait(len(cluster.nodes) // clusters.PRIMARIES - 1, 0)


def carried_out(
    cluster: ClusterInstance, trouble: Callable[[int], object], **options: Any
) -> tuple[Summary, list[str]]:
    """Run, causing trouble after each batch, by the number of keys counted; return what came of it and was told."""
    summary, told = Summary(RULES), list[str]()
    limits = Limits(batch_size=20, max_rate=KEYS_A_SECOND)
    options = {"settle": 0.1, "limits": limits, "operator": Operator(tell=told.append), **options}
    with connect(cluster.url) as connection:
        for batch in migrate(connection, RULES, **options):
            summary.add(batch)
            trouble(summary.totals.found)
    return summary, told


def once(act: Callable[[], object], at: int = 100) -> Callable[[int], None]:
    """Act when so many keys have been counted."""
    acted: list[int] = []

    def trouble(found: int) -> None:
        if found >= at and not acted:
            acted.append(found)
            act()

    return trouble


def assert_all_copied(summary: Summary, keys: int) -> None:
    """Each key was counted as one that now has an equal target; those that were looked at again, more than once."""
    words = summary.totals.counts
    assert words.keys() <= {"copied", "same"}, words
    assert words.total() >= keys


def assert_filled(cluster: ClusterInstance, summary: Summary, application: DualWriter) -> None:
    """Nothing failed, and once nobody writes any more, the same command completes what was half-written."""
    # Some differ that were caught between two writes, the second of which waits for a node.
    assert summary.totals.counts.keys() <= {"copied", "same", "filled", "partial", "differs"}, summary.totals.counts
    assert luamigrate("run", *EACH, "--on-existing", "fill", url=cluster.url).code == 0
    assert_migrated(cluster, application.expected)


def stop_for(node: Node, seconds: float) -> None:
    """Have a node do nothing for some seconds, which are not waited for."""
    node.process.send_signal(signal.SIGSTOP)
    threading.Timer(seconds, node.process.send_signal, [signal.SIGCONT]).start()


@pytest.mark.parametrize("at_once", [False, True], ids=["key-by-key", "at-once"])
def test_slots_that_move_cost_no_key_and_no_write_of_the_application(movable: ClusterInstance, at_once: bool) -> None:
    """All through a run, a verify and a rollback, while an application writes to both names."""
    if at_once and movable.version < (9, 0):
        pytest.skip("this server does not move slots by itself")
    write_to_be_changed(movable, 400)
    before = snapshot(movable.client)
    with Mover(movable, at_once=at_once) as mover:
        with DualWriter(movable, before) as application:
            summary, _ = carried_out(movable, lambda _: None)
        moved = mover.moves
        verified = luamigrate("verify", *EACH, url=movable.url)
    assert moved > 3
    assert_all_copied(summary, len(before))
    assert (verified.code, verified.totals.keys()) == (0, {"found", "same", "ignored"})
    assert verified.totals["found"] >= len(before)
    assert_migrated(movable, application.expected)
    with Mover(movable, seed=8, at_once=at_once):
        result = luamigrate("rollback", "--yes", *EACH, url=movable.url)
    assert (result.code, result.totals["removed"]) == (0, len(before))
    assert_alike(snapshot(movable.client), application.expected)


def test_a_fill_beside_a_writer_and_slots_that_move_ends_with_everything_the_same(movable: ClusterInstance) -> None:
    """Half-written targets are completed, and nothing that was deleted is back."""
    write_to_be_changed(movable, 100)
    before = snapshot(movable.client)
    with Mover(movable), DualWriter(movable, before, creates=True, deletes=True) as application:
        for _ in range(2):
            summary, _ = carried_out(movable, lambda _: None, on_existing="fill")
    assert_filled(movable, summary, application)


@pytest.fixture
def half_moved(movable: ClusterInstance) -> list[Move]:
    """Write jobs, and leave the slots of some sources and targets half-way to another node."""
    for number in range(60):
        write(movable.client, KINDS[number % len(KINDS)], f"job:{{{number % 4}}}:{number}", 3)
        write(movable.client, KINDS[number % len(KINDS)], f"job:{number}", 3)
    moves = []
    for name in ("job:1", "step:1", "{0}", "{1}"):
        slot = slot_of(name)
        target = next(node for node in movable.primaries() if not node.has(slot))
        moves.append(Move.begin(movable, slot, target))
        moves[-1].take(7)
    return moves


def test_slots_that_stay_half_moved_for_a_while_are_waited_for(
    movable: ClusterInstance, half_moved: list[Move]
) -> None:
    """Keys are found on either side and copied, at the latest when the slot has arrived."""
    before = snapshot(movable.client)
    timer = threading.Timer(1.0, lambda: list(map(Move.finish, half_moved)))
    timer.start()
    result = luamigrate("run", *EACH, url=movable.url)
    timer.join()
    assert (result.code, result.totals["copied"]) == (0, 120)
    assert_migrated(movable, before)


def test_slots_that_stay_half_moved_for_good_lose_nothing(movable: ClusterInstance, half_moved: list[Move]) -> None:
    """What cannot be done meanwhile is said; the same command finishes when the slots have arrived."""
    before = snapshot(movable.client)
    result = luamigrate("run", *EACH, "--patience", "1", url=movable.url)
    if result.code == 0:
        assert result.totals["copied"] == 120
    else:
        assert result.code in (1, 4)
        assert result.document["error"] or result.totals["failed"]
    for each in half_moved:
        each.finish()
    again = luamigrate("run", *EACH, url=movable.url)
    assert (again.code, again.totals["found"]) == (0, 120)
    assert_migrated(movable, before)


def test_a_primary_that_is_killed_is_followed_to_its_replica(replicated: ClusterInstance) -> None:
    """While an application writes to both names: nothing that was copied or acknowledged is lost."""
    write_to_be_changed(replicated, 300)
    before = snapshot(replicated.client)
    victim = replicated.primaries()[1]
    with DualWriter(replicated, before, creates=True, replicated=True) as application:
        summary, told = carried_out(replicated, once(victim.kill), on_existing="fill")
    assert not victim.is_primary
    assert any(line.startswith("waiting for the ") for line in told)
    assert_filled(replicated, summary, application)


def test_a_primary_that_hands_over_to_its_replica_is_followed(replicated: ClusterInstance) -> None:
    """As for an upgrade, one after the other, while an application writes."""
    write_to_be_changed(replicated, 300)
    before = snapshot(replicated.client)
    primaries = replicated.primaries()
    upgrade = threading.Thread(target=lambda: list(map(partial(hand_over, replicated), primaries)))
    with DualWriter(replicated, before, creates=True) as application:
        summary, _ = carried_out(replicated, once(upgrade.start), on_existing="fill")
        upgrade.join()
    assert not any(node.is_primary for node in primaries)
    assert_filled(replicated, summary, application)


def test_a_primary_that_was_killed_before_is_no_hindrance(replicated: ClusterInstance) -> None:
    """The cluster still tells of it; the URL's own node may be it, as long as another one is asked."""
    write_to_be_changed(replicated, 50)
    before = snapshot(replicated.client)
    fail_over(replicated, replicated.primaries()[2])
    assert luamigrate("run", *EACH, url=replicated.url).totals["copied"] == len(before)
    assert_migrated(replicated, before)


def test_a_node_that_hangs_for_a_while_is_waited_for(cluster: ClusterInstance) -> None:
    """Nobody has missed it, and it is the same process."""
    write_to_be_changed(cluster, 200)
    before = snapshot(cluster.client)
    summary, told = carried_out(cluster, once(partial(stop_for, cluster.primaries()[0], SHORT_STOP)))
    assert_all_copied(summary, len(before))
    assert any("no answer for" in line for line in told)
    assert not summary.warnings
    assert_migrated(cluster, before)


def test_a_cluster_that_is_down_for_a_while_is_waited_for(server_name: str) -> None:
    """A node is missed that has no replica: the others refuse everything until it is back."""
    with clusters.start(server_name.removeprefix(ON_A_CLUSTER), node_timeout=QUICK_MS) as cluster:
        write_to_be_changed(cluster, 200)
        before = snapshot(cluster.client)
        summary, told = carried_out(cluster, once(partial(stop_for, cluster.primaries()[0], LONG_STOP)))
        assert_all_copied(summary, len(before))
        assert told
        assert_migrated(cluster, before)


def test_a_node_that_takes_no_writes_for_a_while_costs_no_key(cluster: ClusterInstance) -> None:
    """Whichever it is, and only it: the run waits, says so, and goes on."""
    write_to_be_changed(cluster, 200)
    before = snapshot(cluster.client)
    (node, *_) = cluster.primaries()
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        node.client.config_set("min-replicas-to-write", 0)

    refuse = once(partial(node.client.config_set, "min-replicas-to-write", 1))
    try:
        summary, _ = carried_out(cluster, refuse, operator=Operator(tell=tell))
    finally:
        node.client.config_set("min-replicas-to-write", 0)
    assert_all_copied(summary, len(before))
    assert any("NOREPLICAS" in line for line in told)
    assert_migrated(cluster, before)
