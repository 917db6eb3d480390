"""What a user can get wrong: one clear line, the right exit code, no traceback, nothing written."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from luamigrate import Limits, UsageError, connect, migrate
from luamigrate.cli.embedded import free_port, stop_server, wait_until_up
from tests import binaries
from tests.conftest import Result, luamigrate
from tests.instances import Instance, start
from tests.migration.test_run import fill
from tests.processes import of_this_test

SECRET = "hunter2"


def assert_one_line(result: Result, code: int, *fragments: str) -> None:
    """Assert that a command ended with this code and one line that says why and shows no password."""
    lines = result.err.strip().splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("luamigrate: ")
    for fragment in fragments:
        assert fragment in lines[0]
    assert result.code == code
    assert SECRET not in result.out + result.err


@pytest.fixture
def untouched(any_server: Instance) -> Iterator[Instance]:
    """Give a server with jobs on it that is the same afterwards."""
    fill(any_server.client, jobs=3)
    digest = any_server.digest()
    yield any_server
    assert any_server.digest() == digest


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--batch-size", "0"], ["--batch-size", "equal to 1"]),
        (["--batch-size", "-1"], ["--batch-size"]),
        (["--batch-size", "1000000"], ["--batch-size"]),
        (["--batch-size", "many"], ["--batch-size", "valid integer"]),
        (["--no-such-option"], ["--no-such-option"]),
        (["surplus"], ["surplus"]),
        (["--map", "a:*=b:*", "--type", "banana"], ["banana", "hash, zset, set, list, string, stream or any"]),
        (["--map", "a=b", "--type", "\udcff"], [r"\xff"]),
        (["--type", "set"], ["--type", "--map"]),
        (["--map", "a=b", "--type", ""], ["type ''"]),
        (["--map", "a=b", "--type", "set", "--map", "c=d", "--type", "hash"], ["--type is given twice", "--plan"]),
        (["--on-existing", "fill", "--no-validate"], ["--on-existing fill", "--no-validate"]),
        (["--on-existing", "overwrite"], ["--on-existing", "overwrite"]),
        (["--fill-queues"], ["--fill-queues", "--on-existing fill"]),
        (["--settle", "-1"], ["--settle"]),
        (["--settle", "soon"], ["--settle"]),
        (["--settle", "nan"], ["settle"]),
        (["--show-values"], ["--show-values", "--report"]),
        (["--map", "a=b", "--type", "set", "--plan", "x.toml"], ["--map", "--plan"]),
        (["--quiet", "--verbose"], ["--quiet", "--verbose"]),
        (["--report-all"], ["--report FILE"]),
        (["--report", "/no/such/folder/report"], ["--report", "/no/such/folder/report", "No such file"]),
        (["--plan", "/no/such/plan.toml"], ["/no/such/plan.toml", "No such file"]),
    ],
)
def test_odd_options_are_usage_errors(untouched: Instance, options: list[str], fragments: list[str]) -> None:
    """Exit 2 before a server is asked."""
    assert_one_line(luamigrate("run", *options, url=untouched.url), 2, *fragments)


@pytest.mark.parametrize("name", ["REDIS_URL", "DRY_RUN", "BATCH_SIZE", "VALIDATE_COPIES", "LUAMIGRATE_PLAN"])
@pytest.mark.parametrize("value", ["", "  "])
def test_a_blank_setting_is_a_usage_error(untouched: Instance, name: str, value: str) -> None:
    """Never a real run by accident."""
    result = luamigrate("run", env={"REDIS_URL": untouched.url, name: value})
    assert_one_line(result, 2, name)


@pytest.mark.parametrize("name", ["DRY_RUN", "VALIDATE_COPIES", "IGNORE_EXPIRY", "ALLOW_EMPTY"])
@pytest.mark.parametrize("value", ["1", "yes", "maybe", "truee", "nothing\x1b[2J"])
def test_booleans_are_true_or_false(untouched: Instance, name: str, value: str) -> None:
    """Nothing else is guessed at."""
    result = luamigrate("run", env={"REDIS_URL": untouched.url, name: value})
    assert_one_line(result, 2, name)
    assert "\x1b" not in result.err


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("", ["no rule"]),
        ("[[rule]", ["not TOML"]),
        (b"\xff\xfe", ["not TOML"]),
        ("rules = 1", ["unknown key 'rules'"]),
        ("rule = 1", ["[[rule]]"]),
        ("rule = [1]", ["rule 1", "[[rule]]"]),
        ('[[rule]]\nsource = "a"\ntype = "set"', ["rule 1", "'target' is missing"]),
        ('[[rule]]\nsource = 1\ntarget = "b"\ntype = "set"', ["rule 1", "'source' must be a string"]),
        ('[[rule]]\nsource = "a"\ntarget = "b"\ntype = "set"\nsauce = 1', ["rule 1", "unknown key 'sauce'"]),
        ('[[rule]]\nsource = "a"\ntarget = "b"\ntype = "banana"', ["'a' -> 'b'", "banana"]),
        ('[[rule]]\nsource = "a:*:*"\ntarget = "b:*"\ntype = "set"', ["more than one *"]),
        ("x = " + "[" * 100_000, ["not TOML"]),
    ],
)
def test_odd_plan_files_are_usage_errors(
    untouched: Instance, tmp_path: Path, text: str | bytes, fragments: list[str]
) -> None:
    """The line names the file, the rule and what is wrong with it."""
    file = tmp_path / "plan.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert_one_line(luamigrate("run", "--plan", str(file), url=untouched.url), 2, "plan.toml", *fragments)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_plan_file_with_a_byte_order_mark_is_read(any_server: Instance, tmp_path: Path, mark: bytes) -> None:
    """As some editors write it; its rules are the same."""
    any_server.client.sadd("a", "1")
    file = tmp_path / "plan.toml"
    file.write_bytes(mark + b'[[rule]]\nsource = "a"\ntarget = "b"\ntype = "set"\n')
    assert luamigrate("run", "--plan", str(file), "--json", url=any_server.url).totals["copied"] == 1


def test_a_folder_is_no_plan_file(untouched: Instance, tmp_path: Path) -> None:
    """The system's error text is in the line."""
    assert_one_line(luamigrate("run", "--plan", str(tmp_path), url=untouched.url), 2, "Is a directory")


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "localhost:6379",
        "http://localhost",
        "redis://",
        "redis:///0",
        "redis://localhost:port",
        "redis://localhost:99999",
        "redis://localhost/zero",
        "redis://localhost/0/1",
        "redis://localhost:0",
        "redis://localhost/0?db=5",
        "redis://localhost?db=5&db=0",
        "redis://localhost?db=",
        "redis://localhost?db=-1",
        "redis://localhost?\udcff=1",
        "redis://a..b",
        "redis://.",
        f"redis://{'a' * 64}.b",
        "rediss://localhost?ssl_keyfile=/x",
        "redis://localhost/-1",
        "redis://localhost?db=x",
        "redis://localhost?retry=9",
        "redis://localhost?ssl_ca_certs=x",
        "valkey://localhost/zero",
        "valkeys://localhost:0",
        "valkeyss://localhost",
        "valkey://localhost?retry=9",
        "unix://",
        f"redis://:{SECRET}/x@localhost",
        f"redis://:12{SECRET}#x@localhost",
        f"redis://user:12?{SECRET}@localhost",
        f"user:{SECRET}@localhost",
    ],
)
def test_a_url_that_is_none_is_a_usage_error(url: str) -> None:
    """The line shows what a URL must be, and not the URL given: it may contain a password."""
    result = luamigrate("run", url=url)
    assert_one_line(result, 2, "the URL")
    assert result.out == ""


