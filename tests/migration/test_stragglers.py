"""Names that are written after they were left: named at once, set aside, never written over unseen."""

from __future__ import annotations

from typing import Any

import pytest

from luamigrate import Limits, Wish, Word
from luamigrate.migration.guarded_mirror import GuardedMirror
from tests.clusters import wait_until
from tests.cutting import CuttingOver
from tests.instances import Instance
from tests.migration.test_follow import fill

pytestmark = pytest.mark.single_server("a test of its own is about clusters")


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
    def test_a_write_after_the_way_back(self, server: Instance) -> None:
        """Then the new names are those that were left."""
        client = fill(server)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            following.cut_over(Wish.BACK)
            together = client.pipeline(transaction=True)
            together.hset("step:1", "a", "late")
            together.hset("job:1", "a", "old")
            together.execute()
            following.wait_until(lambda now: now.stragglers == 1)
            client.hset("job:2", "a", "old")
            wait_until(lambda: client.hget("step:2", "a") == b"old")
            assert client.hget("step:1", "a") == b"late"
            client.delete("step:1")
            following.wait_until_in_step()
            assert client.hget("step:1", "a") == b"old"
        assert [(key.source, key.word) for key in following.keys] == [(b"job:1", Word.STRAGGLER)]

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
    def test_a_write_of_a_big_name_while_nobody_listens(self, server: Instance) -> None:
        """It is kept like that of any other."""
        client: Any = server.client
        client.hset("job:big", mapping={f"field:{number}": "x" * 100 for number in range(3000)})
        with CuttingOver(server.url, limits=Limits(max_pause=0.1)) as following:
            following.wait_until_in_step()
            following.cut_over()
            unheard = client.pipeline(transaction=True)
            unheard.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            unheard.hset("job:big", "a", "late")
            unheard.hset("step:big", "a", "new")
            unheard.execute()
            following.wait_until(lambda now: now.stragglers == 1)
            assert client.hget("job:big", "a") == b"late"
        assert [(key.source, key.word) for key in following.keys] == [(b"job:big", Word.STRAGGLER)]

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
            unheard.hset("job:4", "a", "late")
            unheard.delete("step:4")
            unheard.execute()
            following.wait_until(lambda now: now.stragglers == 2 and not now.dirty and not now.in_flight)
            client.hset("step:new", "a", "on")
            wait_until(lambda: client.hget("job:new", "a") == b"on")
            assert client.hget("job:3", "a") == client.hget("job:4", "a") == b"late"
        assert (b"job:3", Word.STRAGGLER) in [(key.source, key.word) for key in following.keys]
