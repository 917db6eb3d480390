"""Signals that stop: the batches under way are finished, the summary is printed, the same command continues."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from luamigrate.cli.options import environment
from tests.conftest import luamigrate, run
from tests.instances import Instance, assert_kept, snapshot
from tests.migration.test_run import HASHES, fill
from tests.processes import of_this_test
from tests.schemas import read_document

JOBS = 8_000
SLOWLY = ("--batch-size", "1")


def start_run(server: Instance, *options: str, ignoring: Sequence[signal.Signals] = ()) -> subprocess.Popen[str]:
    """Start a run in a process of its own and wait until it copies."""
    script = "import signal, sys\n"
    script += "".join(f"signal.signal({number.value}, signal.SIG_IGN)\n" for number in ignoring)
    script += "sys.argv = ['luamigrate', *sys.argv[1:]]\nfrom luamigrate.cli.commands import main\nmain()\n"
    process = subprocess.Popen(
        (sys.executable, "-c", script, "run", *HASHES, *options),
        env=environment(REDIS_URL=server.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    of_this_test(process)
    keys = server.client.dbsize()
    while server.client.dbsize() < keys + 200:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_in_good_order(any_server: Instance, number: signal.Signals) -> None:
    """Exit 130; the summary counts exactly what is there; the same command finishes the job."""
    fill(any_server.client, jobs=JOBS)
    process = start_run(any_server, *SLOWLY, "--json")
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    document = read_document(out)
    assert document["interrupted"] is True
    assert document["exit_code"] == 130
    copied = len(list(any_server.client.scan_iter("step:*", count=1000)))
    assert document["totals"]["copied"] == copied < JOBS
    assert "the batches under way are being finished" in err
    assert "INTERRUPTED: what is counted above is done, and nothing is lost. The same command again continues." in err
    again = luamigrate("run", *HASHES, "--json", url=any_server.url)
    assert again.totals == {"found": JOBS, "copied": JOBS - copied, "same": copied, "ignored": 0}


@pytest.mark.single_server("the one process is stopped")
def test_a_second_signal_stops_at_once(any_server: Instance) -> None:
    """Even while the server does not answer; what was copied is whole."""
    fill(any_server.client, jobs=2000)
    before = snapshot(any_server.client)
    process = start_run(any_server, *SLOWLY)
    any_server.process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)  # until it waits for an answer that does not come
    try:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        any_server.process.send_signal(signal.SIGCONT)
    assert process.returncode == 130
    assert "INTERRUPTED" in out
    assert "Traceback" not in err
    assert_kept(before, snapshot(any_server.client))
    assert run(any_server, *HASHES).code == 0


def test_many_signals_lose_neither_the_document_nor_the_exit_code(any_server: Instance) -> None:
    """Somebody leans on the keyboard."""
    fill(any_server.client, jobs=JOBS)
    process = start_run(any_server, *SLOWLY, "--json")
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    out, err = process.communicate()
    assert process.returncode == 130
    assert read_document(out)["interrupted"] is True
    assert "Traceback" not in err


def test_nohup_is_respected(any_server: Instance) -> None:
    """A signal that is ignored when we start stays ignored."""
    fill(any_server.client, jobs=3000)
    process = start_run(any_server, *SLOWLY, ignoring=[signal.SIGHUP])
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "3,000 copied" in out


@pytest.mark.single_server("the one process is stopped")
def test_a_signal_before_the_first_write_ends_it_at_once(any_server: Instance) -> None:
    """While the server does not even answer the greeting, nothing is waited for."""
    any_server.process.send_signal(signal.SIGSTOP)
    try:
        process = subprocess.Popen(
            (sys.executable, "-m", "luamigrate", "run"),
            env=environment(REDIS_URL=any_server.url, PYTHONUNBUFFERED="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        of_this_test(process)
        assert process.stdout
        os.read(process.stdout.fileno(), 100)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=10)
    finally:
        any_server.process.send_signal(signal.SIGCONT)
    assert process.returncode == 130
    assert b"Traceback" not in err
