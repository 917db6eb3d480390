"""Replicas that are waited for while it copies: how far behind they may be, and how many must have it all."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from luamigrate import (
    Stopped,
)
from luamigrate.cli.embedded import free_port
from tests import binaries
from tests.conftest import luamigrate
from tests.instances import Instance, start
from tests.migration.test_guards import Told, assert_finished_by_the_same_command, count_steps, migrated
from tests.migration.test_run import HASHES, fill
from tests.preflight.test_checks import KEYS, RUN, commands, user
from tests.server.test_recovery import once_at


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
