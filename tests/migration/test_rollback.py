"""`luamigrate rollback`: what equals its source goes, everything else stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from luamigrate.scripts import library
from tests.cli.test_bad_input import assert_one_line
from tests.conftest import Result, luamigrate
from tests.instances import Instance, snapshot
from tests.migration.test_run import HASHES, fill
from tests.preflight.test_checks import ANYTHING, READING, commands, user
from tests.scripts.test_lua import LIMITS, stream

ANY = ("--map", "job:*=step:*", "--map", "jobs:*=steps:*")


def rolled_back(server: Instance, *options: str) -> Result:
    """Roll back and hold it to its promise: nothing but targets is gone, and nothing is changed."""
    before = snapshot(server.client)
    result = luamigrate("rollback", "--yes", *options, url=server.url)
    after = snapshot(server.client)
    assert {key: value for key, (value, _) in after.items()}.items() <= {k: v for k, (v, _) in before.items()}.items()
    assert all(key.startswith(b"step") for key in before.keys() - after.keys())
    return result


def fill_every_type(server: Instance) -> None:
    """Write the jobs, and a key of each other type under their names."""
    fill(server.client, jobs=50)
    client = server.client
    client.set("job:string", "text")
    client.rpush("job:list", *range(300))
    stream(client, "job:stream")
    client.expire("job:7", 10_000)
    if server.has_field_expiries:
        client.execute_command("HPEXPIRE", "job:8", 100_000, "FIELDS", 1, "id")


def test_after_run_and_rollback_everything_is_what_it_was(server: Instance) -> None:
    """By the server's own digest of the whole key space, where no target was there before."""
    fill_every_type(server)
    digest = server.digest()
    assert luamigrate("run", *ANY, url=server.url).code == 0
    assert server.digest() != digest
    result = rolled_back(server, *ANY, "--json")
    assert (result.code, result.totals) == (0, {"found": 57, "removed": 57, "ignored": 0})
    assert server.digest() == digest


def test_targets_that_differed_before_are_as_they_were(server: Instance) -> None:
    """The application's own, whatever they hold."""
    fill_every_type(server)
    server.client.hset("step:1", mapping={"id": "another"})
    server.client.hset("step:2", mapping={"id": "2"})
    server.client.hset("step:orphan", mapping={"id": "2"})
    server.client.set("step:3", "text")
    digest = server.digest()
    assert luamigrate("run", *ANY, url=server.url).code == 3
    result = rolled_back(server, *ANY, "--json")
    assert (result.code, result.totals) == (3, {"found": 57, "removed": 54, "kept": 3, "ignored": 0})
    assert result.document["rules"][0]["kept_reasons"] == {"differs": 2, "partial": 1}
    assert server.digest() == digest


def test_targets_that_equalled_their_source_before_are_gone_exactly_those(server: Instance) -> None:
    """Nobody can tell who made them; nothing is lost with them, and the prompt says so."""
    fill_every_type(server)
    server.client.copy("job:1", "step:1")
    server.client.copy("job:list", "step:list")
    before = snapshot(server.client)
    assert luamigrate("run", *ANY, url=server.url).code == 0
    assert rolled_back(server, *ANY).code == 0
    assert before.keys() - snapshot(server.client).keys() == {b"step:1", b"step:list"}


def test_a_rollback_again_finds_nothing_to_remove(server: Instance) -> None:
    """`missing` is fine here."""
    fill(server.client, jobs=5)
    result = rolled_back(server, "--json")
    assert (result.code, result.totals) == (0, {"found": 9, "missing": 9, "ignored": 0})


def test_what_is_said_at_the_end_is_true_of_other_types_too(server: Instance) -> None:
    """A target of a type that the rule does not concern is still there."""
    for number, write in (("1", server.client.incr), ("2", lambda key: server.client.sadd(key, "x"))):
        write(f"job:{number}")
        server.client.copy(f"job:{number}", f"step:{number}")
    out = rolled_back(server, "--map", "job:*=step:*", "--type", "string").out
    assert "No source of its rule's type has a target any more" in out


