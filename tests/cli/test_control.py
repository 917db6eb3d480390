"""`--control` and `luamigrate control`: words that a run or a follow obeys, and what it says of itself."""

from __future__ import annotations

import json
import signal
import socket
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.clusters import wait_until
from tests.conftest import luamigrate
from tests.controlled import HARDLY, RULE, Controlled, answer_to
from tests.instances import Instance
from tests.migration.test_paused import size_at_rest
from tests.schemas import read_answer, read_document

JOBS = 300


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a place for a socket."""
    return tmp_path / "control.sock"


def fill(server: Instance, count: int = JOBS) -> None:
    """Write sources."""
    pipeline = server.client.pipeline(transaction=False)
    for number in range(count):
        pipeline.hset(f"job:{number}", "a", number)
    pipeline.execute()


def copies(server: Instance) -> int:
    """Count the targets."""
    return sum(1 for _ in server.client.scan_iter("step:*", count=1000))


def test_a_run_says_how_it_stands_and_goes_by_the_rate_that_is_set(any_server: Instance, path: Path) -> None:
    """One that would never come to its end does so once its rate is lifted; then the socket is gone."""
    fill(any_server)
    run = Controlled(any_server.url, path, "run", *HARDLY, "--json")
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    wait_until(lambda: copies(any_server) > 0)
    status = run.ask("status")
    assert status["command"] == "run"
    assert status["rule"] == {"source": "job:*", "target": "step:*"}
    assert status["totals"]["found"] < JOBS
    assert status["limits"] == {"max_pause": 5, "max_rate": 1}
    assert (status["paused"], status["stopping"], status["waiting_for"]) == (False, False, None)
    assert run.ask("set max-pause=2")["limits"] == {"max_pause": 2, "max_rate": 1}
    assert run.ask("set max-rate=none")["done"] is True
    code, out, err = run.end()
    assert (code, read_document(out)["totals"]) == (0, {"found": JOBS, "copied": JOBS, "ignored": 0})
    assert "by control: max-rate=none" in err
    assert not path.exists()


def test_pausing_is_the_same_by_control_and_by_signal(any_server: Instance, path: Path) -> None:
    """What one of them has paused the other one resumes, and the status says why nothing is copied."""
    fill(any_server)
    run = Controlled(any_server.url, path, "run", "--max-rate", "40", "--batch-size", "1")
    wait_until(lambda: copies(any_server) > 0)
    assert run.ask("pause")["paused"] is True
    size = size_at_rest(any_server)
    assert "control" in run.wait_until(paused=True, waiting_for=run.ask("status")["waiting_for"])["waiting_for"]
    run.process.send_signal(signal.SIGUSR1)
    run.wait_until(paused=False, waiting_for=None)
    wait_until(lambda: any_server.client.dbsize() > size)
    run.process.send_signal(signal.SIGUSR1)
    run.wait_until(paused=True)
    size = size_at_rest(any_server)
    assert size < 2 * JOBS
    assert run.ask("pause")["done"] is True
    assert run.ask("resume")["paused"] is False
    run.ask("set max-rate=none")
    assert run.end()[0] == 0
    assert copies(any_server) == JOBS


def test_a_run_that_is_told_to_stop_ends_as_with_a_signal(any_server: Instance, path: Path) -> None:
    """Even while it is paused: exit 130, the summary counts what is there, the same command goes on."""
    fill(any_server)
    run = Controlled(any_server.url, path, "run", "--max-rate", "40", "--json")
    wait_until(lambda: copies(any_server) > 0)
    run.ask("pause")
    assert run.ask("stop")["stopping"] is True
    code, out, _ = run.end()
    document = read_document(out)
    assert (code, document["interrupted"], document["totals"]["copied"]) == (130, True, copies(any_server))
    assert not path.exists()
    assert luamigrate("run", *RULE, url=any_server.url).code == 0


@pytest.mark.single_server("the one process is stopped")
def test_after_stop_a_signal_is_the_second_one(any_server: Instance, path: Path) -> None:
    """It ends the work at once, though the server does not answer; the socket is gone all the same."""
    fill(any_server)
    run = Controlled(any_server.url, path, "run", *HARDLY)
    wait_until(lambda: copies(any_server) > 0)
    any_server.process.send_signal(signal.SIGSTOP)
    try:
        run.ask("stop")
        with suppress(OSError):  # it has come to an end already
            run.ask("stop")
        run.process.send_signal(signal.SIGINT)
        assert run.end()[0] == 130
    finally:
        any_server.process.send_signal(signal.SIGCONT)
    assert not path.exists()


def test_a_follow_says_how_it_stands_and_is_controlled(any_server: Instance, path: Path) -> None:
    """Its status has the figures of its summary; it is paused, changed and ended in good order."""
    fill(any_server)
    follow = Controlled(any_server.url, path, "follow", *HARDLY, "--json")
    follow.wait_until(phase="checking", in_step=False)
    assert follow.ask("set max-rate=none")["limits"]["max_rate"] is None
    status = follow.wait_until(in_step=True, phase="following")
    assert status["copies"] == copies(any_server) == JOBS
    assert (status["stragglers"], status["freeze_ms"], status["foreign"]) == (0, None, 0)
    assert follow.ask("set max-lag-ms=7.5")["limits"] == {"max_pause": 5, "max_rate": None, "max_lag_ms": 7.5}
    follow.ask("pause")
    any_server.client.hset("job:new", "a", "1")
    status = follow.wait_until(paused=True, dirty=1, in_step=False)
    assert not any_server.client.exists("step:new")
    follow.process.send_signal(signal.SIGUSR1)
    follow.wait_until(paused=False, in_step=True)
    assert any_server.client.exists("step:new")
    assert follow.ask("stop")["done"] is True
    code, out, _ = follow.end()
    assert (code, read_document(out)["followed"]["copies"]) == (0, JOBS + 1)
    assert not path.exists()


BAD = {
    "fly": "'fly' is no word; there are status, pause, resume, set, stop",
    "": "'' is no word",
    "status now": "is no word",
    "cutover": "'cutover' is for a follow, and this is a run",
    "finish": "is for a follow",
    "set": "set needs NAME=VALUE",
    "set max-rate=1 max-pause=1": "set needs NAME=VALUE",
    "set batch-size=1": "'batch-size' cannot be set; what can is max-pause, max-rate",
    "set max-lag-ms=1": "cannot be set",
    "set max-pause=0": "the longest pause must be from 0.1 to 60000.0, not 0.0",
    "set max-pause=nan": "must be from",
    "set max-pause=none": "'none' is no number",
    "set max-rate=inf": "must be from",
    "set max-rate": "'' is no number",
    "set max-rate=-1": "the rate must be from 0.1, not -1.0",
    "set max-rate=\x1b[2J": r"'\x1b[2J' is no number",
    "x" * 999: "…' is no word",
}


def test_what_makes_no_sense_is_answered_with_an_error(any_server: Instance, path: Path) -> None:
    """It changes nothing, one connection takes them all, and names of limits are those of the command."""
    fill(any_server)
    run = Controlled(any_server.url, path, "run", *HARDLY)
    limits = run.ask("status")["limits"]
    with run.connected() as client, client.makefile("rb") as answers:
        for line, words in BAD.items():
            client.sendall(line.encode() + b"\n")
            answer = read_answer(answers.readline())
            assert words in answer.get("error", ""), line
        client.sendall(b"\xff\xfe\n" + b"status\n" * 3)
        assert r"'\xff\xfe' is no word" in read_answer(answers.readline())["error"]
        for _ in range(3):
            assert read_answer(answers.readline())["limits"] == limits
    run.ask("stop")
    assert run.end()[0] == 130


def test_hostile_clients_disturb_neither_the_work_nor_each_other(any_server: Instance, path: Path) -> None:
    """Silent ones, half lines, a megabyte, askers that never read: all is copied, and others are answered."""
    fill(any_server, 3000)
    run = Controlled(any_server.url, path, "run", "--max-rate", "2000", "--json")
    clients = [run.connected() for _ in range(40)]
    clients[-1].sendall(b"set max-rate=0.1")
    clients[-1].close()
    for client in clients[30:-1]:
        client.sendall(b"stop")  # no line
    with run.connected() as talker:
        talker.settimeout(5)
        with suppress(OSError):  # it is sent away before it has said all
            talker.sendall(b"x" * 1_000_000)
        with suppress(ConnectionResetError):
            assert answer_to(talker) == {"error": "a line has 1,000 bytes at most"}
    deaf = run.connected()
    flood = threading.Thread(target=lambda: _send_for_ever(deaf), daemon=True)
    flood.start()
    status = run.ask("status")
    assert (status["stopping"], status["limits"]["max_rate"]) == (False, 2000)
    code, out, _ = run.end()
    assert (code, read_document(out)["totals"]["copied"]) == (0, 3000)
    flood.join()
    for client in (*clients, deaf):
        client.close()


def _send_for_ever(client: socket.socket) -> None:
    with suppress(OSError):
        while True:
            client.sendall(b"status\n" * 100)


def test_the_command_prints_a_block_or_the_document(any_server: Instance, path: Path) -> None:
    """For people a few lines, for programs the answer as it is."""
    fill(any_server)
    follow = Controlled(any_server.url, path, "follow")
    follow.wait_until(in_step=True)
    shown = luamigrate("control", str(path), "status")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("follow: at work\n  state         following, in step\n")
    assert f"0 changes, {JOBS} copies, 0 removed" in shown.out
    assert luamigrate("control", str(path), "pause").out.startswith("follow: paused\n")
    assert json.loads(luamigrate("control", str(path), "resume", "--json").out)["done"] is True
    wrong = luamigrate("control", str(path), "set", "max-rate=-3")
    assert (wrong.code, wrong.out, wrong.err) == (4, "", "luamigrate: the rate must be from 0.1, not -3.0\n")
    wrong = luamigrate("control", str(path), "set", "x=1", "--json")
    assert (wrong.code, wrong.err) == (4, "")
    assert "cannot be set" in json.loads(wrong.out)["error"]
    follow.ask("stop")
    assert follow.end()[0] == 0
    run = Controlled(any_server.url, path, "run", *HARDLY)
    run.wait_until(rule={"source": "job:*", "target": "step:*"})
    shown = luamigrate("control", str(path), "status")
    assert shown.out.startswith("run: at work\n  rule          job:* -> step:*\n")
    assert "limits        max-pause 5, max-rate 1\n" in shown.out
    run.process.send_signal(signal.SIGTERM)
    assert run.end()[0] == 130


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fly",), "'fly' is no word for control"),
        (("set",), "control takes NAME=VALUE after set"),
        (("set", "max-rate"), "control takes NAME=VALUE after set"),
        (("set", "a=1\nstop"), "control takes NAME=VALUE after set"),
        (("status", "now"), "and nothing after other words"),
        ((), "Missing argument"),
    ],
    ids=str,
)
def test_a_wrong_word_is_a_usage_error(path: Path, arguments: tuple[str, ...], words: str) -> None:
    """Before anybody is asked."""
    result = luamigrate("control", str(path), *arguments)
    assert (result.code, result.out) == (2, "")
    assert words in result.err


def test_where_nobody_answers_the_exit_code_is_1(path: Path, tmp_path: Path) -> None:
    """No socket, no socket but a file, one that is left, and one whose answers make no sense."""
    assert luamigrate("control", str(tmp_path / ("x" * 100)), "status").code == 2
    missing = luamigrate("control", str(path), "status")
    assert (missing.code, missing.err) == (1, f"luamigrate: nobody answers at {path}: No such file or directory\n")
    file = tmp_path / "file"
    file.write_text("")
    assert "nobody answers" in luamigrate("control", str(file), "status").err
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert luamigrate("control", str(path), "status").err.endswith("Connection refused\n")


@pytest.mark.parametrize("answer", [b"", b"{}\n", b"[]\n", b"null\n", b"\xff\n", b'{"command": "run"}\n', b"[" * 9999])
def test_an_answer_that_makes_no_sense_is_told_as_such(path: Path, answer: bytes) -> None:
    """What listens there is another program."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def reply() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(100)
                client.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        result = luamigrate("control", str(path), "status")
        thread.join()
    assert (result.code, result.out) == (1, "")
    assert result.err == f"luamigrate: what listens at {path} does not answer as luamigrate does\n"
