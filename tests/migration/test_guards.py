"""What is watched while it copies: it waits, says why, and goes on; or it stops, and nothing is lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from luamigrate import (
    Command,
    Limits,
    Operator,
    Stopped,
    Summary,
    Word,
    connect,
    migrate,
    plan,
    rollback,
)
from luamigrate.migration import throttle
from tests.cli.test_bad_input import make_saving_fail
from tests.cli.test_signals import start_run
from tests.conftest import luamigrate, run
from tests.instances import Instance, start
from tests.migration.test_run import HASHES, fill
from tests.preflight.test_preflight import configured, used
from tests.schemas import read_document
from tests.server.test_recovery import DURABLE, assert_all_copied, once_at, restart

JOBS = plan([("job:*", "step:*", "hash")])
UNLIMITED = 0
MOST_ANSWERS = 200
"""Times that somebody may be told the same before it counts as going on for ever."""


class Told:
    """What was told while it waited; the first line of a kind has somebody do something about it."""

    def __init__(self, **mend: Callable[[], object]) -> None:
        self.lines: list[str] = []
        self._mend = mend

    def __call__(self, text: str) -> None:
        """Take a line."""
        self.lines.append(text)
        assert len(self.lines) < MOST_ANSWERS, text
        kind = text.partition(":")[0]
        # Once or twice more, so that it is seen to wait.
        if kind in self._mend and len(self.of(kind)) == 3:
            self._mend[kind]()

    def of(self, kind: str) -> list[str]:
        """Return the lines of a kind."""
        return [line for line in self.lines if line.startswith(f"{kind}:")]


def migrated(
    server: Instance,
    trouble: Callable[[int], None] = lambda _: None,
    *,
    told: Callable[[str], None] = lambda _: None,
    ignored: frozenset[str] = frozenset(),
    patience: float = 20,
    **limits: Any,
) -> Counter[Word]:
    """Run, causing trouble after each batch, by the number of keys counted; return the words."""
    summary = Summary(JOBS)
    with connect(server.url) as connection:
        for batch in migrate(
            connection,
            JOBS,
            limits=Limits(batch_size=20, patience=patience, **limits),
            operator=Operator(tell=told),
            ignored_checks=ignored,
        ):
            summary.add(batch)
            trouble(summary.totals.found)
    return summary.totals.counts


def stopped(server: Instance, trouble: Callable[[int], None], match: str, **options: Any) -> Stopped:
    """Run into trouble that stops it, with exit 4, before all is copied; what was copied is whole."""
    with pytest.raises(Stopped, match=match) as caught:
        migrated(server, trouble, **options)
    assert caught.value.exit_code == 4
    return caught.value


def assert_finished_by_the_same_command(server: Instance, jobs: int) -> None:
    """Hold a stopped run to have lost nothing: running again copies the rest, and nothing of ours is left."""
    copied = count_steps(server)
    assert 0 < copied < jobs
    totals = luamigrate("run", *HASHES, "--json", url=server.url).totals
    assert totals == {"found": jobs, "copied": jobs - copied, "same": copied, "ignored": 0}
    assert_all_copied(server, jobs)
    assert not list(server.client.scan_iter("luamigrate:*", count=1000))


def count_steps(server: Instance) -> int:
    """Count the copies there are."""
    return len(list(server.client.scan_iter("step:*", count=1000)))


def nearly_full(server: Instance) -> Callable[[], None]:
    """Return what has each server use 97 % of its maxmemory, most of it by a key of another name."""

    def act() -> None:
        for shard in server.shards():
            shard.client.setrange(shard.own_name("other"), 20_000_000, "x")
            shard.client.config_set("maxmemory", int(used(shard) / 0.97))

    return act


def test_where_memory_gets_scarce_it_waits_until_there_is_more(server: Instance, watchful: None) -> None:
    """From 95 % of maxmemory on nothing is copied; the reason is told, all the time; no key fails."""
    fill(server.client, jobs=400)
    sizes = []

    def mend() -> None:
        sizes.append(server.client.dbsize())
        server.client.config_set("maxmemory", UNLIMITED)

    told = Told(memory=mend)
    with configured(server, maxmemory=UNLIMITED):
        words = migrated(server, once_at(100, nearly_full(server)), told=told)
    assert words == {"copied": 400}
    assert all("% of maxmemory is used, from 95% on nothing is copied" in line for line in told.of("memory"))
    # Two batches were under way when it was noticed.
    assert sizes[0] - 404 - len(server.shards()) <= 100 + 3 * 20 * len(server.shards())


def test_where_memory_stays_scarce_it_stops_after_the_patience(any_server: Instance, watchful: None) -> None:
    """Exit 4, nothing is lost, and the same command finishes once there is more."""
    fill(any_server.client, jobs=400)
    told = Told()
    began = time.monotonic()
    with configured(any_server, maxmemory=UNLIMITED):
        error = stopped(
            any_server, once_at(100, nearly_full(any_server)), "memory: .* of maxmemory", told=told, patience=0.4
        )
    assert 0.4 <= time.monotonic() - began < 5
    assert told.of("memory")
    assert "waited for" in str(error)
    assert_finished_by_the_same_command(any_server, 400)


def test_a_run_that_a_guard_stops_tells_so(any_server: Instance) -> None:
    """Exit 4 with the reason, the summary of what was done, and what to type next."""
    fill(any_server.client, jobs=3000)
    with configured(any_server, maxmemory=UNLIMITED):
        process = start_run(any_server, "--max-rate", "1000", "--patience", "0", "--json")
        nearly_full(any_server)()
        out, err = process.communicate(timeout=20)
    document = read_document(out)
    assert process.returncode == document["exit_code"] == 4
    assert document["error"].startswith("memory: ")
    assert document["totals"]["copied"] == count_steps(any_server) < 3000
    assert "failed" not in document["totals"]
    assert "STOPPED before the end" in err
    assert "The same command again continues." in err


def test_memory_that_is_not_to_be_heard_of_is_not(any_server: Instance, watchful: None) -> None:
    """The guard has the check's name."""
    fill(any_server.client, jobs=300)
    told = Told()
    with configured(any_server, maxmemory=UNLIMITED):
        words = migrated(any_server, once_at(100, nearly_full(any_server)), told=told, ignored=frozenset(["memory"]))
    assert words == {"copied": 300}
    assert not told.lines


