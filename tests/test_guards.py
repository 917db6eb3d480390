"""What is watched while it copies: it waits, says why, and goes on; or it stops, and nothing is lost."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from luamigrate import (
    Batch,
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
    verify,
)
from luamigrate.cli.embedded import free_port
from luamigrate.migration import throttle
from tests import binaries
from tests.conftest import luamigrate, run
from tests.instances import Instance, start
from tests.test_bad_input import make_saving_fail
from tests.test_checks import KEYS, RUN, commands, user
from tests.test_preflight import configured, used
from tests.test_recovery import DURABLE, assert_all_copied, once_at, restart
from tests.test_run import HASHES, fill
from tests.test_signals import SLOWLY, start_run

JOBS = plan([("job:*", "step:*", "hash")])
UNLIMITED = 0
MOST_ANSWERS = 200
"""Times that somebody may be told the same before it counts as going on for ever."""


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the throttle look each time they are asked, and not once a second, and wait for moments only."""
    monkeypatch.setattr(throttle, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(throttle, "SECONDS_TO_SLEEP", 0.02)
    monkeypatch.setattr(throttle, "ACKNOWLEDGED_MS", 100)


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
    document = json.loads(out)
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
    """And not when somebody held it, who may have gone to lunch."""
    fill(any_server.client, jobs=300)
    began = time.monotonic()

    def held() -> bool:
        if time.monotonic() - began < 0.6:
            return True
        if not told.of("memory"):
            nearly_full(any_server)()
        return False

    told = Told(memory=lambda: any_server.client.config_set("maxmemory", UNLIMITED))
    words: Counter[Word] = Counter()
    with configured(any_server, maxmemory=UNLIMITED), connect(any_server.url) as connection:
        for batch in migrate(connection, JOBS, limits=Limits(patience=0.5), operator=Operator(tell=told, held=held)):
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
    monkeypatch.setattr(throttle, "SECONDS_BETWEEN_LOOKS", 0.0 if moment == 100 else 1000.0)
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


def test_a_big_key_waits_too_where_the_server_takes_no_writes(server: Instance, watchful: None) -> None:
    """It goes in chunks, and is begun anew when the server takes writes again; nothing of ours is left."""
    fill_big(server)
    told = Told(writes=lambda: server.client.config_set("min-replicas-to-write", 0))
    with configured(server, min_replicas_to_write=0):
        words = big_migrated(server, once_at(3, refuse_writes(server)), told=told)
    assert words == {"copied": 1}
    assert told.of("writes")
    assert_big_copied(server)


def fill_big(server: Instance) -> None:
    """Write a hash that takes many chunks at the shortest pause."""
    for start_at in range(0, 6000, 1000):
        server.client.hset("job:big", mapping={f"field-{n}": f"value-{n}" for n in range(start_at, start_at + 1000)})


def big_migrated(
    server: Instance,
    trouble: Callable[[int], None] = lambda _: None,
    *,
    told: Callable[[str], None] = lambda _: None,
    held: Callable[[], bool] = lambda: False,
    look: Callable[[Batch], None] = lambda _: None,
    patience: float = 20,
) -> Counter[Word]:
    """Copy the big key, causing trouble after each chunk, by their number; return the words."""
    summary, chunks = Summary(JOBS), 0
    operator = Operator(tell=told, held=held)
    with connect(server.url) as connection:
        for batch in migrate(connection, JOBS, limits=Limits(max_pause=0.5, patience=patience), operator=operator):
            summary.add(batch)
            chunks += bool(batch.big)
            look(batch)
            trouble(chunks)
    assert chunks > 5
    return summary.totals.counts


def assert_big_copied(server: Instance) -> None:
    """Hold the big key to have an equal twin, and the server to have nothing else."""
    assert server.digest_value("job:big") == server.digest_value("step:big")
    assert sorted(server.client.scan_iter()) == [b"job:big", b"step:big"]


def test_a_big_key_is_not_begun_in_vain_where_memory_stays_scarce(any_server: Instance, watchful: None) -> None:
    """What had been staged of it is removed when the guard stops it."""
    fill_big(any_server)
    with configured(any_server, maxmemory=UNLIMITED), pytest.raises(Stopped, match="memory"):
        big_migrated(any_server, once_at(3, nearly_full(any_server)), patience=0.2)
    others = [shard.own_name("other").encode() for shard in any_server.shards()]
    assert sorted(any_server.client.scan_iter()) == [b"job:big", *sorted(others)]


class Meddler:
    """Somebody who has it wait once, at a certain part of a big key, and writes meanwhile."""

    def __init__(self, server: Instance, key: str, part: float, *, cuts: bool) -> None:
        self.meddled = False
        self._server, self._key, self._part, self._cuts = server, key, part, cuts
        self._done = 0.0

    def look(self, batch: Batch) -> None:
        """See how far it is."""
        self._done = batch.big[1] if batch.big else self._done

    def __call__(self) -> bool:
        """Tell whether it is to wait."""
        if self.meddled or self._done < self._part:
            return False
        self.meddled = True
        if self._cuts:
            self._server.client.client_kill_filter(_type="normal", skipme=True)
        self._server.client.hset(self._key, mapping=dict.fromkeys([f"field-{n}" for n in range(0, 6000, 100)], "new"))
        return True


@pytest.mark.parametrize("cuts", [False, True])
@pytest.mark.parametrize("part", [0.2, 0.6, 0.75])
def test_what_is_written_while_a_big_key_waits_is_not_missed(any_server: Instance, part: float, cuts: bool) -> None:
    """It is begun anew; also where the connection was lost meanwhile, and with it its WATCH."""
    fill_big(any_server)
    meddler = Meddler(any_server, "job:big", part, cuts=cuts)
    assert big_migrated(any_server, held=meddler, look=meddler.look) == {"copied": 1}
    assert meddler.meddled
    assert_big_copied(any_server)


@pytest.mark.parametrize("cuts", [False, True])
@pytest.mark.parametrize("part", [0.2, 0.5])
def test_a_big_target_that_is_written_while_its_rollback_waits_is_kept(
    any_server: Instance, part: float, cuts: bool
) -> None:
    """What has been compared by then may hold no more; as above."""
    fill_big(any_server)
    any_server.client.copy("job:big", "step:big")
    meddler, summary = Meddler(any_server, "step:big", part, cuts=cuts), Summary(JOBS, Command.ROLLBACK)
    with connect(any_server.url) as connection:
        for batch in rollback(
            connection, JOBS, settle=0, limits=Limits(max_pause=0.5), operator=Operator(held=meddler)
        ):
            meddler.look(batch)
            summary.add(batch)
    assert meddler.meddled
    assert summary.totals.counts == {"kept": 1}
    assert any_server.client.hget("step:big", "field-5900") == b"new"


def test_a_restart_that_a_guard_meets_first_is_no_less_a_restart(any_server: Instance, watchful: None) -> None:
    """Everything is looked at from the beginning, whichever question finds another process behind the address."""
    with start(any_server.name, *DURABLE) as server:
        fill(server.client, jobs=300)
        for number in range(10):
            server.client.hset(f"step:{number}", "id", "another")
        calls: list[int] = []

        def held() -> bool:
            if not calls and server.client.dbsize() >= 300 + 4 + 300:
                calls.append(1)
                time.sleep(0.05)  # until all that was under way is answered
                server.client.delete(*(f"step:{number}" for number in range(100, 200)))
                restart(server, *DURABLE)
            return False

        summary = Summary(JOBS)
        with connect(server.url) as connection:
            operator = Operator(held=held)
            for batch in migrate(connection, JOBS, settle=0.3, limits=Limits(batch_size=20), operator=operator):
                summary.add(batch)
        assert calls
        words = summary.totals.counts
        assert (words[Word.COPIED], words[Word.SAME]) == (100, 190)
        assert any("another server process answered" in text for text in summary.warnings)


@dataclass
class Pair:
    """A primary and its replica."""

    primary: Instance
    replica: Instance

    def stop(self) -> None:
        """Have the replica fall behind."""
        self.replica.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it catch up."""
        self.replica.process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def both() -> Iterator[Pair]:
    """Start a primary and a replica of one server."""
    name = next(name for name in ("valkey-9.1", *binaries.NAMES) if not isinstance(binaries.find(name), str))
    port = str(free_port())
    quick = ("--repl-diskless-sync-delay", "0")
    with (
        start(name, "--port", port, "--bind", "127.0.0.1", *quick) as primary,
        start(name, "--replicaof", "127.0.0.1", port) as replica,
    ):
        yield Pair(primary, replica)


@pytest.fixture
def pair(both: Pair) -> Iterator[Pair]:
    """Give the test a primary, empty, and a replica that has all of it."""
    both.primary.client.flushall()
    deadline = time.monotonic() + 20
    while not both.primary.client.wait(1, 100):
        assert time.monotonic() < deadline
    yield both
    both.go_on()


def test_a_replica_that_falls_behind_is_waited_for(pair: Pair, watchful: None) -> None:
    """With --max-lag: it says which one and how far, and goes on when the replica has caught up."""
    fill(pair.primary.client, jobs=300)
    pair.primary.client.wait(1, 0)
    told = Told(replicas=pair.go_on)

    def fall_behind() -> None:
        pair.stop()
        pair.primary.client.set("other", "x" * 500_000)

    words = migrated(pair.primary, once_at(100, fall_behind), told=told, max_lag=200_000)
    assert words == {"copied": 300}
    assert told.of("replicas")
    reason = re.compile(r"replicas: 127\.0\.0\.1:\d+ is [\d,]+ bytes behind, more than 200,000 \(--max-lag\)")
    assert all(reason.fullmatch(line) for line in told.of("replicas"))


def test_without_a_limit_nobody_waits_for_a_replica(pair: Pair, watchful: None) -> None:
    """The replica hangs, and the run does not."""
    fill(pair.primary.client, jobs=300)
    told = Told()
    assert migrated(pair.primary, once_at(100, pair.stop), told=told) == {"copied": 300}
    assert not told.lines


def test_what_is_copied_is_on_as_many_replicas_as_wanted(pair: Pair, watchful: None) -> None:
    """With --wait-replicas: a replica that hangs is waited for, and at the end it has everything."""
    fill(pair.primary.client, jobs=100)
    told = Told(replicas=pair.go_on)
    words = migrated(pair.primary, once_at(50, pair.stop), told=told, wait_replicas=1)
    assert words == {"copied": 100}
    assert told.of("replicas")
    assert all(line.startswith("replicas: 0 of 1 have acknowledged") for line in told.of("replicas"))
    assert pair.replica.digest() == pair.primary.digest()


def test_a_connection_that_is_lost_while_a_replica_is_waited_for_acknowledges_nothing(
    pair: Pair, watchful: None
) -> None:
    """WAIT on another connection knows nothing of what was written before: it goes on waiting, or stops."""
    fill(pair.primary.client, jobs=20)
    pair.primary.client.wait(1, 0)
    pair.stop()
    told = Told(replicas=lambda: pair.primary.client.client_kill_filter(_type="normal", skipme=True))
    with pytest.raises(Stopped, match="replicas"):
        migrated(pair.primary, told=told, wait_replicas=1, patience=0.6)
    assert any(line.startswith("waiting for the server") for line in told.lines)


def test_with_a_replica_there_a_run_that_waits_for_one_finishes(pair: Pair) -> None:
    """Exit 0, and all is on the replica when it ends; the server was asked after each batch."""
    fill(pair.primary.client, jobs=500)
    pair.primary.client.config_resetstat()
    result = luamigrate(
        "run", "--wait-replicas", "1", "--max-lag", "10000000", "--batch-size", "50", "--json", url=pair.primary.url
    )
    assert pair.replica.digest() == pair.primary.digest()
    assert (result.code, result.totals["copied"]) == (0, 504)
    assert pair.primary.client.info("commandstats")["cmdstat_wait"]["calls"] >= 10


def test_without_a_replica_a_run_that_waits_for_one_stops(any_server: Instance, watchful: None) -> None:
    """Exit 4 with the reason after the patience; what was copied counts, and a re-run continues."""
    fill(any_server.client, jobs=1000)
    result = luamigrate("run", *HASHES, "--wait-replicas", "1", "--patience", "0.5", "--json", url=any_server.url)
    assert result.code == 4
    assert result.document["error"].startswith("replicas: 0 of 1 have acknowledged")
    assert result.totals["found"] == result.totals["copied"] == count_steps(any_server)
    assert_finished_by_the_same_command(any_server, 1000)


def test_what_writes_nothing_waits_for_no_replica(any_server: Instance, watchful: None) -> None:
    """There is nothing to acknowledge after a batch of a dry run."""
    fill(any_server.client, jobs=300)
    options = ("--dry-run", "--wait-replicas", "1", "--patience", "0.2", "--json")
    result = luamigrate("run", *options, url=any_server.url)
    assert (result.code, result.totals["missing"]) == (0, 304)


def test_waiting_for_a_replica_is_told_once_in_a_while(any_server: Instance) -> None:
    """Not every second anew."""
    fill(any_server.client, jobs=100)
    result = luamigrate("run", *HASHES, "--wait-replicas", "1", "--patience", "1.5", url=any_server.url)
    assert result.code == 4
    waiting = [line for line in result.out.splitlines() if "replicas: 0 of 1" in line or "no answer for" in line]
    assert len(waiting) == 1, waiting


@pytest.mark.parametrize(("lacking", "option"), [("wait", "--wait-replicas"), ("info", "--max-lag")])
def test_a_user_who_may_not_watch_replicas_is_refused_before_anything_is_written(
    any_server: Instance, lacking: str, option: str
) -> None:
    """What was asked for cannot be done: exit 4 with the command that is not permitted."""
    fill(any_server.client, jobs=5)
    digest = any_server.digest()
    with user(
        any_server, [name for name in [*commands(any_server, RUN), "wait", "info"] if name != lacking], KEYS
    ) as url:
        result = luamigrate("run", "--quiet", option, "1", url=url)
    assert result.code == 4
    assert "permissions: " in result.err
    assert lacking in result.err.lower()
    assert any_server.digest() == digest


def size_at_rest(server: Instance) -> int:
    """Return how many keys there are once that does not change any more."""
    deadline = time.monotonic() + 10
    sizes = [-1]
    # A few times, as often as a batch would have come many times over.
    while len(sizes) < 6 or len(set(sizes[-5:])) > 1:
        assert time.monotonic() < deadline, sizes
        time.sleep(0.04)
        sizes.append(server.client.dbsize())
    return sizes[-1]


def held_run(server: Instance, *options: str) -> tuple[subprocess.Popen[str], int, str]:
    """Start a run and hold it; return it, the number of keys it has come to, and what it says."""
    fill(server.client, jobs=3000)
    process = start_run(server, *SLOWLY, *options)
    process.send_signal(signal.SIGUSR1)
    assert process.stderr
    said = process.stderr.readline() + process.stderr.readline()
    return process, size_at_rest(server), said


def test_a_signal_holds_it_and_the_same_signal_goes_on(any_server: Instance) -> None:
    """Copying stops, a line tells how it stands; then it finishes as if nothing had been."""
    process, size, said = held_run(any_server)
    before = 3000 + 4
    assert "held (SIGUSR1 again goes on): " in said
    told = int(said.split(": ")[-1].split()[0].replace(",", ""))
    assert "copied" in said
    assert before + told <= size <= before + told + 3 * len(any_server.shards())
    assert size < 2 * 3000

    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "going on: " in err
    assert "3,000 copied" in out
    assert "held by SIGUSR1" in out
    assert_all_copied(any_server, 3000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_held_can_be_ended(any_server: Instance, number: signal.Signals) -> None:
    """Exit 130 at once, and nothing is copied that was not when it was held."""
    process, size, _ = held_run(any_server, "--json")
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    assert any_server.client.dbsize() == size
    document = json.loads(out)
    assert document["interrupted"] is True
    assert document["totals"]["copied"] == size - 3004
    again = luamigrate("run", *HASHES, "--json", url=any_server.url)
    assert again.totals == {"found": 3000, "copied": 3000 - (size - 3004), "same": size - 3004, "ignored": 0}


@pytest.mark.parametrize("verb", [migrate, verify, rollback])
def test_every_command_can_be_held(any_server: Instance, verb: Callable[..., Iterator[Batch]]) -> None:
    """While it is, the server is asked for nothing but a sign of life."""
    fill(any_server.client, jobs=100)
    calls: list[int] = []

    def held() -> bool:
        scripts = [
            stats["calls"]
            for name, stats in any_server.client.info("commandstats").items()
            if name in ("cmdstat_evalsha", "cmdstat_evalsha_ro")
        ]
        calls.append(sum(scripts))
        return 2 <= len(calls) < 7

    operator, limits = Operator(held=held), Limits(batch_size=10)
    with connect(any_server.url) as connection:
        for _ in verb(connection, JOBS, settle=0, limits=limits, operator=operator):
            pass
    assert len(calls) > 8
    # What was under way when it began to wait may end meanwhile.
    assert calls[6] - calls[2] <= 1
    assert calls[-1] > calls[6]


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
