"""The socket of `--control`: where it may be, and that nothing is left of it."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from luamigrate.cli import control_client, control_socket
from tests.cli.test_control import copies, fill
from tests.clusters import wait_until
from tests.conftest import luamigrate
from tests.controlled import HARDLY, RULE, Controlled, answer_to
from tests.instances import Instance
from tests.preflight.test_preflight import busy_client

NOBODY = "unix:///tmp/luamigrate-nobody.sock"
"""Where no server is."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a place for a socket."""
    return tmp_path / "control.sock"


def leave_socket(path: Path) -> None:
    """Leave a socket at which nobody listens."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))


def refusal(server: Instance, path: Path | str, command: str = "run") -> str:
    """Return why a path is refused: exit code 2, and nothing is done."""
    result = luamigrate(command, *RULE, "--control", str(path), url=server.url)
    assert (result.code, result.out, copies(server)) == (2, "", 0)
    return result.err


@pytest.mark.parametrize("command", ["run", "follow"])
def test_whatever_else_is_at_the_path_is_refused_and_left(any_server: Instance, path: Path, command: str) -> None:
    """Files, folders and links, also those that lead nowhere or to a socket of ours."""
    fill(any_server, 3)
    path.write_text("mine")
    words = f"luamigrate: --control: {path} is there, and is no socket of this user\n"
    assert refusal(any_server, path, command) == words
    assert path.read_text() == "mine"
    leave_socket(path.parent / "left")
    for target in ("nowhere", "left"):
        path.unlink()
        path.symlink_to(path.parent / target)
        assert refusal(any_server, path, command) == words
        assert path.is_symlink()
    assert "is no socket of this user" in refusal(any_server, path.parent, command)
    os.mkfifo(path.parent / "pipe")
    assert "is no socket of this user" in refusal(any_server, path.parent / "pipe", command)


def test_a_path_that_cannot_be_listened_at_is_refused(any_server: Instance, tmp_path: Path) -> None:
    """It is too long, or its folder is not there, or none."""
    fill(any_server, 3)
    assert refusal(any_server, "x" * 101) == "luamigrate: --control: the path of a socket has 100 bytes at most\n"
    nowhere = Path("/proc/no-such-folder/c")
    assert refusal(any_server, nowhere).startswith(f"luamigrate: --control: cannot listen at {nowhere}: No such")
    (tmp_path / "file").write_text("")
    assert "cannot listen at" in refusal(any_server, tmp_path / "file" / "c")
    empty = luamigrate("run", *RULE, url=any_server.url, env={"LUAMIGRATE_CONTROL": ""})
    assert (empty.code, empty.err) == (
        2,
        "luamigrate: LUAMIGRATE_CONTROL is set but blank: give it a value or unset it\n",
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a socket somebody else's")
def test_a_socket_of_somebody_else_is_refused(any_server: Instance, path: Path) -> None:
    """Also where nobody listens at it."""
    leave_socket(path)
    os.chown(path, 12345, -1)
    assert "is no socket of this user" in refusal(any_server, path)
    assert path.is_socket()


def test_one_that_is_alive_is_refused_and_not_disturbed(any_server: Instance, path: Path, tmp_path: Path) -> None:
    """Nor is the report emptied that the first one is writing."""
    fill(any_server)
    report = tmp_path / "report"
    first = Controlled(any_server.url, path, "run", *HARDLY)
    report.write_text("what the first one has found\n")
    second = luamigrate("run", *RULE, "--report", str(report), "--control", str(path), url=any_server.url)
    assert (second.code, second.err) == (2, f"luamigrate: --control: somebody listens at {path} already\n")
    assert report.read_text() == "what the first one has found\n"
    assert first.ask("stop")["done"] is True
    assert first.end()[0] == 130


def test_one_that_hangs_is_alive(any_server: Instance, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody takes its place, and who speaks to it is not kept waiting for ever."""
    monkeypatch.setattr(control_client, "SECONDS_TO_ANSWER", 0.2)
    fill(any_server)
    hanging = Controlled(any_server.url, path, "run", *HARDLY)
    wait_until(lambda: copies(any_server) > 0)
    hanging.process.send_signal(signal.SIGSTOP)
    silent = luamigrate("control", str(path), "status")
    assert (silent.code, silent.err) == (1, f"luamigrate: what listens at {path} gives no answer\n")
    second = luamigrate("run", *RULE, "--control", str(path), url=any_server.url)
    assert (second.code, second.err) == (2, f"luamigrate: --control: somebody listens at {path} already\n")
    hanging.process.send_signal(signal.SIGCONT)
    assert hanging.ask("stop")["done"] is True
    assert hanging.end()[0] == 130


