"""A cut-over beside all that may go wrong: lost connections, slow servers and replicas, expiries, and old wishes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from luamigrate import Limits, Side, Wish, Word
from luamigrate.migration import lease
from tests.clusters import free_port, wait_until
from tests.cutting import FLAG, NEW, CountingWriter, CuttingOver
from tests.following import assert_in_step
from tests.instances import Instance, start
from tests.migration.test_follow import fill
from tests.preflight.test_preflight import busy_client
from tests.proxies import cutting

pytestmark = [
    pytest.mark.single_server("a test of its own is about clusters"),
    pytest.mark.oldest_and_newest,
]

VERBS = {Wish.CUTOVER: b"\r\nflip\r\n", Wish.BACK: b"\r\nback\r\n", Wish.FINISH: b"\r\nfinish\r\n"}
ELEMENTS = 30_000
"""Of a hash that is too big for one script."""


def test_scripts_that_the_server_has_lost(server: Instance) -> None:
    """Somebody empties the cache of scripts: nothing is held in vain, and the next attempt has them again."""
    client = fill(server)
    with CuttingOver(server.url, attempts=2) as following:
        following.wait_until_in_step()
        for wish in (Wish.CUTOVER, Wish.BACK):
            client.script_flush()
            following.cut_over(wish)


def test_a_server_that_takes_no_writes(server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease cannot be renewed: nothing is flipped, and nobody is told that it was."""
    client = fill(server)
    with CuttingOver(server.url, attempts=3) as following:
        following.wait_until_in_step()
        monkeypatch.setattr(lease, "SECONDS_TO_RENEW", 0.0)
        client.config_set("min-replicas-to-write", 1)
        try:
            why = following.ask(Wish.CUTOVER)
        finally:
            client.config_set("min-replicas-to-write", 0)
        assert "nothing was flipped in 3 attempts" in why
        assert client.get(FLAG) is None
        following.wait_until_in_step()
        following.cut_over()
        assert client.get(FLAG) == NEW
    assert following.summary.exit_code == 0


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("wish", VERBS)
def test_the_answer_to_the_flip_is_lost(server: Instance, wish: Wish, *, is_done: bool) -> None:
    """It is found out whether it was done; if not, it is done again; then pairs are mirrored as they have to be."""
    client = fill(server)
    wished, marks, asked = list[Wish](), [VERBS[wish]], list[bool]()

    def requests(content: bytes) -> int | None:
        if not wished or not marks or marks[0] not in content:
            return None
        mark = marks.pop()
        asked.append(True)
        return None if is_done else content.index(mark)

    def replies(_: bytes) -> int | None:
        return 0 if asked and is_done and asked.pop() else None

    with ExitStack() as stack:
        url = stack.enter_context(cutting(server.url.removeprefix("unix://"), requests, replies))
        following = stack.enter_context(CuttingOver(url, limits=Limits(patience=10), attempts=3))
        following.wait_until_in_step()
        if wish is not Wish.CUTOVER:
            following.cut_over()
        wished.append(wish)
        assert not following.ask(wish), following.now.steps
        assert not marks
        if wish is Wish.FINISH:
            following.join(20)
            assert not client.keys("luamigrate:cutover*")
        else:
            _assert_mirrored(following, server, *(("step:", "job:") if wish is Wish.CUTOVER else ("job:", "step:")))
        assert client.get(FLAG) == (None if wish is Wish.BACK else NEW)
    assert following.summary.exit_code == 0, (following.error, following.keys)


def _assert_mirrored(following: CuttingOver, server: Instance, written: str, mirrored: str) -> None:
    server.client.hset(f"{written}1", "a", "after it")
    following.wait_until_in_step()
    assert server.client.hget(f"{mirrored}1", "a") == b"after it"
    assert_in_step(server)


def test_a_server_that_is_killed(server_name: str) -> None:
    """With -9, and started again from its AOF: then each wish is granted by the new process."""
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with start(server_name, *options) as server:
        fill(server)
        with CuttingOver(server.url, limits=Limits(patience=20)) as following:
            following.wait_until_in_step()
            for wish, written, mirrored in ((Wish.CUTOVER, "step:", "job:"), (Wish.BACK, "job:", "step:")):
                server.kill()
                server.start_again(*options)
                following.wait_until_in_step()
                following.cut_over(wish)
                _assert_mirrored(following, server, written, mirrored)
        assert following.summary.exit_code == 0, following.keys


def test_a_replica_that_hangs(server_name: str) -> None:
    """Connections are closed before it is waited for, so nothing that was held is carried out."""
    port = free_port()
    with start(server_name, "--port", str(port)) as server, start(server_name) as replica, ExitStack() as stack:
        replica.client.replicaof("127.0.0.1", port)
        wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up")
        writers = [CountingWriter(server, seed) for seed in range(4)]
        following = stack.enter_context(CuttingOver(server.url, freeze_ms=100))
        following.wait_until_in_step()
        for writer in writers:
            stack.enter_context(writer)
        wait_until(lambda: all(writer.written[b"job:"] > 20 for writer in writers))
        os.kill(replica.process.pid, signal.SIGSTOP)
        stack.callback(os.kill, replica.process.pid, signal.SIGCONT)
        following.cut_over()
        wait_until(lambda: all(writer.written[b"step:"] > 20 for writer in writers))
        assert "no replica has confirmed the flip" in " ".join(following.now.steps)
        assert not following.now.stragglers, following.keys


