"""A server that is lost in mid-run: restarted, hung, promoted, loading, cut off. The same command goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
import redis

from luamigrate import Limits, Operator, Summary, Word, connect, migrate, plan
from luamigrate.cli.embedded import wait_until_up
from tests.conftest import luamigrate
from tests.instances import Instance, start
from tests.migration.test_run import fill
from tests.proxies import cutting

JOBS = plan([("job:*", "step:*", "hash")])
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def restart(server: Instance, *options: str) -> None:
    """Kill a server and start it again on the same files."""
    server.kill()
    server.start_again(*options)


def migrate_with(server: Instance, trouble: Callable[[int], None]) -> tuple[Summary, list[str]]:
    """Run, causing trouble after each batch, by the number of keys counted; return the summary and what was told."""
    told: list[str] = []
    summary = Summary(JOBS)
    limits = Limits(batch_size=20, patience=20)
    with connect(server.url) as connection:
        for batch in migrate(connection, JOBS, limits=limits, operator=Operator(tell=told.append)):
            summary.add(batch)
            trouble(summary.totals.found)
    return summary, told


def once_at(count: int, act: Callable[[], None]) -> Callable[[int], None]:
    """Act the first time that so many keys have been counted."""
    acted: list[int] = []

    def trouble(found: int) -> None:
        if found >= count and not acted:
            acted.append(found)
            act()

    return trouble


def assert_all_copied(server: Instance, jobs: int) -> None:
    """Every job has an equal step."""
    for number in range(jobs):
        assert server.client.hgetall(f"job:{number}") == server.client.hgetall(f"step:{number}") != {}


def test_a_server_that_is_killed_and_comes_back_is_scanned_again(server_name: str) -> None:
    """The cursor is void: the scan starts again, and no key is missed."""
    with start(server_name, *DURABLE) as server:
        fill(server.client, jobs=1000)
        summary, told = migrate_with(server, once_at(300, lambda: restart(server, *DURABLE)))
        assert wait_until_up(server.process, server.client)
        words = summary.totals.counts
        assert words.total() == 1000
        assert words[Word.COPIED] + words[Word.SAME] == 1000
        assert words[Word.SAME] >= 300
        assert any("another server process answered in mid-run" in text for text in summary.warnings)
        assert any("waiting for the server" in text for text in told)
        assert_all_copied(server, 1000)


def test_what_a_restart_has_lost_is_copied_again(server_name: str) -> None:
    """Without a file to come back from but for the sources, all counts are of the server that is there."""
    with start(server_name, *DURABLE) as server:
        fill(server.client, jobs=400)

        def lose() -> None:
            server.client.config_set("appendonly", "no")
            restart(server, *DURABLE)

        summary, _ = migrate_with(server, once_at(200, lose))
        assert summary.totals.counts.total() == 400
        assert_all_copied(server, 400)


@pytest.mark.single_server("the one process is stopped")
def test_a_server_that_hangs_for_a_while_is_waited_for(any_server: Instance) -> None:
    """It is the same process, so the scan goes on where it was."""
    fill(any_server.client, jobs=500)

    def hang() -> None:
        any_server.process.send_signal(signal.SIGSTOP)
        threading.Timer(2.5, any_server.process.send_signal, [signal.SIGCONT]).start()

    summary, told = migrate_with(any_server, once_at(100, hang))
    assert summary.totals.counts == Counter({"copied": 500})
    assert any("no answer for 2 s" in text for text in told)
    assert not summary.warnings


@pytest.mark.single_server("the one process is stopped")
def test_a_server_that_hangs_for_longer_than_an_answer_may_take(
    any_server: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another connection is made, and what the script had done meanwhile is counted as `same`."""
    monkeypatch.setattr("luamigrate.server.connection.ANSWER_SECONDS", 1.0)
    monkeypatch.setattr("luamigrate.server.connect.CONNECT_SECONDS", 1.0)
    fill(any_server.client, jobs=500)

    def hang() -> None:
        any_server.process.send_signal(signal.SIGSTOP)
        threading.Timer(2.5, any_server.process.send_signal, [signal.SIGCONT]).start()

    summary, _ = migrate_with(any_server, once_at(100, hang))
    words = summary.totals.counts
    assert words.total() == 500
    assert words[Word.COPIED] + words[Word.SAME] == 500
    assert words[Word.SAME] <= summary.repeated