def test_one_that_was_left_by_kill_9_is_replaced(any_server: Instance, path: Path) -> None:
    """Nobody else could have removed it."""
    fill(any_server)
    killed = Controlled(any_server.url, path, "run", *HARDLY)
    killed.process.kill()
    killed.process.wait()
    assert path.is_socket()
    assert luamigrate("control", str(path), "status").code == 1
    again = Controlled(any_server.url, path, "run")
    assert again.end()[0] == 0
    assert not path.exists()


@pytest.mark.parametrize("command", ["run", "follow"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_is_gone_after_a_signal(any_server: Instance, path: Path, command: str, number: signal.Signals) -> None:
    """Whichever ends the work, in the middle of it."""
    fill(any_server)
    working = Controlled(any_server.url, path, command, *(HARDLY if command == "run" else ()))
    wait_until(lambda: copies(any_server) > 0)
    working.process.send_signal(number)
    assert working.end()[0] in (130, 0, 3)
    assert not path.exists()


@pytest.mark.parametrize("command", ["run", "follow"])
def test_it_is_gone_after_an_error(any_server: Instance, path: Path, command: str) -> None:
    """Before there is a connection, and after a check has said no."""
    assert luamigrate(command, *RULE, "--control", str(path), url=NOBODY).code == 1
    assert not path.exists()
    any_server.client.rpush("job:waits", "1")
    with busy_client(any_server, "BLPOP", "step:waits", 0):
        assert luamigrate(command, *RULE, "--control", str(path), url=any_server.url).code == 4
    assert not path.exists()


def test_one_that_somebody_has_put_in_its_place_is_left(any_server: Instance, path: Path) -> None:
    """The path may be another one's by now."""
    fill(any_server)
    run = Controlled(any_server.url, path, "run", *HARDLY)
    path.unlink()
    leave_socket(path)
    run.process.send_signal(signal.SIGINT)
    assert run.end()[0] == 130
    assert path.is_socket()


def test_it_answers_while_the_server_does_not(path: Path) -> None:
    """How it stands, and what it waits for: nobody is there yet."""
    waiting = Controlled(NOBODY, path, "run", "--patience", "60")
    status = waiting.wait_until(rule=None)
    wait_until(lambda: "waiting for the server" in (waiting.ask("status")["waiting_for"] or ""))
    assert status["totals"] == {"found": 0, "ignored": 0}
    wait_until(lambda: waiting.ask("status")["age_ms"] >= control_client.OLD_MS)
    assert " s ago\n" in luamigrate("control", str(path), "status").out
    assert waiting.ask("stop")["stopping"] is True
    assert waiting.end()[0] == 130
    assert not path.exists()


def test_nobody_who_does_not_read_is_waited_for() -> None:
    """What does not fit into the buffers of the system is not sent, and that is told."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client = control_socket._Client(ours)
        taken = [client.tell({"text": "x" * 1000}) for _ in range(200)]
    assert (taken[0], taken[-1]) == (True, False)


def test_the_one_that_has_been_silent_for_longest_makes_room(path: Path) -> None:
    """There are never more clients than so many, and whoever speaks is among them."""
    with control_socket.listening(path, lambda line: {"error": line.decode()}):
        clients = [socket.socket(socket.AF_UNIX) for _ in range(3 * control_socket.MOST_CLIENTS)]
        first, *others = clients
        for client in clients:
            client.settimeout(20)
            client.connect(str(path))
            first.sendall(b"again\n")
            assert answer_to(first) == {"error": "again"}
        last = others[-1]
        last.sendall(b"me too\n")
        assert answer_to(last) == {"error": "me too"}
        assert others[0].recv(1) == b""
        for client in clients:
            client.close()