def test_what_lives_longer_than_its_source_is_kept(server: Instance) -> None:
    """However little; what is gone sooner, or with it, is not lost."""
    client = server.client
    for number in range(5):
        client.hset(f"job:{number}", "a", "1")
        client.pexpireat(f"job:{number}", 32503680000000)
        client.copy(f"job:{number}", f"step:{number}")
    client.pexpireat("step:1", 32503680000001)
    client.pexpireat("step:2", 32503679999999)
    client.persist("step:3")
    client.persist("job:4")
    result = rolled_back(server, *HASHES, "--json")
    assert (result.code, result.totals) == (3, {"found": 5, "removed": 3, "kept": 2, "ignored": 0})
    assert result.document["rules"][0]["kept_reasons"] == {"expiry": 2}
    assert client.exists("step:1", "step:3") == 2


def test_a_field_that_lives_longer_than_in_its_source_is_kept(server: Instance) -> None:
    """As with keys."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    client = server.client
    for number, moment in (("1", 32503680000001), ("2", 32503679999999), ("3", 32503680000000)):
        for name, at in ((f"job:{number}", 32503680000000), (f"step:{number}", moment)):
            client.hset(name, mapping={"a": "1", "b": "2"})
            client.execute_command("HPEXPIREAT", name, at, "FIELDS", 1, "a")
    assert rolled_back(server, *HASHES, "--json").totals == {"found": 3, "removed": 2, "kept": 1, "ignored": 0}
    assert client.exists("step:1")


def test_a_field_that_is_kept_for_is_named(server: Instance, tmp_path: Path) -> None:
    """Also where the expiries are less than a second apart, and the keys' own are the same."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    for name, at in (("job:1", 32503680000000), ("step:1", 32503680000400)):
        server.client.hset(name, mapping={"a": "1", "b": "2"})
        server.client.execute_command("HPEXPIREAT", name, at, "FIELDS", 1, "a")
    rolled_back(server, *HASHES, "--report", str(tmp_path / "report"))
    line = json.loads((tmp_path / "report").read_text())
    expected = {"word": "kept", "reason": "expiry", "expiring_apart": 1, "expiring_apart_names": ["a"]}
    assert line == {"source": "job:1", "target": "step:1", **expected}


@pytest.mark.single_server("a script is called by itself, with keys of several slots")
def test_moments_that_pass_while_the_script_runs_are_no_proof(server: Instance) -> None:
    """On Redis 6.2 and 7.0 the clock goes on in a script, and what is past looks alike."""
    client = server.client
    fields: Any = {f"field-{number}": "x" * 70 for number in range(30_000)}
    client.hset("s0", mapping=fields)
    client.hset("t0", mapping=dict(reversed(fields.items())))
    keys = ["s0", "t0"]
    for number in range(1, 10):
        client.set(f"s{number}", "x", px=60)
        client.set(f"t{number}", "x", px=90)
        keys += [f"s{number}", f"t{number}"]
    answers: Any = client.eval(library.source("remove"), len(keys), *keys, *LIMITS, "any", "1", "0")
    words = {answer if isinstance(answer, bytes) else answer[0] for answer in answers[1:-1]}
    assert words <= {b"kept", b"gone"}


def test_what_is_kept_is_reported_with_its_reason(server: Instance, tmp_path: Path) -> None:
    """On the screen, in the summary and in the report."""
    fill(server.client, jobs=5)
    luamigrate("run", url=server.url)
    server.client.hset("step:1", "status", "done")
    server.client.hdel("step:2", "id")
    server.client.hset("step:orphan", "id", "1")
    file = tmp_path / "report.jsonl"
    result = rolled_back(server, "--report", str(file))
    assert result.code == 3
    assert "kept     job:1 -> step:1  differs; contradicts in 1 (status)" in result.out
    assert "3 removed, 1 kept (differs), 1 kept (partial)" in result.out
    assert "Targets that have no source were not looked for (--extra does), and are never deleted." in result.out
    lines = {line["source"]: line for line in map(json.loads, file.read_text().splitlines())}
    assert {name: (line["word"], line["reason"]) for name, line in lines.items()} == {
        "job:1": ("kept", "differs"),
        "job:2": ("kept", "partial"),
    }
    assert lines["job:2"]["missing_names"] == ["id"]


