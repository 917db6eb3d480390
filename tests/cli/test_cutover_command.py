"""A cut-over as a user drives it: by control, by --cutover, with hooks, and what is there afterwards."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import pytest

from tests.cli.test_control import fill
from tests.clusters import wait_until
from tests.conftest import luamigrate
from tests.controlled import RULE, Controlled
from tests.instances import Instance
from tests.schemas import read_document, read_report

FLAG = "app:names"
FLIP = ("--flip", f"{FLAG}=new")
TELL = 'echo "$LUAMIGRATE_EVENT $LUAMIGRATE_WISH $LUAMIGRATE_SIDE $LUAMIGRATE_NAMES" >> {}; echo noise'
JOBS = 20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a place for a socket."""
    return tmp_path / "control.sock"


def telling(file: Path) -> str:
    """Return a command that writes what it is told to a file, and prints something."""
    return shlex.join(("sh", "-c", TELL.format(shlex.quote(str(file)))))


def told(file: Path) -> list[str]:
    """Return what such commands were told."""
    return [line.strip() for line in file.read_text().splitlines()] if file.exists() else []


def with_hooks(file: Path) -> tuple[str, ...]:
    """Return options that have each hook write to a file."""
    return tuple(word for event in ("cutover", "flip", "straggler") for word in (f"--on-{event}", telling(file)))


@pytest.mark.oldest_and_newest
@pytest.mark.single_server("what a hook and a word do is the same in a cluster")
def test_there_and_back_and_finished_by_control(server: Instance, path: Path, tmp_path: Path) -> None:
    """Each word is answered when it is done; then rollback with the sides exchanged deletes the old names."""
    fill(server, JOBS)
    file = tmp_path / "told"
    follow = Controlled(server.url, path, "follow", *FLIP, *with_hooks(file), "--json")
    follow.wait_until(in_step=True)
    for word in ("back", "finish"):
        assert "error" in follow.ask(word)
    answer = follow.ask("cutover")
    assert (answer["done"], answer["side"], answer["phase"]) == (True, "targets", "mirroring back")
    assert answer["freeze_ms"] > 0
    assert answer["steps"]
    assert server.client.get(FLAG) == b"new"
    assert "error" in follow.ask("cutover")
    server.client.hset("step:1", "b", "2")
    wait_until(lambda: server.client.hget("job:1", "b") == b"2")
    answer = follow.ask("back")
    assert (answer["done"], answer["side"], answer["phase"]) == (True, "sources", "following")
    assert server.client.get(FLAG) is None
    assert follow.ask("cutover")["done"] is True
    wait_until(lambda: len(told(file)) == 6)
    assert sorted(told(file)) == sorted(
        [
            *("cutover cutover sources", "flip cutover targets", "cutover back targets", "flip back sources"),
            *("cutover cutover sources", "flip cutover targets"),
        ]
    )
    answer = follow.ask("finish")
    assert (answer["done"], answer["side"], answer["phase"]) == (True, "targets", "finished")
    code, out, err = follow.end()
    followed = read_document(out)["followed"]
    assert (code, followed["side"], followed["phase"], followed["stragglers"]) == (0, "targets", "finished", 0)
    assert "FINISHED: the application writes the new names." in err
    assert "Writes frozen for" in err
    assert err.count("noise") == 6
    exchanged = luamigrate("rollback", "--map", "step:*=job:*", "--yes", url=server.url)
    assert (exchanged.code, server.client.exists("job:1"), server.client.hget("step:1", "b")) == (0, 0, b"2")


@pytest.mark.oldest_and_newest
@pytest.mark.single_server("what a hook and a word do is the same in a cluster")
def test_all_of_it_at_once_for_a_script(server: Instance) -> None:
    """It cuts over as soon as it is in step, watches, and ends with 0."""
    fill(server, JOBS)
    result = luamigrate("follow", *RULE, *FLIP, "--cutover", "--watch", "0.2", "--json", url=server.url)
    followed = result.document["followed"]
    assert (result.code, followed["side"], followed["phase"]) == (0, "targets", "finished")
    assert server.client.get(FLAG) == b"new"
    assert not list(server.client.scan_iter("luamigrate:cutover*"))


@pytest.mark.single_server("what a hook and a word do is the same in a cluster")
def test_a_hook_that_fails_cancels_it(any_server: Instance, path: Path) -> None:
    """Nothing is flipped, whoever waits is told why, and the follow goes on."""
    fill(any_server, JOBS)
    follow = Controlled(any_server.url, path, "follow", *FLIP, "--on-cutover", "sh -c 'exit 7'")
    follow.wait_until(in_step=True)
    assert "--on-cutover (sh) failed: exit code 7" in follow.ask("cutover")["error"]
    assert not any_server.client.exists(FLAG)
    assert follow.wait_until(in_step=True)["side"] == "sources"
    follow.ask("stop")
    code, out, _ = follow.end()
    assert code == 0
    assert "--on-cutover (sh) failed: exit code 7" in out


@pytest.mark.single_server("what a hook and a word do is the same in a cluster")
def test_a_straggler_is_named_to_everybody(any_server: Instance, path: Path, tmp_path: Path) -> None:
    """On the screen, in the report, to the hook, by control, and by exit code 3."""
    fill(any_server, JOBS)
    file, report = tmp_path / "told", tmp_path / "report"
    follow = Controlled(any_server.url, path, "follow", *FLIP, "--on-straggler", telling(file), "--report", str(report))
    follow.wait_until(in_step=True)
    assert follow.ask("cutover")["done"] is True
    any_server.client.hset("job:3", "late", "1")
    follow.wait_until(stragglers=1)
    wait_until(lambda: told(file) == ["straggler  targets job:3"])
    assert any_server.client.hget("job:3", "late") == b"1"
    shown = luamigrate("control", str(path), "status").out
    assert "writes        the application writes the new names\n" in shown
    assert "1 stragglers" in shown
    follow.ask("stop")
    code, out, _ = follow.end()
    assert code == 3
    assert "straggler job:3 -> step:3  " in out
    assert "1 straggler: old names that somebody has written" in out
    (line,) = read_report(report.read_text())
    assert (line["word"], line["source"], line["target"]) == ("straggler", "job:3", "step:3")


@pytest.mark.single_server("what a hook and a word do is the same in a cluster")
def test_after_a_flip_ctrl_c_says_what_is_to_be_done(any_server: Instance, path: Path) -> None:
    """The same command goes on with the other side, and others are refused until then."""
    fill(any_server, JOBS)
    follow = Controlled(any_server.url, path, "follow", *FLIP)
    follow.wait_until(in_step=True)
    assert follow.ask("cutover")["done"] is True
    follow.wait_until(in_step=True)
    follow.process.send_signal(signal.SIGINT)
    code, out, _ = follow.end()
    assert code == 0
    assert "is in its old name too." in out
    assert "The application writes the new names, and nobody mirrors them to the old ones any more." in out
    assert luamigrate("run", *RULE, url=any_server.url).code == 4
    again = Controlled(any_server.url, path, "follow", *FLIP)
    again.wait_until(in_step=True, side="targets", phase="mirroring back")
    assert again.ask("back")["done"] is True
    assert not any_server.client.exists(FLAG)
    again.ask("stop")
    assert again.end()[0] == 0
