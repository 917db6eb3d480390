"""Passwords: from a URL, the environment or a file, and neither in what is printed nor in process lists."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from luamigrate.cli.embedded import free_port
from luamigrate.cli.options import VARIABLES, environment
from luamigrate.server import connect as connecting
from luamigrate.server import errors
from tests.cli.test_bad_input import assert_one_line
from tests.conftest import Result, luamigrate
from tests.instances import Instance
from tests.migration.test_run import fill
from tests.processes import of_this_test
from tests.tls import context, speaking_tls

pytestmark = pytest.mark.single_server("how to get in is the same for every node")

SECRET = "s3cr3t/ü:x"
ENCODED = quote(SECRET, safe="")
USER = "operator"
COMMANDS = (("run",), ("verify", "--extra"), ("rollback", "--yes"), ("check",))
OUTPUTS = ((), ("--json",), ("--quiet",))
WAYS = ("url", "environment", "file")


@dataclass(frozen=True)
class Way:
    """Where a server is, and how its user's password is given."""

    name: str
    url: str
    options: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)

    def luamigrate(self, *arguments: str) -> Result:
        """Run a command with the password given so."""
        return luamigrate(*arguments, *self.options, url=self.url, env=self.env)


def way(name: str, url: str, folder: Path, password: str = SECRET, user: str = USER) -> Way:
    """Give the password by each means in turn."""
    scheme, _, place = url.partition("://")
    if name == "url":
        return Way(name, f"{scheme}://{user}:{quote(password, safe='')}@{place}")
    given = Way(name, f"{scheme}://{user}@{place}")
    if name == "environment":
        return replace(given, env={"REDIS_PASSWORD": password})
    file = folder / "password"
    file.write_bytes(f"{password}\nanything else\n".encode())
    return replace(given, options=("--password-file", str(file)))


@pytest.fixture
def locked(any_server: Instance) -> Iterator[Instance]:
    """Give a server with jobs on it whose operator has a password."""
    fill(any_server.client, jobs=5)
    any_server.client.acl_setuser(
        USER, enabled=True, passwords=[f"+{SECRET}"], categories=["+@all"], keys=["*"], reset=True
    )
    yield any_server
    any_server.client.acl_deluser(USER)


@pytest.mark.parametrize("name", WAYS)
def test_a_password_lets_in(locked: Instance, tmp_path: Path, name: str) -> None:
    """Every command, by each means; the configuration names it, and does not show the password."""
    given = way(name, locked.url, tmp_path)
    for command in COMMANDS:
        result = given.luamigrate(*command)
        assert result.code == 0, result.err
        assert f"{USER}:***@" in result.out or "unix://***@" in result.out
    shown = {"url": ":***@", "environment": "***  ", "file": str(tmp_path / "password")}[name]
    origin = {"url": "(REDIS_URL)", "environment": "(REDIS_PASSWORD)", "file": "(--password-file)"}[name]
    assert any(shown in line and origin in line for line in result.out.splitlines())
    wrong = way(name, locked.url, tmp_path, password="wrong").luamigrate("run")
    assert_one_line(wrong, 1, "refuses the user or password")


Trouble = Callable[[ExitStack, Instance], str]
"""Brings it about, and returns the URL at which it is met."""


def wrong_password(stack: ExitStack, server: Instance) -> str:
    """Change the password."""
    server.client.acl_setuser(USER, passwords=["+another"], reset_passwords=True)
    return server.url


def nobody_there(stack: ExitStack, server: Instance) -> str:
    """Name a port on which nobody listens."""
    return f"redis://127.0.0.1:{free_port()}/0"


