"""Cutting over, and going back: nothing is lost or doubled, and what speaks against it is said."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import pytest

from luamigrate import CutoverOptions, Hooks, Refused, Side, Wish, Word, connect, follow
from luamigrate.migration import cutover
from luamigrate.migration.flipping import Flipper
from luamigrate.migration.guarded_mirror import GuardedMirror
from luamigrate.migration.lease import Lease
from luamigrate.model.following import Phase
from luamigrate.scripts import cutover_calls
from luamigrate.scripts.cutover_calls import FlipReply
from luamigrate.server.errors import ConnectionLost
from tests.clusters import wait_until
from tests.cutting import FLAG, NEW, CountingWriter, CuttingOver, assert_nothing_lost
from tests.following import PLAN, assert_in_step
from tests.instances import Instance
from tests.migration.test_follow import fill
from tests.preflight.test_preflight import busy_client

pytestmark = pytest.mark.single_server("a test of its own is about clusters")


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have attempts give up soon."""
    monkeypatch.setattr(cutover, "SECONDS_TO_GET_READY", 0.5)
    monkeypatch.setattr(cutover, "SECONDS_BETWEEN_ATTEMPTS", 0.05)


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
    client = fill(server)
    with CuttingOver(server.url) as following:
        following.wait_until_in_step()
        following.cut_over()
        client.hset("step:1", "a", "other")
        client.pexpire("step:2", 12_345_678)
        client.delete("step:3")
        client.hset("step:new", "a", 1)
        client.rpush("step:list", 4)
        client.persist("step:string")
        client.delete("step:set")
        client.set("step:set", "of another type")
        following.wait_until_in_step()
        assert client.hget("job:1", "a") == b"other"
        assert not client.exists("job:3")
        assert client.hget("job:new", "a") == b"1"
        assert_in_step(server)
        following.cut_over(Wish.BACK)
        client.hset("job:1", "a", "again")
        following.wait_until_in_step()
        assert client.hget("step:1", "a") == b"again"
        assert_in_step(server)
    assert following.summary.exit_code == 0, following.keys


