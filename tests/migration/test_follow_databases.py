"""Following into another database, and a table of single names: what is told has no database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import luamigrate
from luamigrate import Plan, Refused, connect, follow, migrate
from luamigrate.model.following import LEASES
from luamigrate.model.plan_files import plan_from_pairs
from luamigrate.model.rules import RESERVED
from tests.clusters import wait_until
from tests.conftest import luamigrate as command_line
from tests.following import Following
from tests.instances import Instance

pytestmark = [pytest.mark.oldest_and_newest, pytest.mark.single_server("a cluster has one database")]

OTHER = 5
SAME_NAMES = luamigrate.plan([("job:*", "job:*", "any")], database=OTHER)
RENAMED = luamigrate.plan([("job:*", "step:*", "any")], database=OTHER)


def is_theirs(client: Any, name: bytes) -> bool:
    """Tell whether a key is a hash, and none of the tool's own."""
    return client.type(name) == b"hash" and not name.startswith(RESERVED)


def contents(client: Any) -> dict[bytes, Any]:
    """Return the hashes of a database."""
    return {name: client.hgetall(name) for name in client.scan_iter("*") if is_theirs(client, name)}


@pytest.mark.parametrize(("plan", "prefix"), [(SAME_NAMES, "job:"), (RENAMED, "step:")])
def test_targets_in_another_database_are_kept_in_step(server: Instance, plan: Plan, prefix: str) -> None:
    """Also where they have the names of their sources."""
    client: Any = server.client
    with server.another_client(db=OTHER) as other:
        other.flushdb()
        other.hset("beside", "a", "1")
        for number in range(50):
            client.hset(f"job:{number}", "a", number)
        client.sadd("job:set", *range(1000))
        with Following(server.url, plan) as following:
            following.wait_until_in_step()
            client.hset("job:1", "a", "changed")
            client.delete("job:2")
            client.hset("job:new", "b", "1")
            client.sadd("job:set", "more")
            following.wait_until_in_step()
            wanted = {f"{prefix}".encode() + name[4:]: value for name, value in contents(client).items()}
            assert contents(other) == {**wanted, b"beside": {b"a": b"1"}}
            assert other.scard(f"{prefix}set") == 1001
            assert not client.exists("step:1")
        assert following.error is None
        assert following.keys == []
        other.flushdb()


def test_a_target_of_the_same_name_that_has_no_source_is_never_deleted(server: Instance) -> None:
    """Nobody tells in which database a name was written, so that is no proof of a source."""
    with server.another_client(db=OTHER) as other:
        other.flushdb()
        server.client.hset("job:1", "a", "1")
        with Following(server.url, SAME_NAMES) as following:
            following.wait_until_in_step()
            other.hset("job:theirs", "a", "1")
            following.wait_until(lambda now: now.extra > 0)
            server.client.hset("job:theirs", "b", "1")
            following.wait_until(lambda now: now.foreign > 0)
        assert other.hgetall("job:theirs") == {b"a": b"1"}
        other.flushdb()


def test_a_write_to_a_target_in_another_database_is_foreign(server: Instance) -> None:
    """Its name is told, and is no source."""
    with server.another_client(db=OTHER) as other:
        other.flushdb()
        server.client.hset("job:1", "a", "1")
        server.client.hset("step:1", "a", "of another database")
        with Following(server.url, RENAMED) as following:
            following.wait_until_in_step()
            server.client.hset("step:1", "a", "again")
            following.wait_until_in_step()
            other.hset("step:1", "b", "theirs")
            following.wait_until(lambda now: now.foreign > 0)
        assert [(key.source, key.word) for key in following.keys] == [(b"job:1", luamigrate.Word.FOREIGN)]
        other.flushdb()


def test_the_lease_keeps_others_away_in_both_databases(server: Instance) -> None:
    """Whoever would write the targets there, or the sources here."""
    server.client.hset("job:1", "a", "1")
    with server.another_client(db=OTHER) as other:
        other.flushdb()
        other.hset("x:1", "a", "1")
        url = f"{server.url}?db={OTHER}"
        with Following(server.url, RENAMED) as following:
            following.wait_until_in_step()
            assert other.exists(LEASES)
            with connect(url) as there, pytest.raises(Refused, match="a follow of such names is under way"):
                list(migrate(there, luamigrate.plan([("x:*", "step:*", "any")])))
            with connect(server.url) as here, pytest.raises(Refused, match="a follow of such names is under way"):
                list(migrate(here, RENAMED))
            with connect(url) as there:
                list(migrate(there, luamigrate.plan([("x:*", "job:*", "any")])))
        assert not other.exists(LEASES)
        other.flushdb()


def test_a_table_of_names_is_followed(server: Instance, tmp_path: Path) -> None:
    """By at most sixteen prefixes; names that are not in it are nobody's."""
    client: Any = server.client
    table = tmp_path / "pairs.tsv"
    table.write_text("".join(f"{chr(97 + number % 26)}{number}\tnew-{number * 7919}\n" for number in range(2000)))
    plan = plan_from_pairs(str(table))
    client.hset("a0", "f", "1")
    client.hset("a1", "f", "not in the table")
    with Following(server.url, plan) as following:
        following.wait_until_in_step()
        client.hset("b1", "f", "2")
        client.delete("a0")
        following.wait_until_in_step()
        wait_until(lambda: client.hgetall("new-7919") == {b"f": b"2"})
        assert not client.exists("new-0")
    assert following.error is None


def test_a_table_is_followed_from_the_command_line(server: Instance, tmp_path: Path) -> None:
    """In a dry run it says how it would begin."""
    table = tmp_path / "pairs.tsv"
    table.write_text("a\tb\nc\td\n")
    server.client.hset("a", "f", "1")
    result = command_line("follow", "--pairs", str(table), "--dry-run", url=server.url)
    assert result.code == 0
    assert "would copy 1 key" in result.out


def test_following_needs_the_databases_that_it_writes(server: Instance) -> None:
    """As a run does."""
    with connect(server.url) as deployment, pytest.raises(Refused, match="databases: "):
        list(follow(deployment, luamigrate.plan([("job:*", "step:*", "any")], database=4000)))