def test_a_server_that_does_not_come_back_ends_the_run_after_the_patience(server_name: str) -> None:
    """Exit 1, with the summary, in about that time."""
    with start(server_name) as server:
        fill(server.client, jobs=300)
        threading.Timer(0.6, server.process.kill).start()
        began = time.monotonic()
        result = luamigrate("run", "--max-rate", "100", "--patience", "1", "--json", url=server.url)
        assert (result.code, time.monotonic() - began < 10) == (1, True)
        assert result.document["totals"]["found"] < 300
        assert "waiting for the server" in result.err
        assert "STOPPED before the end" in result.err


def test_a_replica_promoted_behind_the_same_address_is_scanned_from_the_beginning(server_name: str) -> None:
    """Another process answers, with another table: nothing is missed."""
    with start(server_name) as server:
        fill(server.client, jobs=800)

        def fail_over() -> None:
            # What a replica would have: the same keys in a process of its own.
            server.client.save()
            restart(server)

        summary, _ = migrate_with(server, once_at(200, fail_over))
        assert wait_until_up(server.process, server.client)
        assert summary.totals.counts.total() == 800
        assert_all_copied(server, 800)


def test_other_peoples_long_script_is_waited_for(server_name: str) -> None:
    """The server answers BUSY for a while."""
    with start(server_name, "--lua-time-limit", "100") as server:
        fill(server.client, jobs=300)

        def occupy() -> None:
            with redis.Redis.from_url(server.url, socket_timeout=20) as other:
                other.eval("for _ = 1, 3e8 do end return 1", 0)

        thread = threading.Thread(target=occupy)

        def begin() -> None:
            thread.start()
            time.sleep(0.3)

        summary, _ = migrate_with(server, once_at(100, begin))
        thread.join()
        words = summary.totals.counts
        assert words[Word.COPIED] + words[Word.SAME] == words.total() == 300


class CutOften:
    """Cuts the connection at every n-th chunk that contains the given bytes."""

    def __init__(self, containing: bytes, every: int, passing: Callable[[bytes], int]) -> None:
        self.containing, self.every, self.passing = containing, every, passing
        self.seen = self.cuts = 0

    def __call__(self, content: bytes) -> int | None:
        """Count, and cut when it is time."""
        self.seen += self.containing in content
        if self.containing not in content or self.seen % self.every or self.cuts >= 5:
            return None
        self.cuts += 1
        return self.passing(content)


@pytest.mark.single_server("a proxy stands before one server")
@pytest.mark.parametrize("where", ["before the request", "in the request", "before the reply", "in the reply"])
def test_connections_that_are_cut_cost_no_key(server: Instance, where: str) -> None:
    """All keys are copied wherever connections are cut, and a warning counts what was sent twice."""
    fill(server.client, jobs=600)
    passing = (lambda content: len(content) // 2) if where.startswith("in ") else (lambda _: 0)
    requests = where.endswith("request")
    cut = CutOften(b"step:" if requests else b"copied", 5, passing)
    path = server.url.removeprefix("unix://")
    with cutting(path, **{"requests" if requests else "replies": cut}) as url:
        result = luamigrate("run", "--map", "job:*=step:*", "--batch-size", "10", "--json", url=url)
    assert cut.cuts == 5
    assert result.code == 0
    totals = result.totals
    assert totals["found"] == totals["copied"] + totals.get("same", 0) == 600
    assert_all_copied(server, 600)
    if where == "before the reply":
        assert totals["same"] > 0
        assert any("were sent twice" in text for text in result.document["warnings"])
