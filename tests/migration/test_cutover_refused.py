"""What speaks against a cut-over, and answers that are lost in the middle of one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from luamigrate import CutoverOptions, Refused, Side, Wish, connect, follow
from luamigrate.migration import cutover, readiness
from luamigrate.migration.flipping import Flipper
from luamigrate.migration.lease import Lease
from luamigrate.model.following import Phase
from luamigrate.scripts import cutover_calls
from luamigrate.scripts.cutover_calls import FlipReply
from luamigrate.server.errors import ConnectionLost
from tests.cutting import FLAG, NEW, CuttingOver
from tests.following import PLAN
from tests.instances import Instance
from tests.migration.test_follow import fill

pytestmark = pytest.mark.single_server("a test of its own is about clusters")


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have attempts give up soon."""
    monkeypatch.setattr(readiness, "SECONDS_TO_GET_READY", 0.5)
    monkeypatch.setattr(cutover, "SECONDS_BETWEEN_ATTEMPTS", 0.05)


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
            assert "foreign: 1" in following.ask(Wish.CUTOVER)
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


def losing(call: Callable[..., FlipReply]) -> Callable[..., FlipReply]:
    """Return what makes a call and loses its answer."""

    def lose(*arguments: Any, **options: Any) -> FlipReply:
        call(*arguments, **options)
        raise ConnectionLost("the connection was lost")

    return lose


class TestLostAnswers:
    """The connection is lost while something was asked of the server: whether it was done, flag and record tell."""

    @pytest.mark.oldest_and_newest
    def test_the_flip_was_done(self, server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not done twice, and goes on from there."""
        client = fill(server)
        monkeypatch.setattr(cutover_calls, "flip", losing(cutover_calls.flip))
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
        monkeypatch.setattr(cutover_calls, "finish", losing(cutover_calls.finish))
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            following.begin(Wish.FINISH)
            following.join(20)
        assert following.now.phase is Phase.FINISHED
        assert following.summary.exit_code == 0
        assert client.get(FLAG) == NEW
        assert not client.keys("luamigrate:cutover*")
