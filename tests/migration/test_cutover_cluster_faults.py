"""What speaks against a cut-over of a cluster, and what happens to its slots and nodes meanwhile."""

from __future__ import annotations

import time
from typing import Any

import pytest

from luamigrate import Side, Wish
from luamigrate.migration import cutover, readiness
from luamigrate.migration.flipping import Flipper
from luamigrate.migration.witness import MOVED
from luamigrate.model.following import Rescan
from tests.clusters import ClusterInstance, slot_of, wait_until
from tests.cutting import FLAG, CuttingOver
from tests.following import assert_in_step
from tests.migration.test_follow_cluster import fill
from tests.slots import Move, fail_over, hand_over, move

pytestmark = pytest.mark.cluster


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have attempts give up soon."""
    monkeypatch.setattr(readiness, "SECONDS_TO_GET_READY", 0.5)
    monkeypatch.setattr(cutover, "SECONDS_BETWEEN_ATTEMPTS", 0.05)


class TestWhatSpeaksAgainstIt:
    """What is said, and that nothing is flipped."""

    @pytest.mark.usefixtures("_impatient")
    def test_a_slot_that_is_being_moved(self, movable: ClusterInstance) -> None:
        """It is waited for; once the slot has come to rest, it succeeds."""
        fill(movable)
        with CuttingOver(movable.url) as following:
            following.wait_until_in_step()
            slot = slot_of("job:1")
            target = next(node for node in movable.primaries() if node is not movable.owner(slot))
            step = Move.begin(movable, slot, target)
            assert "slots" in following.ask(Wish.CUTOVER)
            assert movable.client.get(FLAG) is None
            step.finish()
            following.wait_until_in_step()
            following.cut_over()
            movable.client.hset("step:1", "a", "new")
            wait_until(lambda: movable.client.hget("job:1", "a") == b"new")
        assert following.error is None

    def test_a_slot_that_is_moved_while_writes_are_held(
        self, movable: ClusterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The flip is not made: the slot may be where nobody holds writes."""
        fill(movable)
        drained, once = Flipper._drained, iter((True,))

        def hand_on(flipper: Flipper, *arguments: Any) -> bytes:
            mark = drained(flipper, *arguments)
            if next(once, False):
                slot = slot_of("unused")
                move(movable, slot, next(node for node in movable.primaries() if not node.has(slot)))
            return mark

        monkeypatch.setattr(Flipper, "_drained", hand_on)
        with CuttingOver(movable.url, freeze_ms=10_000) as following:
            following.wait_until_in_step()
            following.cut_over()
            assert following.now.attempts == 2, following.now.steps
            assert MOVED in following.now.steps[0]
        assert following.error is None

    @pytest.mark.usefixtures("_impatient")
    def test_one_node_that_somebody_else_holds(self, cluster: ClusterInstance) -> None:
        """It is noticed, and no node is held for that."""
        fill(cluster)
        node = cluster.primaries()[-1]
        with CuttingOver(cluster.url) as following:
            following.wait_until_in_step()
            node.client.execute_command("CLIENT", "PAUSE", 3000, "WRITE")
            assert "CLIENT PAUSE" in following.ask(Wish.CUTOVER)
            assert cluster.client.get(FLAG) is None
            following.wait_until_in_step()
            following.cut_over()
        assert following.summary.exit_code == 0

    @pytest.mark.usefixtures("_impatient")
    def test_a_freeze_that_ends_too_soon(self, cluster: ClusterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where we hang until the pauses have ended, nothing is flipped, and the next attempt succeeds."""
        fill(cluster)
        flip, delays = Flipper._flip, iter((0.5,))

        def late(flipper: Flipper, *arguments: Any, **options: Any) -> bool:
            time.sleep(next(delays, 0))
            return flip(flipper, *arguments, **options)

        monkeypatch.setattr(Flipper, "_flip", late)
        with CuttingOver(cluster.url, freeze_ms=400) as following:
            following.wait_until_in_step()
            following.cut_over()
            assert following.now.attempts == 2
            assert "late" in following.now.steps[0]
        assert following.summary.exit_code == 0

    def test_a_write_that_slips_in_at_another_node(
        self, cluster: ClusterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The script sees those of its own node only: it is told as a step, and what was written as a straggler's."""
        fill(cluster)
        flip, once = Flipper._flip, iter((True,))
        node = next(node for node in cluster.primaries() if not node.has(slot_of(FLAG)))
        name = node.own_name("job:slipped")

        def let_in(flipper: Flipper, *arguments: Any, **options: Any) -> bool:
            if next(once, False):
                node.client.execute_command("CLIENT", "UNPAUSE")
                node.client.hset(name, "a", "late")
            return flip(flipper, *arguments, **options)

        monkeypatch.setattr(Flipper, "_flip", let_in)
        with CuttingOver(cluster.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            assert any(f"{node.port} counts changes" in step for step in following.now.steps), following.now.steps
            following.wait_until(lambda now: now.stragglers == 1)
            assert cluster.client.hget(name, "a") == b"late"
        assert [key.source for key in following.keys] == [name.encode()]


@pytest.mark.timeout(120)
@pytest.mark.oldest_and_newest
def test_a_node_that_fails_while_writes_are_held(replicated: ClusterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is flipped; the follow goes on with the replica, and then it succeeds."""
    fill(replicated)
    drained, once = Flipper._drained, iter((True,))
    victim = next(node for node in replicated.primaries()[1:] if not node.has(slot_of(FLAG)))

    def kill_one(flipper: Flipper, *arguments: Any) -> bytes:
        if next(once, False):
            fail_over(replicated, victim)
        return drained(flipper, *arguments)

    monkeypatch.setattr(Flipper, "_drained", kill_one)
    with CuttingOver(replicated.url) as following:
        following.wait_until_in_step()
        for node in replicated.primaries():
            node.client.wait(1, 5000)
        following.begin(Wish.CUTOVER)
        following.wait_until(lambda now: now.side is Side.TARGETS)
        assert following.now.attempts == 2
        assert "nothing was flipped" in following.now.steps[0]
        following.wait_until_in_step()
        assert_in_step(replicated)
    assert following.error is None


@pytest.mark.timeout(120)
@pytest.mark.oldest_and_newest
def test_a_replica_that_takes_over_while_writes_are_held(
    replicated: ClusterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody holds writes there, so nothing is flipped."""
    fill(replicated)
    drained, once = Flipper._drained, iter((True,))
    victim = next(node for node in replicated.primaries()[1:] if not node.has(slot_of(FLAG)))

    def hand_on(flipper: Flipper, *arguments: Any) -> bytes:
        mark = drained(flipper, *arguments)
        if next(once, False):
            hand_over(replicated, victim)
        return mark

    monkeypatch.setattr(Flipper, "_drained", hand_on)
    with CuttingOver(replicated.url, freeze_ms=10_000) as following:
        following.wait_until_in_step()
        following.begin(Wish.CUTOVER)
        following.wait_until(lambda now: now.side is Side.TARGETS)
        assert following.now.attempts == 2
        assert MOVED in following.now.steps[0]
        following.wait_until_in_step()
        assert_in_step(replicated)
    assert following.error is None


@pytest.mark.timeout(120)
@pytest.mark.oldest_and_newest
def test_a_replica_that_takes_over_after_the_flip(replicated: ClusterInstance) -> None:
    """It is mirrored back on: no write of the new names is lost, none of the old ones is made."""
    fill(replicated)
    with CuttingOver(replicated.url) as following:
        following.wait_until_in_step()
        following.cut_over()
        for node in replicated.primaries():
            node.client.wait(1, 5000)
        hand_over(replicated, replicated.owner(slot_of("job:1")))
        following.wait_until(lambda now: now.rescans.get(Rescan.OTHER_SERVER, 0) > 0)
        following.wait_until_in_step()
        replicated.client.hset("step:1", "a", "after")
        following.wait_until_in_step()
        assert replicated.client.hget("job:1", "a") == b"after"
        assert_in_step(replicated)
        following.cut_over(Wish.BACK)
    assert following.error is None
    assert following.keys == []


@pytest.mark.oldest_and_newest
def test_slots_that_move_after_the_flip(movable: ClusterInstance) -> None:
    """What cannot be mirrored back meanwhile is later."""
    fill(movable)
    with CuttingOver(movable.url) as following:
        following.wait_until_in_step()
        following.cut_over()
        slot = slot_of("job:1")
        target = next(node for node in movable.primaries() if node is not movable.owner(slot))
        step = Move.begin(movable, slot, target)
        movable.client.delete("step:1")
        movable.client.hset("step:2", "a", "new")
        wait_until(lambda: movable.client.hget("job:2", "a") == b"new")
        wait_until(lambda: not movable.client.exists("job:1"))
        movable.client.hset("step:1", "a", "made while the slot was moved")
        time.sleep(0.2)
        step.finish()
        following.wait_until_in_step()
        assert movable.client.hget("job:1", "a") == b"made while the slot was moved"
        move(movable, slot_of("step:1"), target)
        movable.client.hset("step:1", "a", "moved")
        wait_until(lambda: movable.client.hget("job:1", "a") == b"moved")
        following.wait_until_in_step()
        assert_in_step(movable)
    assert following.error is None
    assert following.keys == []
