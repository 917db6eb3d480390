"""`luamigrate rollback` on a terminal: it asks first, and only yes means yes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from luamigrate.cli.options import environment
from tests.cli.test_bad_input import assert_one_line
from tests.conftest import SHORT, luamigrate
from tests.instances import Instance
from tests.migration.test_run import HASHES, fill
from tests.processes import of_this_test


def test_without_a_terminal_it_refuses(server: Instance) -> None:
    """Exit 2, and it says what to type; a dry run needs no permission."""
    fill(server.client, jobs=5)
    luamigrate("run", url=server.url)
    digest = server.digest()
    with pytest.MonkeyPatch.context() as patch, Path(os.devnull).open(encoding="utf-8") as nothing:
        patch.setattr(sys, "stdin", nothing)
        assert_one_line(luamigrate("rollback", url=server.url), 2, "--yes", "terminal")
        assert luamigrate("rollback", "--dry-run", url=server.url).code == 0
    assert server.digest() == digest


def answered(
    server: Instance, answer: bytes | signal.Signals, *options: str, out: int | None = None
) -> tuple[int, str]:
    """Roll back on a terminal and give an answer, if it asks; return exit code and what was shown."""
    controller, terminal = pty.openpty()
    command = (sys.executable, "-m", "luamigrate", "rollback", *options)
    shown: list[bytes] = []
    asked = threading.Event()

    def watch() -> None:
        while chunk := read(controller):
            shown.append(chunk)
            if b"[y/N]" in b"".join(shown):
                asked.set()

    process = subprocess.Popen(
        command,
        env=environment(REDIS_URL=server.url, SETTLE=SHORT),
        stdin=terminal,
        stdout=out or terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=take_terminal,  # noqa: PLW1509  # no other thread holds a lock that it takes
    )
    of_this_test(process)
    os.close(terminal)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = None
    while code is None:
        # A Ctrl-C right behind the prompt may come before anybody listens: people press it again.
        if asked.wait(0.1):
            if isinstance(answer, bytes):
                os.write(controller, answer)
            else:
                process.send_signal(answer)
        with suppress(subprocess.TimeoutExpired):
            code = process.wait(3 if asked.is_set() else 0.1)
    watcher.join(5)
    os.close(controller)
    return code, b"".join(shown).decode()


def take_terminal() -> None:
    """Make standard input the terminal that Ctrl-C comes from, and hear it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def read(descriptor: int) -> bytes:
    """Read from a terminal; nothing once the other side has closed it."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 130), (b"\n", 130), (b"\x03", 130), (b"\x04", 130)])
def test_it_asks_with_the_numbers_and_no_means_no(any_server: Instance, answer: bytes, code: int) -> None:
    """No, nothing, Ctrl-C, and the end of input."""
    fill(any_server.client, jobs=5)
    luamigrate("run", url=any_server.url)
    any_server.client.hset("step:1", "status", "done")
    digest = any_server.digest()
    ended, shown = answered(any_server, answer)
    assert ended == code
    place = any_server.url + (", 3 primaries" if any_server.mode == "cluster" else "")
    names = "step:*, steps:active, steps:completed, steps:failed, steps:pending"
    question = f"Delete 8 targets ({names}) at {place}, each equal to its source, whoever made it? 1 would be kept."
    assert f"{question} Nobody must be reading these names any more." in " ".join(shown.split())
    assert "nothing was deleted" in shown
    assert "Traceback" not in shown
    assert any_server.digest() == digest


def test_yes_means_yes(any_server: Instance) -> None:
    """The targets are compared again as they are deleted."""
    fill(any_server.client, jobs=5)
    digest = any_server.digest()
    luamigrate("run", url=any_server.url)
    code, shown = answered(any_server, b"y\n")
    assert code == 0
    assert "Targets deleted                    9" in shown
    assert any_server.digest() == digest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_the_prompt_means_no(any_server: Instance, number: signal.Signals) -> None:
    """Exit 130 and nothing is deleted."""
    fill(any_server.client, jobs=5)
    luamigrate("run", url=any_server.url)
    digest = any_server.digest()
    ended, shown = answered(any_server, number)
    assert ended == 130
    assert "nothing was deleted" in shown
    assert any_server.digest() == digest


def test_where_there_is_nothing_to_delete_it_does_not_ask(any_server: Instance, tmp_path: Path) -> None:
    """With the exit code, the report and the extra targets of a rollback that does not ask."""
    any_server.client.hset("job:1", "a", "1")
    any_server.client.hset("job:2", "a", "1")
    any_server.client.hset("step:2", "a", "2")
    any_server.client.hset("step:orphan", "a", "1")
    report = tmp_path / "report"
    outcomes = []
    for yes in ((), ("--yes",)):
        with (tmp_path / "out").open("w+", encoding="utf-8") as out:
            code, _ = answered(
                any_server, b"", *HASHES, *yes, "--extra", "--json", "--report", str(report), out=out.fileno()
            )
            out.seek(0)
            outcomes.append((code, json.load(out)["totals"], sorted(report.read_text().splitlines())))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][:2] == (3, {"found": 2, "missing": 1, "kept": 1, "extra": 1, "ignored": 0})
    assert len(outcomes[0][2]) == 2


def test_the_report_is_of_what_was_done(any_server: Instance, tmp_path: Path) -> None:
    """After no, what the dry run found; after yes, what the rollback did."""
    file = tmp_path / "report"
    fill(any_server.client, jobs=5)
    luamigrate("run", url=any_server.url)
    any_server.client.hset("step:1", "status", "done")
    for answer, word in ((b"n\n", "same"), (b"y\n", "removed")):
        answered(any_server, answer, "--report", str(file), "--report-all")
        words = Counter(json.loads(line)["word"] for line in file.read_text().splitlines())
        assert words == {word: 8, "kept": 1}


@pytest.mark.parametrize(("answer", "totals"), [(b"y\n", "removed"), (b"n\n", "same")])
def test_there_is_one_document_whatever_the_answer(
    any_server: Instance, tmp_path: Path, answer: bytes, totals: str
) -> None:
    """On standard output; question and human lines are elsewhere."""
    fill(any_server.client, jobs=5)
    luamigrate("run", url=any_server.url)
    with (tmp_path / "out").open("w+", encoding="utf-8") as out:
        answered(any_server, answer, "--json", out=out.fileno())
        out.seek(0)
        document = json.load(out)
    assert document["totals"] == {"found": 9, totals: 9, "ignored": 0}
    assert (document["dry_run"], document["interrupted"]) == (totals == "same", totals == "same")