def no_redis(stack: ExitStack, server: Instance) -> str:
    """Answer as a web server does, with all that it was told."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    threading.Thread(target=echo, args=(listener,), daemon=True).start()
    return f"redis://127.0.0.1:{listener.getsockname()[1]}"


def echo(listener: socket.socket) -> None:
    """Send back as an error what comes, as a server may do that does not understand it."""
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                while content := connection.recv(4096):
                    connection.sendall(b"-ERR unknown command " + content.replace(b"\r\n", b" ") + b"\r\n")


def not_permitted(stack: ExitStack, server: Instance) -> str:
    """Take all permissions away but to log in."""
    server.client.acl_setuser(USER, enabled=True, passwords=[f"+{SECRET}"], commands=["+hello"], reset=True)
    return server.url


def refused_by_a_check(stack: ExitStack, server: Instance) -> str:
    """Have the server take no writes."""
    server.client.config_set("min-replicas-to-write", 1)
    stack.callback(server.client.config_set, "min-replicas-to-write", 0)
    return server.url


def wrong_database(stack: ExitStack, server: Instance) -> str:
    """Ask for a database that is not there."""
    return f"{server.url}?db=99"


def not_trusted(stack: ExitStack, server: Instance) -> str:
    """Show a certificate of an authority that nobody knows."""
    own = context(trustme.CA().issue_cert("localhost"))
    return f"rediss://localhost:{stack.enter_context(speaking_tls(server.url.removeprefix('unix://'), own))}"


def no_tls(stack: ExitStack, server: Instance) -> str:
    """Ask for TLS where there is none."""
    return no_redis(stack, server).replace("redis://", "rediss://")


def no_sentinel(stack: ExitStack, server: Instance) -> str:
    """Name Sentinels that are none."""
    return f"{no_redis(stack, server).replace('redis://', 'sentinel://')},127.0.0.1:{free_port()}/mymaster"


def odd(stack: ExitStack, server: Instance) -> str:
    """Name a database that is no number."""
    return "redis://localhost/zero"


TROUBLES = (
    *(wrong_password, nobody_there, no_redis, not_permitted, refused_by_a_check, wrong_database, not_trusted, no_tls),
    *(no_sentinel, odd),
)


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("name", WAYS)
def test_no_error_shows_a_password(
    locked: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, trouble: Trouble
) -> None:
    """Whatever goes wrong, by whichever command and in whichever output."""
    monkeypatch.setattr("luamigrate.server.connect.CONNECT_SECONDS", 0.2)
    report = tmp_path / "report.jsonl"
    with ExitStack() as stack:
        given = way(name, trouble(stack, locked), tmp_path)
        codes = set()
        for command in COMMANDS:
            for output in OUTPUTS if command == ("check",) else (*OUTPUTS, ("--verbose", "--report", str(report))):
                result = given.luamigrate(*command, *output)
                codes.add(result.code)
                assert_shows_nothing(result.out + result.err + (report.read_text() if report.exists() else ""))
    assert codes & {1, 2, 4}


def assert_shows_nothing(text: str) -> None:
    """Assert that a text shows no password, nor a piece that identifies it."""
    assert text
    for secret in (SECRET, ENCODED, SECRET.encode("unicode_escape").decode(), "s3cr3t"):
        assert secret not in text


def test_the_sentinels_password_is_shown_as_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from the URL nor from the environment, whatever the Sentinels say."""
    monkeypatch.setattr("luamigrate.server.connect.SENTINEL_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=echo, args=(listener,), daemon=True).start()
        url = f"sentinel://127.0.0.1:{listener.getsockname()[1]},127.0.0.1:{free_port()}/mymaster"
        for output in (*OUTPUTS, ("--verbose",)):
            for options, env in (("", {"SENTINEL_PASSWORD": SECRET}), (f"?sentinel_password={ENCODED}", {})):
                result = luamigrate("run", *output, url=url + options, env=env)
                assert result.code == 1
                assert_shows_nothing(result.out + result.err)


@pytest.mark.parametrize(
    "content", [SECRET, f"{SECRET}\n", f"{SECRET}\r\n", f"{SECRET}\nanything else", f"\ufeff{SECRET}"]
)
def test_the_password_is_the_first_line_without_its_end(locked: Instance, tmp_path: Path, content: str) -> None:
    """Whatever the end is, and whatever follows."""
    file = tmp_path / "password"
    file.write_bytes(content.encode())
    url = locked.url.replace("unix://", f"unix://{USER}@")
    assert luamigrate("run", url=url, env={"REDIS_PASSWORD_FILE": str(file)}).code == 0


def test_a_password_through_a_pipe_is_read_once(locked: Instance) -> None:
    """`--password-file <(pass show redis)`, also by a command that connects twice."""
    reading, writing = os.pipe()
    os.write(writing, f"{SECRET}\n".encode())
    os.close(writing)
    url = locked.url.replace("unix://", f"unix://{USER}@")
    try:
        assert luamigrate("rollback", "--yes", "--password-file", f"/dev/fd/{reading}", url=url).code == 0
    finally:
        os.close(reading)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_end_of_a_line_is_no_part_of_a_password_in_the_environment(locked: Instance, end: str) -> None:
    """As in a file: many a tool that fills the environment leaves it there."""
    url = locked.url.replace("unix://", f"unix://{USER}@")
    assert luamigrate("run", url=url, env={"REDIS_PASSWORD": SECRET + end}).code == 0


def test_the_same_password_twice_is_one(locked: Instance, tmp_path: Path) -> None:
    """In the URL, in the environment and in a file, all at once."""
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    url = locked.url.replace("unix://", f"unix://{USER}:{ENCODED}@")
    assert luamigrate("run", "--password-file", str(file), url=url, env={"REDIS_PASSWORD": f"{SECRET}\n"}).code == 0


def test_a_user_is_in_the_way_where_the_server_knows_only_a_password(server: Instance) -> None:
    """The line says to leave the user out, and that is right; where none was given it does not say so."""
    server.client.config_set("requirepass", SECRET)
    try:
        named = luamigrate("run", url=server.url_for("app", ENCODED))
        assert_one_line(named, 1, "refuses the user or password", "(requirepass), leave the user out")
        assert luamigrate("run", "--allow-empty", url=server.url_for("", ENCODED)).code == 0
        wrong = luamigrate("run", url=server.url_for("", "wrong"))
        assert_one_line(wrong, 1, "refuses the user or password")
        assert "leave the user out" not in wrong.err
    finally:
        server.client.config_set("requirepass", "")


@pytest.mark.parametrize("name", ["environment", "file"])
def test_the_process_list_shows_no_password(tmp_path: Path, name: str) -> None:
    """Nor does the environment, where it comes from a file."""
    with listening() as (listener, url):
        given = way(name, url, tmp_path)
        command = (sys.executable, "-m", "luamigrate", "run", *given.options)
        env = environment(REDIS_URL=given.url, **given.env)
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        with of_this_test(process):
            connection, _ = listener.accept()
            with connection:
                assert SECRET.encode() in connection.recv(4096)
                lists = Path(f"/proc/{process.pid}")
                if not lists.exists():
                    pytest.skip("no /proc on this system")
                assert SECRET.encode() not in (lists / "cmdline").read_bytes()
                assert (SECRET.encode() in (lists / "environ").read_bytes()) is (name == "environment")
            out, _ = process.communicate()
        assert_shows_nothing(out.decode())


def test_the_page_names_what_there_is() -> None:
    """Every option and variable of docs/security.md is one of ours, and what it quotes is printed."""
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    help_text = luamigrate("run", "--help").out
    assert set(re.findall(r"--(?:tls|password|wait)[\w-]*", page)) <= set(re.findall(r"--[\w-]+", help_text))
    assert set(re.findall(r"\b(?:REDIS|SENTINEL|TLS)_[A-Z_]+", page)) <= VARIABLES
    program = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in (connecting, errors))
    questions = re.findall(r"^\| `([^`]+\?)` \|", page, re.MULTILINE)
    assert len(questions) == 3
    for words in questions:
        assert words in program


@contextmanager
def listening() -> Iterator[tuple[socket.socket, str]]:
    """Listen as a server would, and yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        yield listener, f"redis://127.0.0.1:{listener.getsockname()[1]}"
