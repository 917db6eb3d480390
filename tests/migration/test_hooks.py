"""Hooks: real commands, what they are told, and that none outlives its time or the follow."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from luamigrate.migration import hooks
from luamigrate.migration.hooks import Event, HookRunner, RunningHook
from luamigrate.model.cutover import Hooks
from tests.clusters import wait_until

TELL = """
import json, os, sys
told = {"environment": dict(os.environ), "session": os.getsid(0), "input": sys.stdin.read()}
with open(sys.argv[1], "a") as file:
    file.write(json.dumps(told) + "\\n")
"""


def telling(path: Path) -> tuple[str, ...]:
    """Return a command that writes what it is told to a file."""
    return (sys.executable, "-c", TELL, str(path))


def shell(text: str) -> tuple[str, ...]:
    """Return a command of a shell that a user would have named."""
    return ("sh", "-c", text)


def told(path: Path) -> list[dict[str, str]]:
    """Return what each run of such a command was told by us."""
    *lines, _ = path.read_text().split("\n") if path.exists() else [""]
    return [
        {name: text for name, text in json.loads(line)["environment"].items() if name.startswith("LUAMIGRATE_")}
        for line in lines
    ]


def end_of(hook: RunningHook) -> str:
    """Wait until a hook has ended; return why it failed."""
    wait_until(lambda: hook.poll() is not None)
    return hook.poll() or ""


def is_alive(number: int) -> bool:
    """Tell whether a process is there, and is not only waiting to be reaped."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_hook_is_told_the_facts_and_none_of_our_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the rest of our environment, a session of its own, and nothing to read."""
    for name in ("REDIS_URL", "REDIS_PASSWORD", "SENTINEL_PASSWORD", "LUAMIGRATE_PLAN", "MAX_PAUSE", "MINE"):
        monkeypatch.setenv(name, "s3cret" if name != "MINE" else "kept")
    file = tmp_path / "told"
    runner = HookRunner(Hooks(on_cutover=telling(file), without=frozenset(("MAX_PAUSE",))))
    assert end_of(runner.begin(Event.CUTOVER, {"flag": "app:names", "value": "new", "side": "sources"})) == ""
    line = json.loads(file.read_text())
    assert "s3cret" not in file.read_text()
    assert (line["environment"]["MINE"], line["input"]) == ("kept", "")
    assert line["session"] != os.getsid(0)
    assert told(file) == [
        {
            "LUAMIGRATE_EVENT": "cutover",
            "LUAMIGRATE_FLAG": "app:names",
            "LUAMIGRATE_VALUE": "new",
            "LUAMIGRATE_SIDE": "sources",
        }
    ]


def test_where_there_is_no_command_it_has_ended_well_at_once() -> None:
    """So nobody has to ask first."""
    assert HookRunner(Hooks()).begin(Event.FLIP, {}).poll() == ""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (shell("exit 3"), "--on-cutover (sh) failed: exit code 3"),
        (shell("kill -9 $$"), "--on-cutover (sh) failed: it was ended by signal 9"),
        (("/no/such/program",), "--on-cutover (/no/such/program) cannot be started: No such file or directory"),
        (("/etc/passwd",), "--on-cutover (/etc/passwd) cannot be started: Permission denied"),
        (("sh", "a\0b"), "--on-cutover (sh) cannot be started: embedded null byte"),
    ],
    ids=str,
)
def test_one_that_fails_says_why(command: tuple[str, ...], words: str) -> None:
    """In one line, whatever the reason."""
    assert end_of(HookRunner(Hooks(on_cutover=command)).begin(Event.CUTOVER, {})) == words


def test_what_it_prints_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """Standard output is for the JSON document alone."""
    assert end_of(HookRunner(Hooks(on_flip=shell("echo out; echo err >&2"))).begin(Event.FLIP, {})) == ""
    assert capfd.readouterr() == ("", "out\nerr\n")


def test_one_that_takes_too_long_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    """Even where it ignores SIGTERM; and nobody waits for it meanwhile."""
    file = tmp_path / "numbers"
    command = shell(f"trap '' TERM; sleep 600 & echo $$ $! > {shlex.quote(str(file))}; wait; wait; sleep 600")
    hook = HookRunner(Hooks(on_flip=command, seconds=0.3)).begin(Event.FLIP, {})
    wait_until(lambda: file.exists() and len(file.read_text().split()) == 2)
    numbers = [int(number) for number in file.read_text().split()]
    assert all(map(is_alive, numbers))
    assert end_of(hook) == "--on-flip (sh) took longer than 0.3 s, and was ended"
    wait_until(lambda: not any(map(is_alive, numbers)))
    with pytest.raises(ChildProcessError):
        os.waitpid(numbers[0], os.WNOHANG)