def is_free(*ports: int) -> bool:
    """Tell whether nobody listens on any of these ports."""
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
    return True


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_an_unreachable_server_is_named(scheme: str) -> None:
    """Exit 1, with the address and the system's reason; the password is not shown."""
    port = free_port()
    result = luamigrate("run", url=f"{scheme}://user:{SECRET}@127.0.0.1:{port}/3")
    assert_one_line(result, 1, "cannot connect", f"{scheme}://user:***@127.0.0.1:{port}/3", "Connection refused")


def test_an_unknown_host_and_a_missing_socket_are_named(tmp_path: Path) -> None:
    """Exit 1, each with its reason."""
    assert_one_line(luamigrate("run", url="redis://no-such-host.invalid"), 1, "cannot connect", "no-such-host.invalid")
    assert_one_line(luamigrate("run", url=f"unix://{tmp_path}/none"), 1, "cannot connect", "No such file")


def test_errors_come_as_json_too(untouched: Instance) -> None:
    """A program that asked for a document gets one, with the same line and code."""
    result = luamigrate("run", "--json", url=f"redis://127.0.0.1:{free_port()}")
    assert result.code == result.document["exit_code"] == 1
    assert "cannot connect" in result.document["error"]
    assert result.document["server"] is None
    assert result.document["totals"] == {"found": 0, "ignored": 0}


