"""The checks before the first write: by `luamigrate check`, and when a run starts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from luamigrate import connect, plan
from luamigrate.cli.embedded import free_port
from luamigrate.model.status import CHECKS
from luamigrate.preflight import sampling
from tests.cli.test_bad_input import assert_one_line
from tests.conftest import Result, luamigrate
from tests.instances import Instance
from tests.migration.test_run import HASHES, fill

JOBS = plan([("job:*", "step:*", "hash")])
STARTS = [("check",), ("run",), ("run", "--dry-run")]
"""Commands that make all the checks."""
FINE = (
    *("role", "permissions", "scripts", "version", "writes", "big-keys", "memory", "eviction", "saves", "blocked"),
    "targets",
)
"""Checks that say something where all is well."""
QUEUE = ("--map", "queue=line", "--type", "list")


def checks(server: Instance, *options: str, url: str = "", code: int = 0) -> dict[str, tuple[str, str]]:
    """Return what each check comes to, verdict and text, by name."""
    result = luamigrate("check", "--json", *options, url=url or server.url)
    assert result.code == result.document["exit_code"] == code
    return {check["name"]: (check["verdict"], check["text"]) for check in result.document["checks"]}


@contextmanager
def configured(server: Instance, **settings: str | int) -> Iterator[None]:
    """Configure a server, and put back what it had."""
    names = {name: name.replace("_", "-") for name in settings}
    former: dict[str, Any] = {name: server.client.config_get(name)[name] for name in names.values()}
    try:
        for name, value in settings.items():
            server.client.config_set(names[name], value)
        yield
    finally:
        for name, value in former.items():
            server.client.config_set(name, value)


@contextmanager
def limited(server: Instance, room: float, policy: str = "noeviction") -> Iterator[None]:
    """Leave a server so much memory to take, or that in all to the nodes of a cluster."""
    with configured(server, maxmemory=0, maxmemory_policy=policy):
        shards = server.shards()
        for shard in shards:
            shard.client.config_set("maxmemory", int(used(shard) + room / len(shards)))
        yield


@contextmanager
def busy_client(server: Instance, *command: str | int, flag: str = "b", database: int = 0) -> Iterator[str]:
    """Have a client named worker-7 wait in a command, and yield its address."""
    client = server.shard_for(*command).another_client(client_name="worker-7", db=database)
    with client:
        connection = client.connection_pool.get_connection()
        connection.send_command(*command)
        yield _address(server, flag)
        connection.disconnect()


def _address(server: Instance, flag: str) -> str:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        clients: list[Any] = server.client.client_list()
        worker = next((each for each in clients if each["name"] == "worker-7"), None)
        if worker and flag in worker["flags"]:
            return str(worker["addr"])
    raise AssertionError(clients)


def used(server: Instance) -> int:
    """Return how much memory the server uses."""
    memory: Any = server.client.info("memory")
    return int(memory["used_memory"])


def need(server: Instance) -> float:
    """Return what the copies of jobs are expected to take."""
    with connect(server.url) as connection:
        taken = [sampling.take(connection, node, JOBS) for node in connection.primaries]
        return sum(sampling.needed_bytes(taken, node) or 0.0 for node in connection.primaries)


def assert_refused(server: Instance, command: Sequence[str], *fragments: str, options: Sequence[str] = ()) -> Result:
    """Assert that a command is refused, in a line with these fragments, and writes nothing."""
    digest = server.digest()
    result = luamigrate(*command, *options, url=server.url)
    assert result.code == 4
    said = result.out if command == ("check",) else result.err
    assert any(all(fragment in line for fragment in fragments) for line in said.splitlines()), said
    assert server.digest() == digest
    return result


def test_a_check_prints_a_line_for_each_check_with_its_verdict(server: Instance) -> None:
    """All is well: exit 0, and it says that run can be started."""
    fill(server.client, jobs=20)
    result = luamigrate("check", url=server.url)
    assert (result.code, result.err) == (0, "")
    lines = [line.split()[:2] for line in result.out.splitlines()]
    for name in FINE:
        assert ["ok", name] in lines
    assert "run can be started here." in result.out


def test_a_quiet_check_prints_what_it_objects_to_alone(any_server: Instance) -> None:
    """Nothing about the checks that are fine, a line for the one that is not."""
    fill(any_server.client, jobs=3)
    assert luamigrate("check", "--quiet", url=any_server.url).out.split() == ["run", "can", "be", "started", "here."]
    with busy_client(any_server, "BLPOP", "nothing", 0):
        result = luamigrate("check", "--quiet", url=any_server.url)
    assert result.code == 4
    assert [line.split()[:2] for line in result.out.splitlines() if line] == [["refused", "blocked"]]


def test_a_check_writes_nothing(server: Instance) -> None:
    """By the server's own count of changes, which knows even those that are undone; and all is as it was."""
    fill(server.client, jobs=20)
    server.client.hset("step:3", "id", "another")
    digest, size = server.digest(), server.client.dbsize()
    changes: Any = server.client.info("persistence")["rdb_changes_since_last_save"]
    assert luamigrate("check", "--on-existing", "fill", url=server.url).code == 0
    assert server.client.info("persistence")["rdb_changes_since_last_save"] == changes
    assert (server.digest(), server.client.dbsize()) == (digest, size)


