"""A first connection is waited for: what is not there yet, is loading, or is being replaced; and nothing for ever."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from luamigrate import Control, Error, Waiting, connect
from luamigrate.cli.embedded import free_port
from luamigrate.cli.options import environment
from luamigrate.migration.execute import BEGINNINGS
from luamigrate.server.connection import ReconnectPolicy
from luamigrate.server.slots import at_one_moment
from tests import binaries
from tests.cli.test_bad_input import assert_one_line
from tests.conftest import luamigrate
from tests.instances import Instance, start
from tests.liar import Lie, encoded, lying
from tests.migration.test_run import HASHES, fill
from tests.schemas import read_document

ANY_NAME = next(name for name in reversed(binaries.NAMES) if isinstance(binaries.find(name), Path))
COMMANDS = (("run",), ("run", "--dry-run"), ("verify",), ("rollback", "--yes"), ("check",))
HANGS_UP = Lie(b"", hangs_up=True)


@contextmanager
def started(*arguments: str, env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run the command line in a process of its own, which heeds Ctrl-C; end it, if nobody has."""
    script = (
        "import os, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\nos.execv(sys.executable, sys.argv[1:])\n"
    )
    command = (sys.executable, "-c", script, sys.executable, "-m", "luamigrate", *arguments)
    process = subprocess.Popen(
        command,
        env=environment(**env) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line_about_waiting(process: subprocess.Popen[str]) -> str:
    """Read what it prints until it says what it waits for."""
    assert process.stdout
    return next(line for line in process.stdout if "waiting for" in line)


@pytest.mark.parametrize("command", COMMANDS)
def test_nobody_there_is_said_at_once_and_ctrl_c_ends_the_waiting(command: tuple[str, ...]) -> None:
    """The line says what to check and how long it waits: most often the port is wrong. Exit 130."""
    url = f"redis://127.0.0.1:{free_port()}"
    with started(*command, env={"REDIS_URL": url}) as process:
        line = first_line_about_waiting(process)
        assert f"waiting for the server: cannot connect to the server at {url}: " in line
        assert "Connection refused; is it there, and the URL right?; 5 s left" in line
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")


@pytest.mark.parametrize(
    ("options", "env", "seconds"),
    [(("--patience", "2"), {}, 2), (("--patience", "40"), {}, 40), ((), {"PATIENCE": "50"}, 50)],
)
def test_nobody_there_is_waited_for_as_long_as_was_asked_for(
    options: tuple[str, ...], env: dict[str, str], seconds: int
) -> None:
    """An option or the environment says so, be it shorter or longer."""
    with started("check", *options, env={"REDIS_URL": f"redis://127.0.0.1:{free_port()}", **env}) as process:
        assert f"; {seconds} s left" in first_line_about_waiting(process)


def test_a_document_tells_that_waiting_was_ended(tmp_path: Path) -> None:
    """Of check too, and it is waited for a socket that is not there as for a port."""
    for command in ("check", "run"):
        with started(command, "--json", "--quiet", env={"REDIS_URL": f"unix://{tmp_path}/none"}) as process:
            assert process.stderr
            next(line for line in process.stderr if "waiting for the server: cannot connect" in line)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=20)
        document = read_document(out)
        assert (document["interrupted"], document["exit_code"], process.returncode) == (True, 130, 130)


def test_nobody_who_comes_is_given_up() -> None:
    """Exit 1 with the same line as ever, once the time is over."""
    result = luamigrate("run", "--patience", "0.2", url=f"redis://127.0.0.1:{free_port()}")
    assert_one_line(result, 1, "cannot connect", "Connection refused")
    assert result.out.count("waiting for the server: cannot connect") == 1


def test_what_will_not_pass_is_not_waited_for(any_server: Instance) -> None:
    """A name that leads nowhere, a wrong password, what is no server."""
    waiting = Waiting(patience=60, for_nobody=60, control=Control(tell=pytest.fail))
    for url in ("redis://no-such-host.invalid", any_server.url_for("nobody", "wrong")):
        with pytest.raises(Error):
            connect(url, waiting=waiting)


def test_a_server_that_comes_later_is_reached(tmp_path: Path) -> None:
    """Whoever starts both at once need not know which is up first."""
    told: list[str] = []
    with ExitStack() as stack:
        link = tmp_path / "s"

        def come(text: str) -> None:
            if not told:
                link.symlink_to(stack.enter_context(start(ANY_NAME)).url.removeprefix("unix://"))
            told.append(text)

        with connect(f"unix://{link}", waiting=Waiting(for_nobody=20, control=Control(tell=come))) as server:
            assert server.identity.role == "master"
    assert told[0].startswith(f"waiting for the server: cannot connect to the server at unix://{link}")