def test_a_wrong_password_is_said_so(server: Instance) -> None:
    """Exit 1, for a user that is not there, for a wrong and for a missing password."""
    server.client.config_set("requirepass", "right")
    try:
        for name in ("", "nobody"):
            assert_one_line(luamigrate("run", url=server.url_for(name, SECRET)), 1, "user or password")
        assert_one_line(luamigrate("run", url=server.url), 1, "asks for a password")
        assert luamigrate("run", "--allow-empty", url=server.url_for("", "right")).code == 0
    finally:
        server.client.config_set("requirepass", "")


def test_a_password_may_hold_any_character(any_server: Instance) -> None:
    """Percent-encoded in the URL; shown nowhere."""
    password = "p@ss/w:rd#?%ü"
    any_server.client.acl_setuser("odd", enabled=True, passwords=[f"+{password}"], categories=["+@all"], keys=["*"])
    try:
        encoded = "p%40ss%2Fw%3Ard%23%3F%25%C3%BC"
        result = luamigrate("run", "--allow-empty", url=any_server.url_for("odd", encoded))
        assert result.code == 0
        assert encoded not in result.out + result.err
        assert any_server.url_for("odd", "***") in result.out
    finally:
        any_server.client.acl_deluser("odd")


@pytest.mark.single_server("a cluster has one database")
def test_a_database_that_is_not_there_is_said_so(server: Instance) -> None:
    """Exit 1 with the server's error text."""
    result = luamigrate("run", url=f"{server.url}?db=99")
    assert_one_line(result, 1, "DB index is out of range; give another number at the end of the URL")


@pytest.mark.parametrize("command", ["EVALSHA", "COPY", "SCRIPT"])
def test_a_server_that_lacks_a_command_is_refused(server_name: str, command: str) -> None:
    """Exit 4, the command named; it has been renamed away, as providers do, and is not taken for an old version."""
    with start(server_name, "--rename-command", command, "") as server:
        fill(server.client, jobs=3)
        size = server.client.dbsize()
        assert_one_line(luamigrate("run", url=server.url), 4, "scripts", command, "rename-command")
        assert server.client.dbsize() == size


@pytest.mark.single_server("in a cluster, REPLICAOF is not allowed")
def test_a_replica_is_refused(server: Instance) -> None:
    """Exit 4: what is written there would be lost; the dry run says the same."""
    fill(server.client, jobs=3)
    server.client.replicaof("127.0.0.1", str(free_port()))
    try:
        for options in ((), ("--dry-run",)):
            assert_one_line(luamigrate("run", *options, url=server.url), 4, "replica", "primary")
    finally:
        server.client.replicaof("no", "one")
    assert not server.client.exists("step:1")


def test_a_sentinel_is_refused(server_name: str, tmp_path: Path) -> None:
    """Exit 4: it has no keys."""
    binary = binaries.find(server_name)
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n")
    process = subprocess.Popen((str(binary), str(config), "--sentinel"), stdout=subprocess.DEVNULL)
    of_this_test(process)
    try:
        assert wait_until_up(process, redis.Redis(port=port))
        assert_one_line(luamigrate("run", url=f"redis://127.0.0.1:{port}"), 4, "Sentinel")
    finally:
        stop_server(process)


def test_a_cluster_is_refused(server_name: str) -> None:
    """Exit 4, and nothing is tried."""
    # Its bus listens too, 10,000 above.
    port = next(port for port in iter(lambda: random.randint(10_000, 30_000), 0) if is_free(port, port + 10_000))
    with start(server_name, "--cluster-enabled", "yes", "--bind", "127.0.0.1", "--port", str(port)) as server:
        assert_one_line(luamigrate("run", url=server.url), 4, "cluster")