class TestStragglers:
    """Whoever writes an old name after the flip."""

    def test_a_write_is_named_and_kept(self, server: Instance) -> None:
        """It is not overwritten, though the new name changes; it keeps out of step until somebody decides."""
        client = fill(server)
        with CuttingOver(server.url, attempts=1) as following:
            following.wait_until_in_step()
            following.cut_over()
            client.hset("job:1", "a", "late")
            following.wait_until(lambda now: now.stragglers == 1)
            client.hset("step:1", "a", "new")
            client.hset("step:2", "a", "new")
            wait_until(lambda: client.hget("job:2", "a") == b"new")
            assert client.hget("job:1", "a") == b"late"
            assert not following.now.in_step
            client.delete("job:1")
            following.wait_until_in_step()
            assert client.hget("job:1", "a") == b"new"
        assert [(key.source, key.word) for key in following.keys] == [(b"job:1", Word.STRAGGLER)]
        assert following.summary.exit_code == 3

    @pytest.mark.oldest_and_newest
    def test_a_new_name_and_a_deletion(self, server: Instance) -> None:
        """A name that only a straggler has is kept; one that he deletes is named, and made anew."""
        client = fill(server)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            client.hset("job:late", "a", 1)
            client.delete("job:2")
            following.wait_until(lambda now: now.stragglers == 2)
            wait_until(lambda: client.exists("job:2"))
            assert client.hget("job:late", "a") == b"1"
            assert not client.exists("step:late")
        assert {(key.source, key.word) for key in following.keys} == {
            (b"job:late", Word.STRAGGLER),
            (b"job:2", Word.STRAGGLER),
        }

    def test_a_write_between_the_last_look_and_ours(self, server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
        """What comes after WATCH, and before the script, is not overwritten; nor what comes before the barrier."""
        client = fill(server)
        execute = GuardedMirror._execute
        late = iter(("late", "later"))

        def write_first(mirror: GuardedMirror, batch: Any) -> None:
            if any(pair.source == b"job:1" for pair in batch.pairs) and (value := next(late, None)):
                client.hset("job:1", "a", value)
            execute(mirror, batch)

        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            monkeypatch.setattr(GuardedMirror, "_execute", write_first)
            client.hset("step:1", "a", "new")
            following.wait_until(lambda now: now.stragglers >= 1)
            client.hset("step:1", "b", "newer")
            client.hset("step:2", "a", "new")
            wait_until(lambda: client.hget("job:2", "a") == b"new")
            assert client.hget("job:1", "a") in (b"late", b"later")
        assert {key.word for key in following.keys} == {Word.STRAGGLER}

    @pytest.mark.oldest_and_newest
    def test_a_write_while_nobody_listens(self, server: Instance) -> None:
        """Old names that were touched while the connection was lost are kept; others are mirrored on."""
        client = fill(server)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            unheard = client.pipeline(transaction=True)
            unheard.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            unheard.hset("job:3", "a", "late")
            unheard.hset("step:3", "a", "new")
            unheard.execute()
            following.wait_until(lambda now: now.stragglers == 1 and not now.dirty and not now.in_flight)
            client.hset("step:new", "a", "on")
            wait_until(lambda: client.hget("job:new", "a") == b"on")
            assert client.hget("job:3", "a") == b"late"
        assert (b"job:3", Word.STRAGGLER) in [(key.source, key.word) for key in following.keys]


class TestWhatSpeaksAgainstIt:
    """What is said, and that nothing is flipped."""

    @pytest.mark.usefixtures("_impatient")
    @pytest.mark.oldest_and_newest
    def test_somebody_elses_pause(self, server: Instance) -> None:
        """It is noticed before anything is held, and goes on."""
        client = fill(server)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            client.execute_command("CLIENT", "PAUSE", 3000, "WRITE")
            why = following.ask(Wish.CUTOVER)
            assert "nothing was flipped in 2 attempts" in why, following.now.steps
            assert "CLIENT PAUSE" in why
            assert client.get(FLAG) is None
            following.wait_until_in_step()
            following.cut_over()
        assert following.summary.exit_code == 0

    @pytest.mark.usefixtures("_impatient")
    @pytest.mark.oldest_and_newest
    def test_a_foreign_target(self, server: Instance) -> None:
        """It has to be seen to first."""
        client = fill(server)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            client.hset("step:1", "a", "foreign")
            following.wait_until(lambda now: now.foreign == 1)
            assert "1 foreign" in following.ask(Wish.CUTOVER)
            client.delete("step:1")
            following.wait_until_in_step()
            following.cut_over()
        assert following.summary.exit_code == 3

    @pytest.mark.oldest_and_newest
    def test_a_flag_that_somebody_else_sets(self, server: Instance) -> None:
        """Before it begins, and after the flip: flag and record have to agree."""
        client = fill(server)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            client.set(FLAG, NEW)
            assert "no record" in following.ask(Wish.CUTOVER)
            client.delete(FLAG)
            following.cut_over()
            client.set(FLAG, "other")
            assert "is 'other'" in following.ask(Wish.BACK)
            assert "somebody else has written" in following.ask(Wish.FINISH)
            client.set(FLAG, NEW)
            assert not following.ask(Wish.FINISH)
        assert following.summary.exit_code == 0

    @pytest.mark.usefixtures("_impatient")
    def test_a_freeze_that_ends_too_soon(self, server: Instance, monkeypatch: Any) -> None:
        """Where we hang until the pause has ended, nothing is flipped, and the next attempt succeeds."""
        client = fill(server)
        flip, delays = Flipper._flip, iter((0.4,))

        def late(flipper: Flipper, *arguments: Any, **options: Any) -> bool:
            time.sleep(next(delays, 0))
            return flip(flipper, *arguments, **options)

        monkeypatch.setattr(Flipper, "_flip", late)
        with CuttingOver(server.url, freeze_ms=200) as following:
            following.wait_until_in_step()
            following.begin(Wish.CUTOVER)
            following.wait_until(lambda now: now.side is Side.TARGETS)
            assert client.get(FLAG) == NEW
        assert following.now.attempts == 2
        assert "late" in following.now.steps[0] or "enough" in following.now.steps[0]

    def test_a_write_that_slips_in_before_the_flip(self, server: Instance, monkeypatch: Any) -> None:
        """Somebody lets writes go on for a moment: it is drained again, and nothing is lost."""
        client = fill(server)
        flip, once = Flipper._flip, iter((True,))

        def let_in(flipper: Flipper, *arguments: Any, **options: Any) -> bool:
            if next(once, False):
                client.execute_command("CLIENT", "UNPAUSE")
                client.hset("job:1", "a", "slipped in")
            return flip(flipper, *arguments, **options)

        monkeypatch.setattr(Flipper, "_flip", let_in)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            assert client.hget("step:1", "a") == b"slipped in"
            following.wait_until_in_step()
        assert "drained again" in following.now.steps[0]
        assert following.summary.exit_code == 0, following.keys

    @pytest.mark.oldest_and_newest
    def test_a_rehearsals_leftover(self, server: Instance) -> None:
        """The flag has the value, and nobody knows why: it does not begin."""
        client = fill(server)
        client.set(FLAG, NEW)
        with pytest.raises(Refused, match="no record"):
            list(follow(connect(server.url), PLAN, cutover=CutoverOptions(flag=FLAG, value=NEW)))
        assert not client.keys("step:*")


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
    """A pair that is unequal though nobody told, as after SWAPDB, is found, named and made equal."""
    client = fill(server)
    with CuttingOver(server.url, prove=True) as following:
        following.wait_until_in_step()
        other = server.another_client(db=5)
        for number in range(25):
            other.hset(f"job:{number}", "a", "swapped in")
        client.swapdb(0, 5)
        client.swapdb(0, 5)
        following.cut_over()
        assert "proven" in " ".join(following.now.steps)
    assert following.summary.exit_code == 0


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


class TestLostAnswers:
    """The connection is lost while something was asked of the server: whether it was done, flag and record tell."""

    @pytest.mark.oldest_and_newest
    def test_the_flip_was_done(self, server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not done twice, and goes on from there."""
        client = fill(server)
        flip = cutover_calls.flip

        def flip_and_lose(*arguments: Any, **options: Any) -> FlipReply:
            flip(*arguments, **options)
            raise ConnectionLost("the connection was lost")

        monkeypatch.setattr(cutover_calls, "flip", flip_and_lose)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            assert client.get(FLAG) == NEW
            client.hset("step:1", "a", "new")
            following.wait_until_in_step()
            assert client.hget("job:1", "a") == b"new"
            following.cut_over(Wish.BACK)
        assert "though the connection was lost" in " ".join(following.now.steps)
        assert following.summary.exit_code == 0, following.keys

    @pytest.mark.oldest_and_newest
    def test_the_flip_was_not_done(self, server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is tried again."""
        client = fill(server)
        flip, once = cutover_calls.flip, iter((True,))

        def lose(*arguments: Any, **options: Any) -> FlipReply:
            if next(once, False):
                raise ConnectionLost("the connection was lost")
            return flip(*arguments, **options)

        monkeypatch.setattr(cutover_calls, "flip", lose)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            assert client.get(FLAG) == NEW
        assert following.now.attempts == 2
        assert following.summary.exit_code == 0, following.keys

    @pytest.mark.oldest_and_newest
    def test_before_anything_is_flipped(self, server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
        """An attempt that fails in any way is none that was granted."""
        client = fill(server)

        def lose(_lease: Lease) -> None:
            raise ConnectionLost("the connection was lost")

        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            with monkeypatch.context() as patch:
                patch.setattr(Lease, "refuse_others", lose)
                assert "nothing was flipped in 2 attempts" in following.ask(Wish.CUTOVER)
            assert client.get(FLAG) is None
            following.cut_over()
        assert following.summary.exit_code == 0

    @pytest.mark.oldest_and_newest
    def test_it_was_finished(self, server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
        """The record is gone: nobody takes the flag for the leftover of a rehearsal."""
        client = fill(server)
        finish = cutover_calls.finish

        def finish_and_lose(*arguments: Any, **options: Any) -> FlipReply:
            finish(*arguments, **options)
            raise ConnectionLost("the connection was lost")

        monkeypatch.setattr(cutover_calls, "finish", finish_and_lose)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            following.begin(Wish.FINISH)
            following.join(20)
        assert following.now.phase is Phase.FINISHED
        assert following.summary.exit_code == 0
        assert client.get(FLAG) == NEW
        assert not client.keys("luamigrate:cutover*")
