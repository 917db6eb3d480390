"""Processes of tests, demo and campaign: they hear signals, and nothing outlives whoever has started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
import redis

from luamigrate.cli.importing import STOPPING
from tests import processes
from tests.clusters import wait_until
from tests.processes import of_this_test
from tests.server.test_sentinel import ANY_BINARY

STARTS_A_SERVER = """
import sys, time
from pathlib import Path
from luamigrate.cli import embedded
with embedded.throwaway_server(Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def ignoring() -> Iterator[None]:
    """Ignore the signals that stop, as what is started by nohup or in the background does."""
    former = {number: signal.signal(number, signal.SIG_IGN) for number in STOPPING}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def test_the_tests_have_their_processes_hear_signals() -> None:
    """Whatever pytest was told to ignore."""
    assert all(signal.getsignal(number) is not signal.SIG_IGN for number in STOPPING)


@pytest.mark.parametrize("number", STOPPING)
def test_a_process_hears_what_is_ignored_here(ignoring: None, number: signal.Signals) -> None:
    """It ends of a signal that does us no harm."""
    processes.let_signals_through()
    os.kill(os.getpid(), number)
    script = f"import os, time; os.kill(os.getpid(), {number.value}); time.sleep(20)"
    process = subprocess.run((sys.executable, "-c", script), stderr=subprocess.DEVNULL, check=False)
    assert process.returncode == -number


def test_a_server_ends_with_the_process_that_has_started_it() -> None:
    """And be that process killed."""
    command = (sys.executable, "-c", STARTS_A_SERVER, str(ANY_BINARY))
    with of_this_test(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout
        with closing(redis.Redis.from_url(process.stdout.readline().strip())) as client:
            assert client.ping()
            process.kill()
            wait_until(lambda: not answers(client))


def answers(client: redis.Redis) -> bool:
    """Tell whether a server is there."""
    with suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def test_a_process_ends_with_its_test() -> None:
    """Also where the test has failed, and sees to nothing."""
    process = of_this_test(subprocess.Popen((sys.executable, "-c", "import time; time.sleep(60)")))
    processes.end_all()
    assert process.poll() == -signal.SIGKILL
