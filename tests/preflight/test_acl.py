"""What docs/security.md grants to each command is enough, and all of it is needed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.clusters import ClusterInstance
from tests.conftest import Result, luamigrate
from tests.instances import Instance

Server = Instance | ClusterInstance

SECURITY = (Path(__file__).parents[2] / "docs" / "security.md").read_text()

COMMANDS = {
    "verify": ("verify", "--extra"),
    "run": ("run",),
    "dry run": ("run", "--dry-run"),
    "check": ("check",),
    "fill": ("run", "--on-existing", "fill", "--fill-queues"),
    "rollback": ("rollback", "--yes"),
}
HEADINGS = {
    "verify": ["verify"],
    "verify --follow": ["verify", "verify --follow"],
    "fill": ["run", "run --on-existing fill"],
    "rollback": ["rollback"],
    "another database": ["run", "--to-database"],
    "follow": ["run", "follow"],
    "follow --flip": ["run", "follow", "follow --flip"],
    "follow --flip --no-freeze": ["run", "follow", "follow --flip --no-freeze"],
}
"""Whose lines a command takes; those not named here take those of `run`."""

FOR_OLDER = {"+evalsha_ro": "+evalsha", "+pexpiretime": "+time"}
"""What stands for commands that a server does not have."""

MANY = 900
"""Elements of a key that goes in chunks where a script may take only a tenth of a millisecond."""


def granted(server: Server, command: str) -> list[str]:
    """Return the rules that the document has for a command on this server, without user and password."""
    rules = [rule for heading in HEADINGS.get(command, ["run"]) for rule in rules_under(server, heading)]
    return list(dict.fromkeys(rules))


def rules_under(server: Server, heading: str) -> list[str]:
    """Return the rules of the lines under a heading of the document, as this server takes them."""
    match = re.search(rf"^\*\*{heading}\*\*.*?\n\n```\n(.*?)\n```", SECURITY, re.MULTILINE | re.DOTALL)
    assert match, heading
    lines = match[1].splitlines()
    rules = [rule for line in (lines if server.mode == "cluster" else lines[:1]) for rule in line.split()[3:]]
    return [*filter(None, (spelled(server, rule) for rule in rules if rule not in ("on", ">secret")))]


def spelled(server: Server, rule: str) -> str:
    """Return a rule as this server takes it; empty where it knows no such command."""
    if rule.startswith("%R~") and server.version < (7, 0):
        return rule.removeprefix("%R")
    try:
        everywhere(server, "ACL", "SETUSER", "nobody", rule)
    except redis.ResponseError:
        return FOR_OLDER.get(rule, "")
    return rule


def everywhere(server: Server, *command: str) -> None:
    """Send a command to every node."""
    for client in clients(server):
        client.execute_command(*command)


def clients(server: Server) -> Iterable[redis.Redis]:
    """Return a client of each node."""
    return [node.client for node in server.nodes] if isinstance(server, ClusterInstance) else [server.client]


def write(server: Server, *, copied: bool) -> None:
    """Write sources, and targets of some of them that lack something or contradict."""
    client: Any = server.client
    client.flushall()
    large = {f"field{number}": f"value{number}" * 8 for number in range(MANY)}
    members = [f"member{number}" * 5 for number in range(MANY)]
    for number in range(6):
        client.hset(f"job:{number}", mapping={"a": "1", "b": "x" * (90 if number % 2 else 3)})
    for name in ("big", "big2", "{t}big"):
        client.hset(f"job:{name}", mapping=large)
    client.pexpire("job:3", 10**8)
    client.hset("job:{t}1", "a", "1")
    client.sadd("jobs:active", "a", "b")
    client.sadd("jobs:failed", *members)
    client.sadd("jobs:completed", *members)
    client.zadd("jobs:pending", {member: number for number, member in enumerate(members)})
    if server.has_field_expiries:
        for key, field in (("job:1", "a"), ("job:big", "field5")):
            client.execute_command("HPEXPIRE", key, 10**8, "FIELDS", 1, field)
    if copied:
        assert luamigrate("run", url=server.url).code == 0
        client.zrem("steps:pending", *members[:9])
    client.delete("step:0", "step:5", "step:big2", "steps:active", "steps:completed")
    client.hset("step:0", "a", "1")
    client.hset("step:5", mapping={"a": "2", "b": "x"})
    client.hset("step:big2", mapping=dict(list(large.items())[: MANY // 3]))
    client.sadd("steps:active", "a")
    client.sadd("steps:completed", *members[: MANY // 3])


def outcome(server: Server, command: str, rules: list[str] | None) -> tuple[Any, ...]:
    """Run a command as a user with these rules, or as one without limits; return code, counts and warnings."""
    write(server, copied=command in ("verify", "rollback"))
    login = {}
    if rules is not None:
        everywhere(server, "ACL", "SETUSER", "careful", "reset", "on", ">secret", *rules)
        login = {"REDIS_PASSWORD": "secret"}
    url = server.url if rules is None else server.url.replace("://", "://careful@")
    options = ("--json",) if command == "check" else ("--json", "--max-pause", "0.1")
    result: Result = luamigrate(*COMMANDS[command], *options, url=url, env=login)
    document = result.document
    warnings = sorted(warning.partition(":")[0] for warning in document["warnings"])
    counts = [{name: count for name, count in rule.items() if name != "ignored"} for rule in document["rules"]]
    return result.code, counts, [] if rules is None else warnings


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_document_grants_is_enough(server: Server, command: str) -> None:
    """Code and counts are those of a user without limits; warnings concern only what is optional."""
    code, counts, _ = outcome(server, command, None)
    careful_code, careful_counts, warnings = outcome(server, command, granted(server, command))
    assert (careful_code, careful_counts) == (code, counts)
    assert set(warnings) <= {"memory", "eviction", "saves", "blocked"}


@pytest.mark.single_server("a cluster has one database")
@pytest.mark.parametrize("lacking", ["", "+select", "+smembers"])
def test_another_database_takes_what_the_document_grants(server: Instance, lacking: str) -> None:
    """With both commands, big keys included; each of them is asked for where it lacks."""
    write(server, copied=False)
    rules = [rule for rule in granted(server, "another database") if rule != lacking]
    everywhere(server, "ACL", "SETUSER", "careful", "reset", "on", ">secret", *rules)
    options = ("--to-database", "3", "--max-pause", "0.1")
    result = luamigrate("run", *options, url=server.url_for("careful", "secret"))
    told = result.out + result.err
    if lacking:
        assert (result.code, f"this user may not call {lacking[1:].upper()}; grant it" in told) == (4, True), told
    else:
        assert result.code == 0, told
        with server.another_client(db=3) as there:
            sources: list[Any] = server.client.keys("job*")
            assert sorted(there.keys()) == sorted(name.replace(b"job", b"step") for name in sources)


SPARING = ("+memory|usage", "+dump", "+object|encoding", "+hvals")
"""What is done without on a single server: it takes longer, or is less exact about what a key weighs."""


@pytest.mark.parametrize("command", ["verify", "fill", "rollback"])
def test_everything_that_the_document_grants_is_needed(server: Server, command: str) -> None:
    """Without any one command something is refused, warned of, or fails."""
    if not server.has_field_expiries:
        pytest.skip("what is granted for newer servers can be judged on those")
    spared = SPARING if server.mode == "standalone" else ("+memory|usage", "+object|encoding", "+hvals")
    rules = granted(server, command)
    wanted = outcome(server, command, rules)
    assert outcome(server, command, [rule for rule in rules if rule not in spared])[:2] == wanted[:2]
    superfluous = [
        rule
        for rule in rules
        if rule.startswith("+")
        and rule not in spared
        and outcome(server, command, [other for other in rules if other != rule]) == wanted
    ]
    assert superfluous == []


def test_what_a_fill_lacks_is_named_before_it_begins(server: Server) -> None:
    """Commands that would write are tried in a script that may not, on clusters too."""
    if server.version < (7, 0):
        pytest.skip("this server has no scripts that may not write")
    for lacking in ("hsetnx", "sadd"):
        rules = [rule for rule in granted(server, "fill") if rule != f"+{lacking}"]
        everywhere(server, "ACL", "SETUSER", "careful", "reset", "on", ">secret", *rules)
        url = server.url.replace("://", "://careful@")
        result = luamigrate("check", "--on-existing", "fill", url=url, env={"REDIS_PASSWORD": "secret"})
        assert result.code == 4
        assert f"this user may not call {lacking.upper()}; grant it" in result.out


def test_staging_keys_that_may_not_be_touched_are_named(server: Server) -> None:
    """Where large keys would fail, the check says which pattern to grant."""
    rules = [rule for rule in granted(server, "run") if "staging" not in rule]
    everywhere(server, "ACL", "SETUSER", "careful", "reset", "on", ">secret", *rules)
    url = server.url.replace("://", "://careful@")
    result = luamigrate("check", "--allow-empty", url=url, env={"REDIS_PASSWORD": "secret"})
    assert result.code == 0
    assert "this user may not read and write luamigrate:staging:*; grant it" in result.out


def test_other_keys_cannot_be_touched(server: Server) -> None:
    """A plan with other names is refused, and so is whatever script the user sends."""
    everywhere(server, "ACL", "SETUSER", "careful", "reset", "on", ">secret", *granted(server, "fill"))
    client: Any = server.client
    client.hset("other:1", "a", "1")
    digest = server.digest()
    url = server.url.replace("://", "://careful@")
    result = luamigrate(
        "run", "--map", "other:*=another:*", "--type", "hash", url=url, env={"REDIS_PASSWORD": "secret"}
    )
    assert result.code == 4
    assert "permissions" in result.err
    assert "other:*" in result.err
    for administrator in clients(server):
        options = administrator.connection_pool.connection_kwargs | {"username": "careful", "password": "secret"}
        pool = redis.ConnectionPool(administrator.connection_pool.connection_class, **options)
        with redis.Redis(connection_pool=pool) as careful:
            for command in ("HSET','other:1','b','2", "UNLINK','other:1", "HGETALL','other:1"):
                digest_of_script = careful.script_load(f"return redis.call('{command}')")
                with pytest.raises(redis.ResponseError, match=r"permission|can't access"):
                    careful.evalsha(digest_of_script, 0)
    assert server.digest() == digest