def test_the_patience_for_memory_begins_when_it_gets_scarce(any_server: Instance, watchful: None) -> None:
    """And not when somebody paused the run, who may have gone to lunch."""
    fill(any_server.client, jobs=300)
    began = time.monotonic()

    def paused() -> bool:
        if time.monotonic() - began < 0.6:
            return True
        if not told.of("memory"):
            nearly_full(any_server)()
        return False

    told = Told(memory=lambda: any_server.client.config_set("maxmemory", UNLIMITED))
    words: Counter[Word] = Counter()
    with configured(any_server, maxmemory=UNLIMITED), connect(any_server.url) as connection:
        operator = Operator(tell=told, paused=paused)
        for batch in migrate(connection, JOBS, limits=Limits(patience=0.5), operator=operator):
            words += batch.tally.counts
    assert words == {"copied": 300}


def test_a_rollback_does_not_wait_for_memory(any_server: Instance, watchful: None) -> None:
    """It is what gives some back."""
    fill(any_server.client, jobs=100)
    run(any_server, *HASHES)
    summary = Summary(JOBS, Command.ROLLBACK)
    with configured(any_server, maxmemory=UNLIMITED), connect(any_server.url) as connection:
        nearly_full(any_server)()
        for batch in rollback(connection, JOBS, limits=Limits(patience=0.2)):
            summary.add(batch)
    assert summary.totals.counts == {"removed": 100}


