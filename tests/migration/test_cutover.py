"""Cutting over, and going back: nothing is lost or doubled, and what speaks against it is said."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from luamigrate import CutoverOptions, Hooks, Refused, Side, Wish, Word, connect, follow, plan
from luamigrate.model.following import Phase
from tests.clusters import wait_until
from tests.cutting import (
    FLAG,
    NEW,
    CountingWriter,
    CuttingOver,
    assert_all_kinds_of_changes_are_mirrored_back,
    assert_nothing_lost,
)
from tests.following import PLAN, assert_in_step
from tests.instances import Instance
from tests.migration.test_follow import fill
from tests.preflight.test_preflight import busy_client

pytestmark = pytest.mark.single_server("a test of its own is about clusters")

EXPIRING = 3000
"""So many pairs that in some the clock ticks between two readings."""


def test_there_and_back_beside_an_application_that_counts(server: Instance) -> None:
    """Nothing is lost and nothing doubled; the flag has what it is to have, and record and index come and go."""
    writers = [CountingWriter(server, seed) for seed in range(6)]
    client: Any = server.client
    with CuttingOver(server.url) as following, ExitStack() as stack:
        following.wait_until_in_step()
        for writer in writers:
            stack.enter_context(writer)
        wait_until(lambda: all(writer.written[b"job:"] > 50 for writer in writers))
        following.cut_over()
        assert client.get(FLAG) == NEW
        assert (following.now.side, following.now.phase) == (Side.TARGETS, Phase.MIRRORING_BACK)
        assert following.now.freeze_ms
        assert list(client.keys("luamigrate:cutover:*"))
        wait_until(lambda: all(writer.written[b"step:"] > 50 for writer in writers))
        following.cut_over(Wish.BACK)
        assert client.get(FLAG) is None
        assert not client.exists("luamigrate:cutover")
        assert not client.keys("luamigrate:cutover:*")
        before = [writer.written[b"job:"] for writer in writers]
        wait_until(lambda: all(writer.written[b"job:"] > old for writer, old in zip(writers, before, strict=True)))
        following.cut_over()
        wait_until(lambda: sum(writer.written[b"step:"] for writer in writers) > 1000)
        stack.close()
        following.wait_until_in_step()
        assert_nothing_lost(client, writers, b"step:")
        assert_nothing_lost(client, writers, b"job:")
        assert not following.ask(Wish.FINISH)
        following.join(20)
    assert following.now.phase is Phase.FINISHED
    assert following.summary.exit_code == 0, following.keys
    assert client.get(FLAG) == NEW
    assert not client.keys("luamigrate:cutover*")


@pytest.mark.oldest_and_newest
def test_what_makes_no_sense_is_answered_so(server: Instance) -> None:
    """Nothing is flipped twice, nor back or finished before it was flipped."""
    fill(server)
    with CuttingOver(server.url) as following:
        following.wait_until_in_step()
        assert "nothing has been cut over" in following.ask(Wish.BACK)
        assert "nothing has been cut over" in following.ask(Wish.FINISH)
        following.cut_over()
        assert "already" in following.ask(Wish.CUTOVER)
    assert following.summary.exit_code == 0


@pytest.mark.oldest_and_newest
def test_all_kinds_of_changes_are_mirrored_back(server: Instance) -> None:
    """Types, expiries, deletions and new names, to the millisecond."""
    fill(server)
    assert_all_kinds_of_changes_are_mirrored_back(server)


@pytest.mark.oldest_and_newest
def test_queues_are_not_mirrored_back_while_somebody_waits(server: Instance) -> None:
    """A worker that waits might be handed a job twice; he is sent away when writes are held for the way back."""
    client = fill(server)
    with CuttingOver(server.url) as following, ExitStack() as stack:
        following.wait_until_in_step()
        following.cut_over()
        worker = stack.enter_context(busy_client(server, "BLPOP", "step:none", 0))
        client.rpush("step:list", "job")
        client.hset("step:1", "a", "new")
        wait_until(lambda: client.hget("job:1", "a") == b"new")
        following.wait_until(lambda now: "queues" in (now.waiting_for or ""))
        assert client.lrange("job:list", 0, -1) == [b"1", b"2", b"3"]
        following.cut_over(Wish.BACK)
        assert client.lrange("job:list", 0, -1) == [b"1", b"2", b"3", b"job"]
        following.wait_until_in_step()
        assert_in_step(server)
        del worker
    assert following.summary.exit_code == 0, following.keys


@pytest.mark.oldest_and_newest
def test_it_goes_on_after_it_was_stopped(server: Instance) -> None:
    """Flag and record tell the side; what changed meanwhile has to be confirmed."""
    client = fill(server)
    with CuttingOver(server.url) as following:
        following.wait_until_in_step()
        following.cut_over()
    client.hset("step:1", "a", "meanwhile")
    client.delete("step:2")
    with pytest.raises(Refused, match="--yes"):
        list(follow(connect(server.url), PLAN, cutover=CutoverOptions(flag=FLAG, value=NEW), settle=0))
    assert client.hget("job:1", "a") == b"1"
    assert client.exists("job:2")
    with CuttingOver(server.url, confirmed=True) as following:
        following.wait_until_in_step()
        assert following.now.side is Side.TARGETS
        assert client.hget("job:1", "a") == b"meanwhile"
        assert not client.exists("job:2")
        following.cut_over(Wish.BACK)
        assert client.get(FLAG) is None
    assert following.summary.exit_code == 0, following.keys


@pytest.mark.oldest_and_newest
def test_the_proof_compares_every_pair(server: Instance) -> None:
    """Pairs that are unequal though nobody told, as after SWAPDB, are found, named and made equal first."""
    client = fill(server)
    other = plan([("job:*", "step:*", "any")], database=5)
    with CuttingOver(server.url, other, prove=True) as following:
        following.wait_until_in_step()
        client.swapdb(5, 6)
        following.cut_over()
        assert following.now.attempts == 2
        assert "25 pairs were not equal" in following.now.steps[0]
        assert "proven" in following.now.steps[1]
        assert len(server.another_client(db=5).keys("step:*")) == 25
    assert {key.word for key in following.keys} == {Word.DIFFERS}


@pytest.mark.oldest_and_newest
def test_groups_of_streams_are_copied_once_more(server: Instance) -> None:
    """Nobody tells of their changes: they come with the flip, there and back."""
    client = fill(server)
    with CuttingOver(server.url, allow_groups=True, prove=True) as following:
        following.wait_until_in_step()
        client.xgroup_create("job:stream", "workers", "0")
        client.xreadgroup("workers", "one", {"job:stream": ">"})
        following.cut_over()
        assert client.xinfo_groups("step:stream") == client.xinfo_groups("job:stream")
        client.xgroup_create("step:stream", "others", "0")
        following.cut_over(Wish.BACK)
        assert len(client.xinfo_groups("job:stream")) == 2
        assert "groups" in " ".join(following.now.steps)
    assert following.summary.exit_code == 0, following.keys


@pytest.mark.oldest_and_newest
def test_without_holding_writes(server: Instance) -> None:
    """It waits until nobody writes, and needs no permission for CLIENT PAUSE."""
    client = fill(server)
    with CuttingOver(server.url, freezes=False, quiet_seconds=0.3) as following:
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
def test_all_at_once(server: Instance) -> None:
    """It cuts over as soon as it is in step, watches for a while, and finishes."""
    client = fill(server)
    with CuttingOver(server.url, at_once=True, watch_seconds=0.5) as following:
        following.join(20)
        assert not following.is_alive()
    assert following.now.phase is Phase.FINISHED
    assert following.summary.exit_code == 0
    assert client.get(FLAG) == NEW


@pytest.mark.oldest_and_newest
def test_a_hook_cancels_it(server: Instance) -> None:
    """Before the flip; one that fails after it is only told."""
    client = fill(server)
    with CuttingOver(server.url, hooks=Hooks(on_cutover=("false",))) as following:
        following.wait_until_in_step()
        assert "--on-cutover (false) failed" in following.ask(Wish.CUTOVER)
        assert client.get(FLAG) is None
    with CuttingOver(server.url, hooks=Hooks(on_cutover=("true",), on_flip=("false",))) as following:
        following.wait_until_in_step()
        following.cut_over()


def test_a_proof_takes_no_tick_of_the_clock_for_a_change(server: Instance) -> None:
    """Where the clock goes on in a script, two readings of one expiry may differ: one attempt is enough."""
    pipeline = server.client.pipeline(transaction=False)
    for number in range(EXPIRING):
        pipeline.hset(f"job:{number}", "a", "1")
        pipeline.pexpire(f"job:{number}", 10**8 + number)
    pipeline.execute()
    with CuttingOver(server.url, prove=True, attempts=1) as following:
        following.wait_until_in_step()
        following.cut_over()
        assert any(step.startswith("proven: ") for step in following.now.steps)