def test_extra_targets_are_named_and_never_deleted(server: Instance) -> None:
    """They are looked for on request."""
    server.client.hset("job:1", "id", "1")
    server.client.hset("step:orphan", "id", "1")
    result = rolled_back(server, *HASHES, "--extra")
    assert result.code == 3
    assert "extra    step:orphan  job:orphan is not there" in result.out
    assert "were not looked for" not in result.out
    assert server.client.exists("step:orphan")


def test_a_dry_run_deletes_nothing_and_says_what_would_be(server: Instance) -> None:
    """With the exit code of the rollback."""
    fill(server.client, jobs=5)
    luamigrate("run", url=server.url)
    server.client.hset("step:1", "status", "done")
    digest = server.digest()
    dry = luamigrate("rollback", "--dry-run", "--json", url=server.url)
    assert (dry.code, dry.totals) == (3, {"found": 9, "same": 8, "kept": 1, "ignored": 0})
    assert "4 would be deleted" in luamigrate("rollback", "--dry-run", url=server.url).out
    assert server.digest() == digest
    assert rolled_back(server, "--json").totals == {"found": 9, "removed": 8, "kept": 1, "ignored": 0}


@pytest.mark.single_server("it counts the calls to one server")
def test_the_server_itself_holds_a_dry_run_to_reading(server: Instance) -> None:
    """Where there is EVALSHA_RO, pairs are only ever looked at through it."""
    if server.version < (7, 0):
        pytest.skip("this server has no EVALSHA_RO")
    fill(server.client, jobs=5)
    server.client.config_resetstat()
    luamigrate("rollback", "--dry-run", *HASHES, url=server.url)
    calls: Any = server.client.info("commandstats")
    assert calls["cmdstat_evalsha_ro"]["calls"] == 1 + 1, "and the probe"


def test_without_sources_nothing_is_deleted_and_it_is_said_loudly(server: Instance) -> None:
    """Exit 3: the sources are the proof."""
    server.client.hset("step:1", "id", "1")
    result = rolled_back(server)
    assert result.code == 3
    assert "NO KEY MATCHED ANY RULE" in result.out
    assert server.client.exists("step:1")


def test_big_targets_are_unlinked(server: Instance) -> None:
    """UNLINK frees in the background; DEL would hold the server."""
    fill(server.client, jobs=5)
    luamigrate("run", url=server.url)
    server.client.config_resetstat()
    rolled_back(server)
    calls: dict[str, Any] = {name: stats["calls"] for name, stats in server.client.info("commandstats").items()}
    assert calls["cmdstat_unlink"] == 9 + len(server.shards()), "and the probes', of names that are not there"
    assert "cmdstat_del" not in calls


def test_it_needs_these_permissions_and_no_others(server: Instance) -> None:
    """UNLINK is named where it is denied."""
    fill(server.client, jobs=5)
    luamigrate("run", url=server.url)
    allowed = commands(server, [*ANYTHING, *READING])
    keys = ["job:*", "step:*", "jobs:*", "steps:*"]
    with user(server, allowed, keys) as url:
        assert_one_line(luamigrate("rollback", "--yes", url=url), 4, "permissions", "UNLINK")
    with user(server, [*allowed, "unlink"], keys) as url:
        if "evalsha_ro" not in allowed and server.version >= (7, 0):
            refused = luamigrate("rollback", "--yes", "--extra", url=url)
            assert_one_line(refused, 4, "permissions", "evalsha_ro")
            assert server.client.exists("step:1")
        assert luamigrate("rollback", "--yes", url=url).code == 0
    assert not server.client.exists("step:1")
