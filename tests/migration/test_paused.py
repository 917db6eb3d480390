"""A run that is paused, by a signal or by its caller, and then goes on or ends."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from luamigrate import (
    Batch,
    Limits,
    Operator,
    connect,
    migrate,
    rollback,
    verify,
)
from tests.cli.test_signals import SLOWLY, start_run
from tests.conftest import luamigrate
from tests.instances import Instance
from tests.migration.test_guards import JOBS
from tests.migration.test_run import HASHES, fill
from tests.schemas import read_document
from tests.server.test_recovery import assert_all_copied


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
    """Start a run and pause it; return it, the number of keys it has come to, and what it says."""
    fill(server.client, jobs=3000)
    process = start_run(server, *SLOWLY, *options)
    process.send_signal(signal.SIGUSR1)
    assert process.stderr
    said = process.stderr.readline() + process.stderr.readline()
    return process, size_at_rest(server), said


def test_a_signal_pauses_a_run_and_the_same_signal_resumes_it(any_server: Instance) -> None:
    """Copying stops, a line tells how it stands; then it finishes as if nothing had been."""
    process, size, said = held_run(any_server)
    before = 3000 + 4
    assert "paused (SIGUSR1 again goes on): " in said
    told = int(said.split(": ")[-1].split()[0].replace(",", ""))
    assert "copied" in said
    assert before + told <= size <= before + told + 3 * len(any_server.shards())
    assert size < 2 * 3000

    process.send_signal(signal.SIGUSR1)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "going on: " in err
    assert "3,000 copied" in out
    assert "paused by SIGUSR1" in out
    assert_all_copied(any_server, 3000)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_paused_run_can_be_ended(any_server: Instance, number: signal.Signals) -> None:
    """Exit 130 at once, and nothing is copied after the pause began."""
    process, size, _ = held_run(any_server, "--json")
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 130
    assert any_server.client.dbsize() == size
    document = read_document(out)
    assert document["interrupted"] is True
    assert document["totals"]["copied"] == size - 3004
    again = luamigrate("run", *HASHES, "--json", url=any_server.url)
    assert again.totals == {"found": 3000, "copied": 3000 - (size - 3004), "same": size - 3004, "ignored": 0}


@pytest.mark.parametrize("verb", [migrate, verify, rollback])
def test_every_command_can_be_paused(any_server: Instance, verb: Callable[..., Iterator[Batch]]) -> None:
    """While it is, the server is asked for nothing but a sign of life."""
    fill(any_server.client, jobs=100)
    calls: list[int] = []

    def paused() -> bool:
        scripts = [
            stats["calls"]
            for name, stats in any_server.client.info("commandstats").items()
            if name in ("cmdstat_evalsha", "cmdstat_evalsha_ro")
        ]
        calls.append(sum(scripts))
        return 2 <= len(calls) < 7

    operator, limits = Operator(paused=paused), Limits(batch_size=10)
    with connect(any_server.url) as connection:
        for _ in verb(connection, JOBS, settle=0, limits=limits, operator=operator):
            pass
    assert len(calls) > 8
    # What was under way when it began to wait may end meanwhile.
    assert calls[6] - calls[2] <= 1
    assert calls[-1] > calls[6]
