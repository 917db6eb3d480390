"""Cutting over a cluster, and going back: all nodes hold writes together, and old names are written under WATCH."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import chain
from typing import Any

import pytest

from luamigrate import Limits, Side, Wish, Word
from luamigrate.migration.guarded_cross_slot import GuardedCrossSlotMirror
from luamigrate.model.following import Phase, Rescan
from tests.clusters import ClusterInstance, slot_of, wait_until
from tests.cutting import (
    FLAG,
    NEW,
    CountingWriter,
    CuttingOver,
    assert_all_kinds_of_changes_are_mirrored_back,
    assert_nothing_lost,
)
from tests.migration.test_follow_cluster import fill

pytestmark = pytest.mark.cluster


def keys(cluster: ClusterInstance, pattern: str) -> list[bytes]:
    """Return the names that are like a pattern, on all nodes."""
    return [*chain.from_iterable(node.client.execute_command("KEYS", pattern) for node in cluster.primaries())]


@pytest.mark.parametrize("flag", [FLAG, b"names:{job}"], ids=["plain", "with-tag"])
def test_there_and_back_beside_an_application_that_counts(cluster: ClusterInstance, flag: bytes) -> None:
    """Nothing is lost and nothing doubled; the flag has what it is to have, and record and index come and go."""
    writers = [CountingWriter(cluster, seed, flag) for seed in range(4)]
    with CuttingOver(cluster.url, flag=flag) as following, ExitStack() as stack:
        following.wait_until_in_step()
        for writer in writers:
            stack.enter_context(writer)
        wait_until(lambda: all(writer.written[b"job:"] > 50 for writer in writers))
        following.cut_over()
        assert cluster.client.get(flag) == NEW
        assert (following.now.side, following.now.phase) == (Side.TARGETS, Phase.MIRRORING_BACK)
        assert following.now.freeze_ms
        assert {slot_of(name) for name in keys(cluster, "luamigrate:cutover:*")} == {slot_of(flag)}
        wait_until(lambda: all(writer.written[b"step:"] > 50 for writer in writers))
        following.cut_over(Wish.BACK)
        assert cluster.client.get(flag) is None
        assert not keys(cluster, "luamigrate:cutover*")
        before = [writer.written[b"job:"] for writer in writers]
        wait_until(lambda: all(writer.written[b"job:"] > old for writer, old in zip(writers, before, strict=True)))
        following.cut_over()
        wait_until(lambda: sum(writer.written[b"step:"] for writer in writers) > 500)
        stack.close()
        following.wait_until_in_step()
        assert_nothing_lost(cluster.client, writers, b"step:")
        assert_nothing_lost(cluster.client, writers, b"job:")
        assert not following.now.rescans, "a connection of our own was closed with the others"
        assert not following.ask(Wish.FINISH)
        following.join(20)
    assert following.now.phase is Phase.FINISHED
    assert following.summary.exit_code == 0, following.keys
    assert cluster.client.get(flag) == NEW
    assert not keys(cluster, "luamigrate:cutover*")


def test_all_kinds_of_changes_are_mirrored_back(cluster: ClusterInstance) -> None:
    """Types, expiries, deletions and new names, to the millisecond."""
    fill(cluster)
    client = cluster.client
    client.rpush("job:list", 1, 2, 3)
    client.set("job:string", "a", px=10_000_000)
    client.sadd("job:set", "a")
    assert_all_kinds_of_changes_are_mirrored_back(cluster)


class TestStragglers:
    """Whoever writes an old name after the flip."""

    def test_a_write_is_named_and_kept(self, cluster: ClusterInstance) -> None:
        """It is not overwritten, though the new name changes; it keeps out of step until somebody decides."""
        fill(cluster)
        client = cluster.client
        with CuttingOver(cluster.url, attempts=1) as following:
            following.wait_until_in_step()
            following.cut_over()
            client.hset("job:1", "a", "late")
            client.hset("job:late", "a", 1)
            client.delete("job:2")
            following.wait_until(lambda now: now.stragglers == 3)
            client.hset("step:1", "a", "new")
            client.hset("step:3", "a", "new")
            wait_until(lambda: client.hget("job:3", "a") == b"new")
            assert client.hget("job:1", "a") == b"late"
            assert client.hget("job:late", "a") == b"1"
            assert client.exists("job:2")
            assert not following.now.in_step
            client.delete("job:1", "job:late")
            following.wait_until_in_step()
            assert client.hget("job:1", "a") == b"new"
        names = [b"job:1", b"job:2", b"job:late"]
        assert sorted((key.source, key.word) for key in following.keys) == [(name, Word.STRAGGLER) for name in names]
        assert following.summary.exit_code == 3

    @pytest.mark.parametrize("step", ["_ask", "_step"], ids=["before-reading", "before-exec"])
    def test_a_write_between_the_last_look_and_ours(
        self, cluster: ClusterInstance, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        """What comes after WATCH, and before EXEC, is not overwritten; others at that node are mirrored."""
        fill(cluster)
        client = cluster.client
        original = getattr(GuardedCrossSlotMirror, step)
        late = iter(("late",))

        def write_first(mirror: GuardedCrossSlotMirror, *arguments: Any) -> Any:
            under_way: Any = arguments[-1]
            if any(pair.source == b"job:1" for pair in under_way.pairs) and (value := next(late, None)):
                client.hset("job:1", "a", value)
            return original(mirror, *arguments)

        with CuttingOver(cluster.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            monkeypatch.setattr(GuardedCrossSlotMirror, step, write_first)
            beside = cluster.owner(slot_of("job:1")).own_name("job:beside").removeprefix("job:")
            with client.pipeline() as pipeline:
                pipeline.hset("step:1", "a", "new")
                pipeline.hset(f"step:{beside}", "a", "new")
                pipeline.execute()
            following.wait_until(lambda now: now.stragglers == 1)
            assert next(late, None) is None
            client.hset("step:1", "b", "newer")
            wait_until(lambda: client.hget(f"job:{beside}", "a") == b"new")
            assert client.hget("job:1", "a") == b"late"
        assert [(key.source, key.word) for key in following.keys] == [(b"job:1", Word.STRAGGLER)]

    @pytest.mark.oldest_and_newest
    def test_after_the_way_back_it_is_the_new_names(self, cluster: ClusterInstance) -> None:
        """Whoever writes those then is a straggler, and what he wrote is kept."""
        fill(cluster)
        client = cluster.client
        with CuttingOver(cluster.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            following.cut_over(Wish.BACK)
            client.hset("step:1", "a", "late")
            following.wait_until(lambda now: now.stragglers == 1)
            client.hset("job:1", "a", "new")
            client.hset("job:2", "a", "new")
            wait_until(lambda: client.hget("step:2", "a") == b"new")
            assert client.hget("step:1", "a") == b"late"
        assert [(key.source, key.word) for key in following.keys] == [(b"job:1", Word.STRAGGLER)]

    def test_a_write_while_nobody_listens(self, cluster: ClusterInstance) -> None:
        """Old names that were touched while the connection was lost are kept; others are mirrored on."""
        fill(cluster)
        client = cluster.client
        node = cluster.owner(slot_of("job:3"))
        other = "job:{job:3}"  # in the same slot
        client.hset(other, "a", 1)
        with CuttingOver(cluster.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            unheard = node.client.pipeline(transaction=True)
            unheard.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            unheard.hset("job:3", "a", "late")
            unheard.hset(other, "a", "late")
            unheard.execute()
            client.hset("step:3", "a", "new")
            client.delete(other.replace("job:", "step:"))
            following.wait_until(lambda now: now.stragglers == 2 and not now.dirty and not now.in_flight)
            client.hset("step:new", "a", "on")
            wait_until(lambda: client.hget("job:new", "a") == b"on")
            assert client.hget("job:3", "a") == client.hget(other, "a") == b"late"
        assert (b"job:3", Word.STRAGGLER) in [(key.source, key.word) for key in following.keys]
        assert Rescan.LOST in following.now.rescans

    @pytest.mark.oldest_and_newest
    def test_a_write_of_a_big_name_while_nobody_listens(self, cluster: ClusterInstance) -> None:
        """It is kept like that of any other."""
        client = cluster.client
        client.hset("job:big", mapping={f"field:{number}": "x" * 100 for number in range(3000)})
        with CuttingOver(cluster.url, limits=Limits(max_pause=0.1)) as following:
            following.wait_until_in_step()
            following.cut_over()
            unheard = cluster.owner(slot_of("job:big")).client.pipeline(transaction=True)
            unheard.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            unheard.hset("job:big", "a", "late")
            unheard.execute()
            client.hset("step:big", "a", "new")
            following.wait_until(lambda now: now.stragglers == 1)
            assert client.hget("job:big", "a") == b"late"
        assert [(key.source, key.word) for key in following.keys] == [(b"job:big", Word.STRAGGLER)]


@pytest.mark.oldest_and_newest
def test_queues_are_not_mirrored_back_while_somebody_waits(cluster: ClusterInstance) -> None:
    """At the node where somebody waits; at the others they are."""
    client = cluster.client
    one, other = cluster.primaries()[:2]
    here, there = one.own_name("job:queue"), other.own_name("job:queue")
    for name in (here, there):
        client.rpush(name, 1)
    with CuttingOver(cluster.url) as following, one.another_client() as worker:
        following.wait_until_in_step()
        following.cut_over()
        waiting = worker.connection_pool.get_connection()
        waiting.send_command("BLPOP", one.own_name("step:none"), 0)
        wait_until(lambda: one.client.info("clients")["blocked_clients"] == 1)
        for name in (here, there):
            client.rpush(name.replace("job:", "step:"), "job")
        wait_until(lambda: client.lrange(there, 0, -1) == [b"1", b"job"])
        following.wait_until(lambda now: "queue" in (now.waiting_for or ""))
        assert client.lrange(here, 0, -1) == [b"1"]
        following.cut_over(Wish.BACK)
        assert client.lrange(here, 0, -1) == [b"1", b"job"]
        waiting.disconnect()
    assert following.summary.exit_code == 0, following.keys


@pytest.mark.oldest_and_newest
def test_without_holding_writes(cluster: ClusterInstance) -> None:
    """It waits until nobody writes."""
    fill(cluster)
    client = cluster.client
    with CuttingOver(cluster.url, freezes=False, quiet_seconds=0.3) as following:
        following.wait_until_in_step()
        client.hset("job:1", "a", "last")
        following.cut_over()
        assert client.get(FLAG) == NEW
        client.hset("step:1", "a", "first")
        following.wait_until_in_step()
        assert client.hget("job:1", "a") == b"first"
        assert following.now.freeze_ms is None
        following.cut_over(Wish.BACK)
    assert following.summary.exit_code == 0


@pytest.mark.oldest_and_newest
def test_it_goes_on_after_it_was_stopped(cluster: ClusterInstance) -> None:
    """Flag and record tell the side; what changed meanwhile has been confirmed."""
    fill(cluster)
    client = cluster.client
    with CuttingOver(cluster.url) as following:
        following.wait_until_in_step()
        following.cut_over()
    client.hset("step:1", "a", "meanwhile")
    client.delete("step:2")
    with CuttingOver(cluster.url, confirmed=True) as following:
        following.wait_until_in_step()
        assert following.now.side is Side.TARGETS
        assert client.hget("job:1", "a") == b"meanwhile"
        assert not client.exists("job:2")
        following.cut_over(Wish.BACK)
        assert client.get(FLAG) is None
    assert following.summary.exit_code == 0, following.keys