def test_a_check_is_a_document_too(any_server: Instance) -> None:
    """With the command's name, what each check came to, and the exit code; the human lines are on standard error."""
    fill(any_server.client, jobs=3)
    result = luamigrate("check", "--json", url=any_server.url)
    document = result.document
    assert (document["command"], document["exit_code"], document["error"]) == ("check", 0, None)
    assert [check["name"] for check in document["checks"]] == list(FINE)
    assert {check["verdict"] for check in document["checks"]} == {"ok"}
    assert all(check["text"] for check in document["checks"])
    assert document["server"]["product"] in ("redis", "valkey")
    assert "ok       role" in result.err


def test_a_check_tells_how_many_targets_are_there(any_server: Instance) -> None:
    """Of the sources that it sampled."""
    fill(any_server.client, jobs=20)
    for number in range(5):
        any_server.client.copy(f"job:{number}", f"step:{number}")
    assert checks(any_server)["targets"][1].startswith("5 of 24 sources sampled")


@pytest.mark.parametrize("command", STARTS)
def test_no_match_is_loud_before_a_run_too(server: Instance, command: tuple[str, ...]) -> None:
    """With the number of keys by database, and the exit code of the run; --allow-empty makes it a success."""
    server.client.hset("step:1", "a", "1")
    for quiet in ((), ("--quiet",)):
        result = luamigrate(*command, *quiet, url=server.url)
        assert result.code == 3
        assert result.out.count("NO KEY MATCHED ANY RULE. Keys by database: 1 in db0.") == 1
        assert "run can be started here.\n" not in result.out
    assert luamigrate(*command, "--json", url=server.url).document["exit_code"] == 3
    for allowed in (("--allow-empty",), {"ALLOW_EMPTY": "true"}):
        options, env = ((), allowed) if isinstance(allowed, dict) else (allowed, None)
        result = luamigrate(*command, *options, url=server.url, env=env)
        assert (result.code, result.err) == (0, "")
        assert "NO KEY" not in result.out


@pytest.mark.parametrize("command", STARTS)
def test_keys_of_another_type_alone_are_said_before_a_run_too(server: Instance, command: tuple[str, ...]) -> None:
    """With the type that they are of."""
    server.client.set("job:1", "x")
    server.client.set("job:2", "x")
    result = luamigrate(*command, *HASHES, url=server.url)
    assert result.code == 3
    assert "NO KEY IS OF ITS RULE'S TYPE: ignored 2 of type string" in result.out


@pytest.mark.single_server("a cluster has one database")
def test_a_check_in_the_wrong_database_says_where_the_keys_are(any_server: Instance) -> None:
    """The commonest mistake; the finding is a warning, and the document has it."""
    fill(any_server.client, jobs=7)
    url = f"{any_server.url}?db=5"
    verdict, text = checks(any_server, url=url, code=3)["targets"]
    assert verdict == "warning"
    assert f"{any_server.client.dbsize()} in db0" in text
    assert "it would find nothing to copy (exit code 3)" in luamigrate("check", url=url).out