def test_a_server_that_is_loading_is_said_so(server_name: str, tmp_path: Path) -> None:
    """Exit 1 for whoever has no patience, and what to do is to wait; others wait for it."""
    options = ("--dbfilename", "dump.rdb", "--dir", str(tmp_path))
    with start(server_name, *options) as server:
        for number in range(60):
            server.client.hset(f"job:{number}", "a", os.urandom(1_000_000))
        server.client.save()
    # It looks at its clients every 2 MB.
    with start(server_name, *options, "--key-load-delay", "50000") as server:
        assert_one_line(luamigrate("run", "--patience", "0", url=server.url), 1, "loading")
        result = luamigrate("run", url=server.url)
        assert (result.code, result.err) == (0, "")
        assert result.out.count("waiting for the server: the server is loading its data set") == 1


@pytest.mark.parametrize("setting", ["min-replicas-to-write", "stop-writes-on-bgsave-error"])
def test_a_server_that_takes_no_writes_is_refused(server_name: str, setting: str) -> None:
    """Exit 4 from the run and from the dry run, with the server's error text."""
    with start(server_name) as server:
        fill(server.client, jobs=3)
        if setting == "min-replicas-to-write":
            server.client.config_set(setting, 1)
        else:
            make_saving_fail(server)
        for options in ((), ("--dry-run",)):
            assert_one_line(luamigrate("run", *options, url=server.url), 4, "writes")
        # Or it would try to save once more when it is asked to end.
        server.client.config_set("save", "")
        assert not server.client.exists("step:1")


def make_saving_fail(server: Instance) -> None:
    """Have a background save fail, after which the server takes no writes."""
    server.client.config_set("save", "3600 1")
    folder = Path(server.url.removeprefix("unix://")).parent
    (folder / "dump.rdb" / "in-the-way").mkdir(parents=True)
    server.client.bgsave()
    deadline = time.monotonic() + 10
    while server.client.info("persistence")["rdb_last_bgsave_status"] == "ok":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_server_calls_itself_cannot_write_to_the_terminal() -> None:
    """Its greeting is as little to be trusted as its keys."""
    facts = (b"server", b"re\x1b[31mdis", b"version", b"8.0\x1b[2J", b"mode", b"standalone", b"role", b"master")
    greeting = b"*8\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(fact), fact) for fact in facts)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_once, args=(listener, greeting), daemon=True).start()
        result = luamigrate("run", url=f"redis://127.0.0.1:{listener.getsockname()[1]}")
    assert result.code == 1
    assert "\x1b" not in result.out + result.err
    assert r"re\x1b[31mdis" in result.out


@pytest.mark.parametrize(
    "greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"+OK\r\n", b"*1\r\n$-1\r\n", b"\x00\xff"]
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_something_that_is_no_redis_is_said_so(greeting: bytes) -> None:
    """Exit 1 or 4 with one line, whatever it says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer_once, args=(listener, greeting), daemon=True).start()
        result = luamigrate("run", url=f"redis://127.0.0.1:{listener.getsockname()[1]}")
    assert_one_line(result, 1)


def answer_once(listener: socket.socket, greeting: bytes) -> None:
    """Answer whatever comes with the same bytes, until nothing comes."""
    with suppress(OSError):
        connection, _ = listener.accept()
        with connection:
            while greeting and connection.recv(4096):
                connection.sendall(greeting)


def test_the_library_checks_its_arguments(any_server: Instance) -> None:
    """A batch size out of range is a UsageError there too."""
    with connect(any_server.url) as connection, pytest.raises(UsageError, match="batch size"):
        next(migrate(connection, limits=Limits(batch_size=0)))


def test_help_and_version_work_with_odd_settings() -> None:
    """Somebody who asks for help gets it."""
    assert luamigrate("run", "--help", env={"DRY_RUN": ""}).code == 0
    assert luamigrate("--version").out.startswith("luamigrate 0.")
    assert luamigrate().code == 2
    assert os.environ.get("DRY_RUN") is None
