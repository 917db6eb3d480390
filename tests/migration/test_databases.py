"""Targets in another database of the server: every command, whatever there is, at once and in chunks."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from luamigrate import Limits, Word, connect, migrate, plan, rollback
from tests.conftest import luamigrate
from tests.instances import Instance, assert_kept, expires_at, snapshot
from tests.migration.test_big import GENTLY, VALUES, configured, write, write_all
from tests.schemas import read_report

pytestmark = pytest.mark.single_server("a cluster has one database")

ELSEWHERE = 3
PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
(ROW,) = re.findall(r"`(--map .* --to-database \d)` \|$", PAGE, re.MULTILINE)
SAME_NAMES = tuple(shlex.split(ROW))
WIDE = 130
"""Makes a table of a compact set of texts."""


@contextmanager
def other_database(server: Instance) -> Iterator[redis.Redis]:
    """Give a client of the database that the targets are in."""
    with server.another_client(db=ELSEWHERE) as client:
        yield client


def digest(client: redis.Redis, key: str | bytes) -> Any:
    """Return the server's own digest of a key's value, by a client of the key's database."""
    return client.execute_command("DEBUG", "DIGEST-VALUE", key)


def write_small(client: redis.Redis) -> None:
    """Write keys of every type, some of which expire, more than are taken together."""
    for number in range(50):
        client.hset(f"job:{number}", mapping={"state": "done", "n": str(number)})
        client.sadd(f"job:set{number}", *range(number + 1))
        client.set(f"job:text{number}", "x" * number)
    for number in range(0, 50, 7):
        client.pexpire(f"job:{number}", 1_000_000 + number)
    client.sadd("job:wide", *[f"member {number}" for number in range(WIDE)])
    client.sadd("job:wider", *[f"member {number}" for number in range(10 * WIDE)])
    client.hset("job:table", mapping={f"field {number}": "x" * 200 for number in range(20)})
    client.zadd("job:zset", {"a": 0.1 + 0.2, "b": float("inf")})
    client.rpush("job:list", *range(100))
    client.xadd("job:stream", {"a": "1"})
    client.xgroup_create("job:stream", "group", id="0")


@pytest.mark.parametrize("how", ["map", "plan"])
def test_the_same_names_in_another_database(server: Instance, tmp_path: Path, how: str) -> None:
    """Every target equals its source by the server's digest and to the millisecond; verify agrees, rollback undoes.

    A plan file says the same as the options do.
    """
    same_names = SAME_NAMES
    if how == "plan":
        file = tmp_path / "plan.toml"
        file.write_text("[[rule]]\nsource = 'job:*'\ntarget = 'job:*'\ndatabase = 3\n")
        same_names = ("--plan", str(file))
    write_small(server.client)
    server.client.set("unrelated", "1")
    before = snapshot(server.client)
    with other_database(server) as there:
        there.set("also unrelated", "1")
        dry = luamigrate("run", "--dry-run", *same_names, "--json", url=server.url)
        assert (dry.code, dry.totals) == (0, {"found": 156, "missing": 156, "ignored": 0})
        assert there.keys() == [b"also unrelated"]
        result = luamigrate("run", *same_names, "--json", url=server.url)
        assert (result.code, result.totals) == (0, {"found": 156, "copied": 156, "ignored": 0})
        assert set(there.keys()) == {*before, b"also unrelated"} - {b"unrelated"}
        for name in before.keys() - {b"unrelated"}:
            assert digest(there, name) == digest(server.client, name)
            moments = expires_at(server.client, name), expires_at(there, name)
            assert moments[0] == moments[1] or server.version < (7, 0)
        for command in (("run",), ("verify", "--extra")):
            again = luamigrate(*command, *same_names, "--json", url=server.url)
            assert (again.code, again.totals) == (0, {"found": 156, "same": 156, "ignored": 0})
        back = luamigrate("rollback", "--yes", "--extra", *same_names, "--json", url=server.url)
        assert (back.code, back.totals) == (0, {"found": 156, "removed": 156, "ignored": 0})
        assert there.keys() == [b"also unrelated"]
    assert_kept(before, snapshot(server.client))


def prepare_targets(client: redis.Redis, prefix: str) -> None:
    """Write targets in every relation to the sources of write_small."""
    client.hset(f"{prefix}1", mapping={"state": "done", "n": "1"})
    client.hset(f"{prefix}2", mapping={"state": "done"})
    client.hset(f"{prefix}3", mapping={"state": "done", "n": "3", "more": "1"})
    client.hset(f"{prefix}7", mapping={"state": "done", "n": "7"})
    client.set(f"{prefix}4", "of another type")
    client.sadd(f"{prefix}set5", *range(5))
    client.sadd(f"{prefix}set6", *range(7))
    client.set(f"{prefix}text9", "something else")
    client.sadd(f"{prefix}wide", *[f"member {number}" for number in range(WIDE - 1)])
    client.rpush(f"{prefix}list", 1)
    client.hset(f"{prefix}orphan", mapping={"a": "1"})