@pytest.mark.single_server("it is about one server's keys")
def test_a_check_that_has_not_seen_all_keys_does_not_claim_that_none_matches(
    any_server: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how many keys it has seen, and that a dry run sees all; the exit code is 0."""
    monkeypatch.setattr(sampling, "SCANS", 1)
    monkeypatch.setattr(sampling, "KEYS_PER_SCAN", 10)
    any_server.client.mset({f"other:{number}": "x" for number in range(1000)})
    verdict, text = checks(any_server)["targets"]
    assert verdict == "warning"
    assert "NO KEY OF ANY RULE AMONG THE 1" in text
    assert "1,000 in db0" in text


@pytest.mark.parametrize("command", [*STARTS, ("verify",), ("rollback", "--yes")])
@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("job:?*", "? and [ are taken literally in 'job:?*'."),
        ("job:[0-9]*", "? and [ are taken literally in 'job:[0-9]*'."),
        ("job?<id>", "? and [ are taken literally in 'job?<id>'."),
        ("job:", "Without * a pattern is the name of one key: 'job:'."),
        ("j\udcffb:*", ""),
        ("job:x*", ""),
    ],
)
def test_patterns_that_are_taken_literally_are_said_so_where_no_key_matches(
    any_server: Instance, command: tuple[str, ...], pattern: str, said: str
) -> None:
    """Somebody who knows the patterns of KEYS and SCAN may expect something else of them."""
    any_server.client.hset("job:1", "a", "1")
    target = pattern.replace("j", "st")
    result = luamigrate(*command, "--map", f"{pattern}={target}", url=any_server.url)
    assert result.code == 3
    assert "NO KEY MATCHED ANY RULE" in result.out
    assert said in result.out
    assert ("literally" in result.out or "Without *" in result.out) == bool(said)


def test_a_pattern_that_is_taken_literally_is_said_so_beside_one_that_matches(any_server: Instance) -> None:
    """Whether it has a star or not."""
    any_server.client.hset("job:1", "a", "1")
    other = ("--map", "old:[ab]=new:[ab]", "--map", "o?d:*=n?w:*")
    out = luamigrate("run", *other, "--map", "job:*=step:*", url=any_server.url).out
    assert "NO KEY MATCHES 'old:[ab]', 'o?d:*'. Is that right?" in out
    assert "? and [ are taken literally in 'old:[ab]', 'o?d:*'." in out


def test_a_check_does_not_count_targets_where_no_source_may_be_written(any_server: Instance) -> None:
    """It warns of the sources, and calls nothing fine; nor is nothing counted where all are of another type."""
    any_server.client.set("t:1:2:3", "v")
    out = luamigrate("check", "--map", "t:<a>:<b>=s:<b>:<a>", url=any_server.url).out
    assert "warning  targets      1 of the sources sampled would fail (ambiguous: " in out
    assert "ok       targets" not in out
    out = luamigrate("check", "--allow-empty", "--map", "t:*=s:*", "--type", "hash", url=any_server.url).out
    assert "ok       targets      no source of a rule's type is in the sample" in out


@pytest.mark.parametrize("command", STARTS)
def test_a_refusal_comes_before_anything_is_written(any_server: Instance, command: tuple[str, ...]) -> None:
    """Exit 4 from the check, from the run and from the dry run, with the same text."""
    fill(any_server.client, jobs=3)
    with busy_client(any_server, "BLPOP", "nothing", 0):
        result = assert_refused(any_server, command, "blocked", "worker-7", "BLPOP")
        document = luamigrate(*command, "--json", url=any_server.url).document
    assert document["exit_code"] == 4
    assert document["error"].startswith("run would be refused here" if command == ("check",) else "blocked: ")
    assert document["totals"] == {"found": 0, "ignored": 0}
    assert "run can be started" not in result.out


@pytest.mark.parametrize("command", STARTS)
def test_a_refusal_that_is_ignored_becomes_a_warning(any_server: Instance, command: tuple[str, ...]) -> None:
    """The command goes on, and says why it should not have."""
    fill(any_server.client, jobs=3)
    with busy_client(any_server, "BLPOP", "nothing", 0):
        result = luamigrate(*command, "--json", "--ignore-check", "blocked", url=any_server.url)
    assert result.code == 0
    if command == ("check",):
        (found,) = [check for check in result.document["checks"] if check["name"] == "blocked"]
        assert found["verdict"] == "warning"
        assert "worker-7" in found["text"]
    else:
        assert result.totals["found"] == 7
        assert any(text.startswith("blocked: ") and "worker-7" in text for text in result.document["warnings"])
        assert "Warning: blocked: " in result.err


@pytest.mark.parametrize("command", [*STARTS, ("verify",), ("rollback", "--yes")])
def test_an_unknown_name_to_ignore_is_a_usage_error(any_server: Instance, command: tuple[str, ...]) -> None:
    """Exit 2 with one line that lists those there are, and nothing else."""
    result = luamigrate(*command, "--ignore-check", "nonsense", url=any_server.url)
    assert_one_line(result, 2, "nonsense", *CHECKS)
    assert result.out == ""


@pytest.mark.parametrize("command", STARTS)
def test_refusals_are_shown_all_at_once(any_server: Instance, command: tuple[str, ...]) -> None:
    """A line each, so that nobody mends one after the other; ignoring one of them is not enough."""
    fill(any_server.client, jobs=300)
    with busy_client(any_server, "BLPOP", "nothing", 0), limited(any_server, 20_000):
        result = assert_refused(any_server, command, "memory", "the copies need")
        one = assert_refused(any_server, command, "blocked", "worker-7", options=("--ignore-check", "memory"))
    said, said_of_one = (each.out if command == ("check",) else each.err for each in (result, one))
    assert [line for line in said.splitlines() if "blocked" in line and "worker-7" in line]
    assert not [line for line in said_of_one.splitlines() if "refused  memory" in line or line.startswith("memory")]


@pytest.mark.single_server("in a cluster, REPLICAOF is not allowed")
def test_a_replica_is_refused_by_the_check_too(server: Instance) -> None:
    """It says so and checks nothing else."""
    fill(server.client, jobs=3)
    server.client.replicaof("127.0.0.1", str(free_port()))
    try:
        found = checks(server, code=4)
    finally:
        server.client.replicaof("no", "one")
    assert list(found) == ["role"]
    assert found["role"][0] == "refused"
    assert "primary" in found["role"][1]
