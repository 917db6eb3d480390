"""Permissions: what a careful user needs, and what is said where something is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tests.cli.test_bad_input import assert_one_line
from tests.conftest import Result, luamigrate
from tests.instances import Instance
from tests.migration.test_run import fill

KEYS = ["job:*", "step:*", "jobs:*", "steps:*"]
SPARING = ["memory|usage", "dump", "object|encoding", "hvals"]
"""Commands that only spare work."""
ANYTHING = ["scan", "evalsha", "script|load", "type", "pttl", *SPARING]
READING = ["hgetall", "hkeys", "hget", "hscan", "sdiff", "zrange", "zscore"]
RUN = [*ANYTHING, *READING, "copy", "unlink"]
DRY_RUN = [*RUN, "evalsha_ro", "hlen", "scard", "zcard"]
ACROSS = ["cluster|slots", "cluster|nodes", "cluster|countkeysinslot", "cluster|getkeysinslot"]
ACROSS += ["asking", "multi", "exec", "time", "pexpiretime", "dump", "smembers", "evalsha_ro"]
WRITING_ACROSS = ["restore"]
NEWER = {"evalsha_ro": (7, 0), "pexpiretime": (7, 0), "hpexpiretime": (7, 4)}


def commands(server: Instance, names: list[str]) -> list[str]:
    """Return those of these commands which this server has, with that for field expiries, and with a cluster's own."""
    names = [*names, "hpexpiretime", *across(server, names)]
    return [name for name in names if server.version >= NEWER.get(name, (0, 0))]


def across(server: Instance, names: Sequence[str] = ()) -> list[str]:
    """Return what is called beside these commands where source and target live on two nodes."""
    if server.mode == "standalone":
        return []
    names = [*ACROSS, *(WRITING_ACROSS if "copy" in names else ())]
    return [name for name in names if server.version >= NEWER.get(name, (0, 0))]


@contextmanager
def user(server: Instance, allowed: list[str], keys: list[str]) -> Iterator[str]:
    """Create a user who may call these commands on these keys, and yield the URL for it."""
    rules = [f"+{name}" for name in allowed] + [f"~{key}" for key in keys]
    server.client.execute_command("ACL", "SETUSER", "careful", "reset", "on", ">secret", *rules)
    try:
        yield server.url_for("careful", "secret")
    finally:
        server.client.acl_deluser("careful")


def migrated(server: Instance, result: Result) -> bool:
    """Tell whether the run did its work."""
    return result.code == 0 and bool(server.client.exists("step:1")) and bool(server.client.exists("steps:pending"))


def test_a_run_needs_these_permissions_and_no_others(server: Instance) -> None:
    """Nothing dangerous, no INFO, and only the rules' keys."""
    fill(server.client, jobs=5)
    with user(server, commands(server, RUN), KEYS) as url:
        assert migrated(server, luamigrate("run", url=url))


def test_a_dry_run_needs_a_little_more(server: Instance) -> None:
    """Sizes and, where there is one, EVALSHA_RO."""
    fill(server.client, jobs=5)
    with user(server, commands(server, DRY_RUN), KEYS) as url:
        result = luamigrate("run", "--dry-run", "--json", url=url)
    assert (result.code, result.totals) == (0, {"found": 9, "missing": 9, "ignored": 0})


@pytest.mark.parametrize("lacking", [name for name in (*DRY_RUN, "hpexpiretime") if name not in SPARING])
def test_a_command_that_is_not_permitted_is_named(server: Instance, lacking: str) -> None:
    """Exit 4 before anything is written; the dry run says so as well."""
    if server.version < NEWER.get(lacking, (0, 0)):
        pytest.skip(f"this server has no {lacking}")
    fill(server.client, jobs=5)
    allowed = [name for name in commands(server, DRY_RUN) if name != lacking]
    digest = server.digest()
    with user(server, allowed, KEYS) as url:
        for options in ((), ("--dry-run",)) if lacking in (*RUN, "hpexpiretime") else (("--dry-run",),):
            result = luamigrate("run", *options, url=url)
            # Redis 6.2 names the command alone where a subcommand is refused.
            assert_one_line(result, 4, "permissions")
            assert lacking.split("|", maxsplit=1)[0] in result.err.lower()
    assert server.digest() == digest


@pytest.mark.parametrize("lacking", KEYS)
def test_keys_that_are_not_permitted_are_named(server: Instance, lacking: str) -> None:
    """Exit 4, and the pattern that the user may not touch."""
    fill(server.client, jobs=5)
    digest = server.digest()
    with user(server, commands(server, RUN), [key for key in KEYS if key != lacking]) as url:
        result = luamigrate("run", url=url)
    assert_one_line(result, 4, "permissions", lacking.removesuffix("*"))
    assert server.digest() == digest


def test_a_user_who_may_not_ask_learns_no_database_sizes(server: Instance) -> None:
    """The loud line comes without them."""
    with user(server, commands(server, RUN), KEYS) as url:
        result = luamigrate("run", url=url)
    assert result.code == 3
    assert "NO KEY MATCHED ANY RULE. Are the server" in result.out


def test_a_rule_needs_only_the_permissions_of_its_type(server: Instance) -> None:
    """A hash among sets is ignored by a user who may not read hashes."""
    server.client.hset("job:1", "a", "1")
    server.client.sadd("job:2", "a")
    if server.has_field_expiries:
        server.client.execute_command("HPEXPIRE", "job:1", 100_000, "FIELDS", 1, "a")
    allowed = ["scan", "evalsha", "script|load", "type", "pttl", "memory|usage", "copy", "unlink", "sdiff", "info"]
    allowed += across(server, allowed)
    with user(server, allowed, KEYS) as url:
        result = luamigrate("run", "--map", "job:*=step:*", "--type", "set", "--json", url=url)
    assert (result.code, result.totals) == (0, {"found": 1, "copied": 1, "ignored": 1})


def test_the_probe_writes_nothing(server: Instance) -> None:
    """Not even onto the names of rules without a star, which it is given."""
    server.client.sadd("jobs:active", "1")
    digest = server.digest()
    assert luamigrate("run", "--map", "jobs:active=steps:active", "--type", "zset", url=server.url).code == 3
    assert server.digest() == digest