class TestWithoutHoldingWrites:
    """Nobody is held, so all has to be mirrored before it is flipped."""

    def test_what_waits_to_be_mirrored(self, server: Instance) -> None:
        """It is mirrored first, though nobody has written for longer than is asked for."""
        client = fill(server)
        limits = Limits(max_lag_ms=1500)
        with CuttingOver(server.url, freezes=False, quiet_seconds=0.1, limits=limits) as following:
            following.wait_until_in_step()
            client.hset("job:1", "a", "first")
            wait_until(lambda: client.hget("step:1", "a") == b"first")
            client.hset("job:2", "a", "last")
            following.cut_over()
            assert client.hget("step:2", "a") == b"last"
        assert following.summary.exit_code == 0

    def test_queues_that_somebody_waits_for(self, server: Instance) -> None:
        """They are mirrored back first; until that is possible, nothing is flipped."""
        client = fill(server)
        with CuttingOver(server.url, freezes=False, quiet_seconds=0.1) as following, ExitStack() as stack:
            following.wait_until_in_step()
            following.cut_over()
            stack.enter_context(busy_client(server, "BLPOP", "step:none", 0))
            client.rpush("step:list", "job")
            following.wait_until(lambda now: "queues" in (now.waiting_for or ""))
            following.begin(Wish.BACK)
            following.wait_until(lambda now: "in step" in (now.waiting_for or ""))
            assert client.get(FLAG) == NEW
            client.rpush("step:none", "done")
            wait_until(lambda: len(following.answers) == 2)
            assert following.answers[-1] == ""
            assert client.lrange("job:list", 0, -1) == [b"1", b"2", b"3", b"job"]
        assert following.summary.exit_code == 0, following.keys

    def test_groups_of_a_stream(self, server: Instance) -> None:
        """They are copied once more, as where writes are held."""
        client = fill(server)
        client.xadd("job:queue", {"a": 1})
        client.xgroup_create("job:queue", "workers", 0)
        with CuttingOver(server.url, freezes=False, quiet_seconds=0.1, allow_groups=True) as following:
            following.wait_until_in_step()
            client.xreadgroup("workers", "one", {"job:queue": ">"})
            following.cut_over()
            assert client.xinfo_groups("step:queue")[0]["pending"] == 1


def test_who_goes_back_is_not_cut_over_again(server: Instance) -> None:
    """Not even where all of it was to be done at once."""
    client = fill(server)
    with CuttingOver(server.url, at_once=True, watch_seconds=30) as following:
        following.wait_until(lambda now: now.side is Side.TARGETS)
        following.cut_over(Wish.BACK)
        client.hset("job:1", "a", "again")
        following.wait_until_in_step()
        time.sleep(0.3)
        following.wait_until_in_step()
        assert client.get(FLAG) is None
    assert following.summary.exit_code == 0


class TestWhoIsNoStraggler:
    """What looks like the write of a straggler, and is none."""

    def test_what_expires_and_is_written_again(self, server: Instance) -> None:
        """Old names expire as the new ones do: nobody has deleted them."""
        client = fill(server)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            for turn in range(40):
                for number in range(20):
                    client.set(f"step:short{number}", turn, px=5 + number)
                    client.hset(f"step:{turn % 5}", "a", turn)
                time.sleep(0.02)
            for number in range(20):
                client.set(f"step:short{number}", "stays")
            following.wait_until_in_step()
            assert client.get("job:short1") == b"stays"
        assert not following.keys

    def test_an_idle_connection(self, server: Instance) -> None:
        """The server closes idle ones, but not that on which old names are written."""
        client = fill(server)
        client.config_set("timeout", 2)
        try:
            with CuttingOver(server.url) as following:
                following.wait_until_in_step()
                following.cut_over()
                time.sleep(5)
                client.hset("step:1", "a", "after a while")
                following.wait_until_in_step()
                assert not following.now.rescans
        finally:
            client.config_set("timeout", 0)
        assert not following.keys

    def test_hot_names_while_a_connection_is_lost(self, server: Instance) -> None:
        """It is known what they were made last, so that they are our own though they were just touched."""
        client = fill(server)
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            for number in range(20):
                client.hset(f"step:{number}", "a", "hot")
            following.wait_until_in_step()
            unheard = client.pipeline(transaction=True)
            unheard.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            for number in range(20):
                unheard.hset(f"step:{number}", "a", "hotter")
            unheard.delete("step:19")
            unheard.execute()
            following.wait_until(lambda now: now.rescans != {} and now.in_step)
            assert client.hget("job:1", "a") == b"hotter"
            assert not client.exists("job:19")
        assert not following.keys


class TestWhileNobodyListens:
    """Old names that were touched meanwhile are kept, whatever has become of the new ones, and however big they are."""

    @pytest.mark.parametrize("is_big", [False, True])
    @pytest.mark.parametrize("meanwhile", ["hset", "delete"])
    def test_a_straggler(self, server: Instance, meanwhile: str, *, is_big: bool) -> None:
        """His write is named, and neither overwritten nor deleted."""
        client = fill(server)
        if is_big:
            client.hset("job:3", mapping={f"field {number}": "x" * 30 for number in range(ELEMENTS)})
        changes: dict[str, Callable[[Any], Any]] = {
            "hset": lambda pipeline: pipeline.hset("step:3", "a", "new"),
            "delete": lambda pipeline: pipeline.delete("step:3"),
        }
        with CuttingOver(server.url) as following:
            following.wait_until_in_step()
            following.cut_over()
            unheard = client.pipeline(transaction=True)
            unheard.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            unheard.hset("job:3", "a", "late")
            changes[meanwhile](unheard)
            unheard.execute()
            following.wait_until(lambda now: now.stragglers == 1 and not now.dirty and not now.in_flight)
            assert client.hget("job:3", "a") == b"late"
        assert [(key.source, key.word) for key in following.keys] == [(b"job:3", Word.STRAGGLER)]