def run_until(runner: HookRunner, is_over: Callable[[], bool]) -> str:
    """Tend until something is so; return the last problem."""
    problem = ""

    def tended() -> bool:
        nonlocal problem
        problem = runner.tend() or problem
        return is_over()

    wait_until(tended)
    return problem


def test_stragglers_are_told_one_run_at_a_time(tmp_path: Path) -> None:
    """What comes while one runs is told by the next one, all of it together; no name writes a line of its own."""
    file, gate = tmp_path / "told", tmp_path / "gate"
    waiting = "import os, time\nwhile not os.path.exists(sys.argv[2]): time.sleep(0.01)\n"
    runner = HookRunner(Hooks(on_straggler=(sys.executable, "-c", TELL + waiting, str(file), str(gate))))
    runner.straggler([b"job:1"], {"side": "targets"})
    run_until(runner, lambda: len(told(file)) == 1)
    for name in (b"job:2", b"job:3\nx", b"job:\xff", b"job:2"):
        runner.straggler([name], {"side": "targets"})
        assert runner.tend() == ""
    assert len(told(file)) == 1
    gate.touch()
    run_until(runner, lambda: len(told(file)) == 2)
    first, second = told(file)
    assert (first["LUAMIGRATE_EVENT"], first["LUAMIGRATE_NAMES"], first["LUAMIGRATE_COUNT"]) == (
        "straggler",
        "job:1",
        "1",
    )
    assert second["LUAMIGRATE_NAMES"] == "job:2\njob:3\\x0ax\njob:\\xff"
    assert (second["LUAMIGRATE_COUNT"], second["LUAMIGRATE_SIDE"]) == ("4", "targets")
    assert runner.close() == ""


def test_a_million_stragglers_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    """The variable stays as small as a system takes, and one name that is too long does not keep the others out."""
    file = tmp_path / "told"
    runner = HookRunner(Hooks(on_straggler=telling(file)))
    runner.straggler([b"x" * 10_000_000, *(b"job:%d" % number for number in range(1_000_000))], {})
    assert run_until(runner, lambda: len(told(file)) == 1) == ""
    (line,) = told(file)
    names = line["LUAMIGRATE_NAMES"].split("\n")
    assert (names[:2], len(names), line["LUAMIGRATE_COUNT"]) == (["job:0", "job:1"], hooks.MOST_NAMES - 1, "1000001")
    runner.straggler([b"\xff" * 3000 + b"%d" % number for number in range(100)], {})
    assert run_until(runner, lambda: len(told(file)) == 2) == ""
    assert 0 < len(told(file)[1]["LUAMIGRATE_NAMES"]) <= hooks.LONGEST_NAMES
    assert runner.close() == ""


def test_a_straggler_hook_that_fails_is_told_and_runs_again(tmp_path: Path) -> None:
    """For the next names."""
    file = tmp_path / "count"
    runner = HookRunner(Hooks(on_straggler=shell(f"echo x >> {shlex.quote(str(file))}; exit 1")))
    for count in (1, 2):
        runner.straggler([b"job:1"], {})
        assert run_until(runner, lambda: runner.is_idle) == "--on-straggler (sh) failed: exit code 1"
        assert len(file.read_text().split()) == count


def test_without_a_command_stragglers_are_not_kept() -> None:
    """Nothing grows."""
    runner = HookRunner(Hooks())
    runner.straggler([b"job:1"], {})
    assert (runner.tend(), runner.is_idle, runner.close()) == ("", True, "")


def test_at_the_end_the_last_stragglers_are_told(tmp_path: Path) -> None:
    """And what hangs is ended: nothing is left running."""
    file = tmp_path / "told"
    runner = HookRunner(Hooks(on_straggler=telling(file)))
    runner.straggler([b"job:1"], {})
    assert (runner.close(), told(file)[0]["LUAMIGRATE_NAMES"]) == ("", "job:1")


def test_at_the_end_what_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks of a flip too; and names for which there was no time are not told."""
    monkeypatch.setattr(hooks, "SECONDS_AT_END", 0.2)
    file = tmp_path / "numbers"
    command = shell(f"echo $$ >> {shlex.quote(str(file))}; exec sleep 600")
    runner = HookRunner(Hooks(on_flip=command, on_straggler=command))
    runner.begin(Event.FLIP, {})
    runner.straggler([b"job:1"], {})
    run_until(runner, lambda: file.exists() and len(file.read_text().split()) == 2)
    runner.straggler([b"job:2"], {})
    assert runner.close() == "--on-straggler (sh) was still running when the follow ended, and was ended"
    assert not any(is_alive(int(number)) for number in file.read_text().split())