@pytest.mark.parametrize("command", [("run",), ("run", "--on-existing", "fill"), ("verify", "--extra")])
def test_whatever_is_there_is_told_as_in_one_database(
    server: Instance, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Words, notes and reports are the same for targets of other names in the same database."""
    write_small(server.client)
    with other_database(server) as there:
        prepare_targets(there, "job:")
        prepare_targets(server.client, "step:")
        lines = []
        for options in (("--map", "job:*=step:*"), SAME_NAMES):
            report = tmp_path / "report"
            how = ("--json", "--report", str(report), "--report-all", "--show-values")
            result = luamigrate(*command, *options, *how, url=server.url)
            keys = read_report(report.read_text(encoding="utf-8"))
            lines.append({key["source"].replace("step:", "job:"): key for key in keys})
            assert {key.pop("database", None) for key in keys} == {ELSEWHERE if options is SAME_NAMES else None}
            for key in keys:
                for name in ("target", "source", "source_ttl_ms", "target_ttl_ms"):
                    key.pop(name, None)
        assert lines[0] == lines[1]
        assert result.document["rules"][0]["database"] == ELSEWHERE
        words = {key["word"] for key in lines[0].values()}
        assert words >= {"same", "differs", "expiry"}
        assert ("extra" if command[0] == "verify" else "copied") in words
        assert ("filled" if "fill" in command else "partial") in words


def test_what_is_there_stays_as_it_is(server: Instance) -> None:
    """In both databases, whatever a run finds."""
    write_small(server.client)
    with other_database(server) as there:
        prepare_targets(there, "job:")
        before, here = snapshot(there), snapshot(server.client)
        assert luamigrate("run", *SAME_NAMES, url=server.url).code == 3
        assert_kept(before, snapshot(there))
    assert snapshot(server.client).keys() == here.keys()
    assert_kept(here, snapshot(server.client))


def test_big_keys_go_in_chunks_to_another_database(server: Instance) -> None:
    """Of every type, expiries included; they are compared and removed in chunks too."""
    write_all(server)
    server.client.pexpire("job:hash", 123_456)
    options = (*SAME_NAMES, *GENTLY, "--json")
    with other_database(server) as there:
        assert luamigrate("run", *options, url=server.url).totals == {"found": 5, "copied": 5, "ignored": 0}
        assert len(there.keys()) == 5
        for kind in VALUES:
            assert digest(there, f"job:{kind}") == digest(server.client, f"job:{kind}")
        assert abs(expires_at(there, "job:hash") - expires_at(server.client, "job:hash")) <= 2
        assert luamigrate("verify", *options, url=server.url).totals == {"found": 5, "same": 5, "ignored": 0}
        there.hdel("job:hash", "0-\x00\xff\r\n".encode("latin-1"))
        there.rpush("job:list", "more")
        found = luamigrate("verify", *options, url=server.url)
        assert found.totals == {"found": 5, "same": 3, "partial": 1, "differs": 1, "ignored": 0}
        filled = luamigrate("run", "--on-existing", "fill", *options, url=server.url)
        assert filled.totals == {"found": 5, "same": 3, "filled": 1, "differs": 1, "ignored": 0}
        back = luamigrate("rollback", "--yes", *options, url=server.url)
        assert back.totals == {"found": 5, "removed": 4, "kept": 1, "ignored": 0}
        assert there.keys() == [b"job:list"]
    assert sorted(server.client.keys()) == sorted(f"job:{kind}".encode() for kind in VALUES)


@pytest.mark.parametrize("writes_to", ["source", "target"])
def test_a_write_to_either_key_undoes_a_chunk(server: Instance, writes_to: str) -> None:
    """A source that is written to is copied anew; a target that somebody else makes meanwhile is compared."""
    write(server, "job:hash", VALUES["hash"])
    rules = plan([("job:*", "job:*", "any")], database=ELSEWHERE)
    limits = Limits(max_pause=0.1)
    with other_database(server) as there, connect(server.url) as connection:
        words: list[str] = []
        wrote = False
        for batch in migrate(connection, rules, limits=limits, settle=0, every_key=True):
            if batch.large and not wrote:
                wrote = True
                (server.client if writes_to == "source" else there).hset("job:hash", "later", "1")
                names: Any = there.keys("luamigrate:staging:*")
                assert len(names) == 1
                assert not server.client.keys("luamigrate:*")
            words += [str(key.word) for key in batch.keys]
        assert wrote
        if writes_to == "source":
            assert words == ["copied"]
            assert there.hget("job:hash", "later") == b"1"
            assert digest(there, "job:hash") == digest(server.client, "job:hash")
        else:
            assert words == ["differs"]
            assert there.hgetall("job:hash") == {b"later": b"1"}
        assert not there.keys("luamigrate:*")
        # The connection is still in the database of the sources.
        assert connection.primaries[0].call("DBSIZE").answer() == 1


def test_who_waits_in_the_targets_database_is_seen(server: Instance) -> None:
    """One that waits in the sources' database does not matter."""
    server.client.rpush("job:list", "a")
    for database, code in ((0, 0), (ELSEWHERE, 4)):
        with server.another_client(db=database, single_connection_client=True) as waiting:
            connection: Any = waiting.connection
            connection.send_command("BLPOP", "job:other", 0)
            deadline = time.monotonic() + 5
            while not any("b" in client["flags"] for client in server.client.client_list()):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            result = luamigrate("check", *SAME_NAMES, url=server.url)
        assert result.code == code, result.out
        assert ("clients wait in database 3" in result.out) == bool(code)
    with other_database(server) as there:
        assert not there.dbsize()


def test_a_database_that_does_not_exist_is_refused(server: Instance) -> None:
    """By a check, before anything is written."""
    server.client.set("job:1", "1")
    for command in (("check",), ("run",), ("run", "--dry-run"), ("verify",), ("rollback", "--yes")):
        result = luamigrate(*command, "--map", "job:*=job:*", "--to-database", "99", url=server.url)
        assert result.code == 4
        assert re.search("databases:? +there is no database 99 here", result.out + result.err)
        assert server.client.keys() == [b"job:1"]


def test_a_plan_file_has_databases_of_its_own(server: Instance, tmp_path: Path) -> None:
    """The option is for the rules without one; that of the URL is the sources' own."""
    file = tmp_path / "plan.toml"
    rules = [("a:*", "a:*", "database = 2"), ("b:*", "b:*", ""), ("c:*", "d:*", "database = 0")]
    file.write_text("\n".join(f"[[rule]]\nsource = '{a}'\ntarget = '{b}'\n{more}\n" for a, b, more in rules))
    for name in ("a:1", "b:1", "c:1"):
        server.client.set(name, name)
    result = luamigrate("run", "--plan", str(file), "--to-database", "3", "--json", url=server.url)
    assert (result.code, result.totals["copied"]) == (0, 3)
    assert [rule.get("database") for rule in result.document["rules"]] == [2, 3, None]
    with server.another_client(db=2) as second, other_database(server) as third:
        assert (second.keys(), third.keys()) == ([b"a:1"], [b"b:1"])
    assert sorted(server.client.keys()) == [b"a:1", b"b:1", b"c:1", b"d:1"]


def test_the_screen_says_where_the_targets_are(server: Instance) -> None:
    """In the configuration, in each rule's line, and in the question of a rollback's dry run."""
    server.client.set("job:1", "1")
    result = luamigrate("run", *SAME_NAMES, url=server.url)
    assert result.code == 0
    assert "[1/1] job:* -> job:* in database 3 (any)" in result.out
    assert "  job:* -> job:* in database 3: 1 copied" in result.out
    assert "to database    3" in result.out


def test_a_server_that_forgets_scripts_is_told_them_again(server: Instance) -> None:
    """Also those of chunks, and that for commands in another database."""
    write_all(server)
    rules = plan([("job:*", "job:*", "any")], database=ELSEWHERE)
    with connect(server.url) as connection, configured(server, slowlog_max_len=1):
        for batch in migrate(connection, rules, limits=Limits(max_pause=0.1), settle=0):
            server.client.script_flush()
            assert not batch.tally.counts[Word.FAILED]
    with other_database(server) as there:
        assert {digest(there, f"job:{kind}")[0] for kind in VALUES} == {
            digest(server.client, f"job:{kind}")[0] for kind in VALUES
        }


def test_a_connection_that_is_lost_in_mid_copy_is_made_again(server: Instance) -> None:
    """In the database of the sources: each key is begun anew, and nothing is left behind in either database."""
    write_all(server)
    rules = plan([("job:*", "job:*", "any")], database=ELSEWHERE)
    lost: set[bytes] = set()
    with connect(server.url) as connection, other_database(server) as there:
        for work, word in ((migrate, Word.COPIED), (rollback, Word.REMOVED)):
            lost.clear()
            words = []
            for batch in work(connection, rules, limits=Limits(max_pause=0.1), settle=0, every_key=True):
                if batch.large and batch.large[0] not in lost:
                    lost.add(batch.large[0])
                    server.client.client_kill_filter(_type="normal", skipme=True)
                words += [key.word for key in batch.keys]
            assert words == [word] * len(VALUES)
            assert len(lost) == len(VALUES)
            copied = VALUES if word is Word.COPIED else ()
            assert sorted(there.keys()) == sorted(f"job:{kind}".encode() for kind in copied)
            assert all(digest(there, name) == digest(server.client, name) for name in there.keys())  # noqa: SIM118
    assert server.client.dbsize() == len(VALUES)


def test_everything_may_be_copied_to_another_database(server: Instance) -> None:
    """Under its own name; only the tool's own keys stay where they are."""
    write_small(server.client)
    server.client.set("luamigrate:staging:1", "1")
    options = ("--map", "*=*", "--to-database", str(ELSEWHERE), "--json")
    result = luamigrate("run", *options, url=server.url)
    assert (result.code, result.totals) == (0, {"found": 156, "copied": 156, "ignored": 0})
    with other_database(server) as there:
        assert sorted(there.keys()) == sorted(set(server.client.keys()) - {b"luamigrate:staging:1"})
        there.set("more", "1")
    assert luamigrate("verify", "--extra", *options, url=server.url).totals["extra"] == 1