def evict(server: Instance) -> Callable[[], None]:
    """Return what has the server evict keys."""

    def act() -> None:
        server.client.config_set("maxmemory-policy", "allkeys-lru")
        shards = server.shards()
        for shard in shards:
            shard.client.config_set("maxmemory", used(shard) + 50_000 // len(shards))
        for number in range(20):
            server.client.set(f"other:{number}", "x" * 10_000)
        server.client.config_set("maxmemory", UNLIMITED)

    return act


@pytest.mark.parametrize("moment", [100, 990])
def test_a_server_that_evicts_keys_stops_it(server: Instance, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Sources may be among them: exit 4 at the next look, and be it the last one, when all has been copied."""
    monkeypatch.setattr(throttle, "SECONDS_BETWEEN_CHECKS", 0.0 if moment == 100 else 1000.0)
    fill(server.client, jobs=1000)
    before: Any = server.client.info("stats")["evicted_keys"]
    with configured(server, maxmemory=UNLIMITED, maxmemory_policy="noeviction"):
        error = stopped(server, once_at(moment, evict(server)), "eviction: the server has evicted", told=Told())
        evicted = server.client.info("stats")["evicted_keys"] - before
    assert f"evicted {evicted:,} keys" in str(error)
    assert "noeviction" in str(error)
    copied = count_steps(server)
    assert (copied < 300) == (moment == 100)


def test_evictions_from_before_do_not_count(any_server: Instance, watchful: None) -> None:
    """Only a rise does."""
    fill(any_server.client, jobs=300)
    with configured(any_server, maxmemory=UNLIMITED, maxmemory_policy="noeviction"):
        evict(any_server)()
        fill(any_server.client, jobs=300)
        assert migrated(any_server) == {"copied": 300}


def refuse_writes(server: Instance) -> Callable[[], None]:
    """Return what has the server refuse writes for want of a replica."""

    def act() -> None:
        server.client.config_set("min-replicas-to-write", 1)

    return act


def test_a_server_that_takes_no_writes_for_a_while_costs_no_key(server: Instance, watchful: None) -> None:
    """NOREPLICAS: it waits, says so in the server's words, and goes on; no key is failed for it."""
    fill(server.client, jobs=300)
    told = Told(writes=lambda: server.client.config_set("min-replicas-to-write", 0))
    with configured(server, min_replicas_to_write=0):
        words = migrated(server, once_at(100, refuse_writes(server)), told=told)
    assert words == {"copied": 300}
    assert all("NOREPLICAS" in line for line in told.of("writes"))
    assert_all_copied(server, 300)


def test_a_server_whose_save_has_failed_is_waited_for(server_name: str, watchful: None) -> None:
    """MISCONF: as above, and the connection is alive though PING too is answered with it."""
    with start(server_name) as server:
        fill(server.client, jobs=300)
        told = Told(writes=lambda: server.client.config_set("stop-writes-on-bgsave-error", "no"))
        words = migrated(server, once_at(100, lambda: make_saving_fail(server)), told=told)
        server.client.config_set("save", "")
        assert words == {"copied": 300}
        assert all("MISCONF" in line for line in told.of("writes"))


def test_a_server_that_goes_on_taking_no_writes_stops_it_after_the_patience(server: Instance, watchful: None) -> None:
    """Exit 4, no key is failed, and the same command finishes."""
    fill(server.client, jobs=300)
    told = Told()
    with configured(server, min_replicas_to_write=0):
        stopped(server, once_at(100, refuse_writes(server)), "writes: .*NOREPLICAS", told=told, patience=0.3)
    assert told.of("writes")
    assert_finished_by_the_same_command(server, 300)


def test_a_restart_that_a_guard_meets_first_is_no_less_a_restart(any_server: Instance, watchful: None) -> None:
    """Everything is compared from the beginning, whichever question finds another process behind the address."""
    with start(any_server.name, *DURABLE) as server:
        fill(server.client, jobs=300)
        for number in range(10):
            server.client.hset(f"step:{number}", "id", "another")
        calls: list[int] = []

        def paused() -> bool:
            if not calls and server.client.dbsize() >= 300 + 4 + 300:
                calls.append(1)
                time.sleep(0.05)  # until all that was under way is answered
                server.client.delete(*(f"step:{number}" for number in range(100, 200)))
                restart(server, *DURABLE)
            return False

        summary = Summary(JOBS)
        with connect(server.url) as connection:
            operator = Operator(paused=paused)
            for batch in migrate(connection, JOBS, settle=0.3, limits=Limits(batch_size=20), operator=operator):
                summary.add(batch)
        assert calls
        words = summary.totals.counts
        assert (words[Word.COPIED], words[Word.SAME]) == (100, 190)
        assert any("another server process answered" in text for text in summary.warnings)


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "many"])
def test_a_rate_that_is_none_is_a_usage_error(any_server: Instance, rate: str) -> None:
    """Exit 2 with one line, and nothing was done."""
    fill(any_server.client, jobs=3)
    digest = any_server.digest()
    result = luamigrate("run", "--max-rate", rate, url=any_server.url)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert any_server.digest() == digest