@pytest.mark.single_server("the liar stands before one server")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "text",
    [
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    ],
)
def test_a_server_that_is_not_ready_is_waited_for(any_server: Instance, command: tuple[str, ...], text: str) -> None:
    """For --patience, also where that is the default."""
    fill(any_server.client, jobs=3)
    refusals = [text] * 3

    def lie(request: list[bytes]) -> Lie | None:
        return Lie(encoded(Exception(refusals.pop()))) if request[0] == b"PING" and refusals else None

    with lying(any_server.url.removeprefix("unix://"), lie) as url:
        result = luamigrate(*command, "--json", url=url)
    assert result.document["error"] is None
    assert result.err.count("waiting for the server: ") == 1
    assert not refusals


@pytest.mark.single_server("the liar stands before one server")
def test_connecting_from_python_waits_only_where_it_is_told_to(any_server: Instance) -> None:
    """Otherwise whoever calls decides what to do about it."""

    def lie(request: list[bytes]) -> Lie | None:
        return Lie(encoded(Exception("LOADING it is loading"))) if request[0] == b"PING" else None

    with lying(any_server.url.removeprefix("unix://"), lie) as url:
        for waiting in (Waiting(), Waiting(patience=60, control=Control(stop=lambda: True, tell=pytest.fail))):
            with pytest.raises(Error, match="loading its data set"):
                connect(url, waiting=waiting)


@pytest.mark.single_server("the liar stands before one server")
def test_a_server_that_is_lost_while_it_is_checked_is_waited_for(any_server: Instance) -> None:
    """As in a run."""
    fill(any_server.client, jobs=3)
    cuts = [HANGS_UP] * 2

    def lie(request: list[bytes]) -> Lie | None:
        return cuts.pop() if request[0] == b"DBSIZE" and cuts else None

    with lying(any_server.url.removeprefix("unix://"), lie) as url:
        result = luamigrate("check", url=url)
    assert (result.code, result.err) == (0, "")
    assert "waiting for the server: the connection was lost" in result.out


@pytest.mark.single_server("the liar stands before one server")
def test_what_is_answered_at_one_moment_is_not_asked_for_ever(any_server: Instance) -> None:
    """Where the connection is lost each time, one line says so."""
    with (
        lying(any_server.url.removeprefix("unix://"), lambda words: HANGS_UP if words[0] == b"EXEC" else None) as url,
        connect(url) as deployment,
    ):
        (server,) = deployment.primaries
        server.reconnect_by(ReconnectPolicy(patience=60))
        with pytest.raises(Error, match="was lost 20 times"):
            at_one_moment(server, [("PING",)])


@pytest.mark.single_server("the liar stands before one server")
@pytest.mark.parametrize("command", [("run",), ("verify", "--extra"), ("rollback", "--yes")])
def test_a_walk_does_not_begin_anew_for_ever(any_server: Instance, command: tuple[str, ...]) -> None:
    """Where each connection leads to another server process and ends at the first script, one line says so."""
    fill(any_server.client, jobs=3)
    scripts_seen = 0

    def lie(request: list[bytes]) -> Lie | None:
        nonlocal scripts_seen
        if request[:2] == [b"INFO", b"server"]:
            return Lie(encoded(f"# Server\r\nrun_id:{secrets.token_hex(20)}\r\n".encode()))
        if request[0].startswith(b"EVALSHA") and request[2] == b"6":
            scripts_seen += 1
            return HANGS_UP
        return None

    with lying(any_server.url.removeprefix("unix://"), lie) as url:
        result = luamigrate(*command, *HASHES, "--json", url=url)
    assert result.code == 1
    assert f"another server process answered {BEGINNINGS} times" in result.document["error"]
    assert scripts_seen == BEGINNINGS


@pytest.mark.single_server("the liar stands before one server")
def test_a_key_that_is_to_be_taken_whole_is_not_sent_for_ever(any_server: Instance) -> None:
    """A server that calls the key too big even then is not believed."""
    any_server.client.xadd("job:1", {"a": "1"})

    def lie(request: list[bytes]) -> Lie | None:
        is_about_the_pair = request[0].startswith(b"EVALSHA") and request[3:5] == [b"job:1", b"step:1"]
        return Lie(encoded([b"big stream 100", 7])) if is_about_the_pair else None

    with lying(any_server.url.removeprefix("unix://"), lie) as url:
        result = luamigrate("run", "--map", "job:*=step:*", url=url)
    assert_one_line(result, 1, "the script answered 'big' about a key that it was to take whole")
