"""`luamigrate verify`: what it finds, what it tells, and that it writes nothing."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from luamigrate import Limits, Operator, connect, plan, verify
from luamigrate.cli.embedded import free_port
from tests.cli.test_bad_input import assert_one_line
from tests.conftest import Result, luamigrate
from tests.instances import Instance
from tests.migration.test_run import HASHES, fill
from tests.preflight.test_checks import across, user

LONG_ENOUGH = "0.5"
"""Seconds to settle where the second looks must come after the scan."""


def verified(server: Instance, *options: str, code: int) -> Result:
    """Run `luamigrate verify` and hold it to its promise: nothing is written."""
    digest = server.digest()
    result = luamigrate("verify", *options, url=server.url)
    assert server.digest() == digest
    assert result.code == code, result.out + result.err
    return result


def prepare(server: Instance) -> None:
    """Write 20 jobs with a target in each relation to its source, most of them equal."""
    fill(server.client, jobs=20)
    assert luamigrate("run", url=server.url).code == 0
    client = server.client
    client.hdel("step:1", "status", "payload")
    client.hset("step:2", mapping={"status": "done", "id": "x", "more": "1"})
    client.delete("step:3")
    client.expire("step:4", 1000)
    client.delete("step:5")
    client.set("step:5", "a string")
    client.srem("steps:active", "active-1")
    client.zadd("steps:pending", {"new": 1})
    client.set("job:counter", 20)
    client.hset("step:orphan", "id", "1")


TOTALS = {"found": 24, "same": 17, "expiry": 1, "partial": 2, "differs": 3, "missing": 1, "ignored": 1}


def test_equal_copies_are_the_same(server: Instance) -> None:
    """Exit 0, and the closing line says it."""
    fill(server.client, jobs=20)
    luamigrate("run", url=server.url)
    result = verified(server, code=0)
    assert "Every source that was found has an equal target." in result.out
    assert "Summary of the comparison: nothing was written" in result.out


def test_every_relation_has_its_word(server: Instance) -> None:
    """Exit 3, by rule and in total; `missing` is not fine here."""
    prepare(server)
    result = verified(server, "--json", code=3)
    assert result.totals == TOTALS
    assert result.document["command"] == "verify"
    assert result.document["dry_run"] is False
    assert result.document["rules"][0]["missing"] == 1
    assert result.document["rules"][1]["partial"] == 1
    out = verified(server, code=3).out
    assert "missing  job:3 -> step:3" in out
    assert "partial  job:1 -> step:1  lacks 2 (status, payload)" in out
    assert "differs  job:5 -> step:5  is a string, not a hash" in out
    assert "job:* -> step:*: 15 same, 1 expiry, 1 partial, 2 differs, 1 missing, ignored 1 of type string" in out
    assert "1 missing: sources that have no target. luamigrate run copies them." in out


def test_missing_targets_alone_are_not_fine(server: Instance) -> None:
    """Exit 3, unlike a dry run."""
    fill(server.client, jobs=3)
    assert verified(server, "--json", code=3).totals == {"found": 7, "missing": 7, "ignored": 0}


def test_the_report_says_what_differs(server: Instance, tmp_path: Path) -> None:
    """A line per key that is not clean, with counts, names, expiries and types, but no values."""
    prepare(server)
    lines = report(server, tmp_path, "--extra")
    assert set(lines) == {"job:1", "job:2", "job:3", "job:4", "job:5", "job:orphan", "jobs:active", "jobs:pending"}
    assert lines["job:1"] == {
        "target": "step:1",
        "word": "partial",
        "missing": 2,
        "missing_names": ["status", "payload"],
        "additional": 0,
        "contradicting": 0,
    }
    assert lines["job:2"]["word"] == "differs"
    assert (lines["job:2"]["additional"], lines["job:2"]["additional_names"]) == (1, ["more"])
    assert lines["job:2"]["contradicting"] == 2
    assert sorted(lines["job:2"]["contradicting_names"]) == ["id", "status"]
    assert lines["job:3"] == {"target": "step:3", "word": "missing"}
    expiry = lines["job:4"].pop("target_ttl_ms")
    assert lines["job:4"] == {"target": "step:4", "word": "expiry", "source_ttl_ms": None}
    assert 990_000 < expiry <= 1_000_000
    types = {"source_type": "hash", "target_type": "string"}
    assert lines["job:5"] == {"target": "step:5", "word": "differs", **types}
    assert lines["job:orphan"] == {"target": "step:orphan", "word": "extra"}
    assert lines["jobs:active"]["missing_names"] == ["active-1"]
    assert lines["jobs:pending"]["additional_names"] == ["new"]


def report(server: Instance, tmp_path: Path, *options: str) -> dict[str, Any]:
    """Verify and return the lines of the report by source."""
    file = tmp_path / "report.jsonl"
    verified(server, "--report", str(file), *options, code=3)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return {line.pop("source"): line for line in lines}


def test_values_are_in_the_report_only_if_asked_for(server: Instance, tmp_path: Path) -> None:
    """They may be secrets."""
    server.client.hset("job:1", mapping={"token": "hunter2", "id": "1"})
    server.client.hset("step:1", mapping={"id": "2"})
    without = report(server, tmp_path, *HASHES)["job:1"]
    assert "hunter2" not in json.dumps(without)
    shown = report(server, tmp_path, *HASHES, "--show-values")["job:1"]
    assert shown["values"] == [["token", "hunter2", None], ["id", "1", "2"]]


def test_names_of_fields_are_escaped(server: Instance, tmp_path: Path) -> None:
    """On the screen and in the report, as key names are."""
    server.client.hset("job:1", mapping={b"\x1b[2J\xff\n": "1", "a": "1"})
    server.client.hset("step:1", mapping={"a": "1"})
    assert report(server, tmp_path, *HASHES)["job:1"]["missing_names"] == [r"\x1b[2J\xff\x0a"]
    assert r"lacks 1 (\x1b[2J\xff\x0a)" in verified(server, *HASHES, code=3).out


def test_the_screen_shows_the_first_ten_and_says_where_the_rest_is(server: Instance) -> None:
    """Forty keys differ."""
    for number in range(40):
        server.client.hset(f"job:{number}", "a", "1")
    out = verified(server, *HASHES, code=3).out
    assert out.count("  missing  job:") == 10
    assert "30 more such keys are not shown above." in out
    assert "Which keys, and what differs: add --report FILE." in out


def test_field_expiries_are_compared(server: Instance, tmp_path: Path) -> None:
    """The fields that expire apart are counted and named."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    for name in ("job:1", "step:1"):
        server.client.hset(name, mapping={"a": "1", "b": "2", "c": "3"})
        server.client.execute_command("HPEXPIRE", name, 100_000, "FIELDS", 1, "a")
    server.client.execute_command("HPEXPIRE", "step:1", 200_000, "FIELDS", 2, "a", "b")
    line = report(server, tmp_path, *HASHES)["job:1"]
    assert line.pop("expiring_apart_names").sort() is None
    assert line == {"target": "step:1", "word": "expiry", "expiring_apart": 2}
    assert verified(server, *HASHES, "--ignore-expiry", "--json", code=0).totals["same"] == 1


def test_extra_finds_targets_without_a_source(server: Instance) -> None:
    """Of the rule's type only; beside the sum; where there are none, none."""
    fill(server.client, jobs=5)
    luamigrate("run", url=server.url)
    assert verified(server, "--extra", "--json", code=0).totals == {"found": 9, "same": 9, "ignored": 0}
    server.client.hset("step:orphan", "a", "1")
    server.client.set("step:other", "not a hash")
    server.client.delete("jobs:failed")
    result = verified(server, "--extra", "--json", code=3)
    assert result.totals == {"found": 8, "same": 8, "extra": 2, "ignored": 0}
    assert [rule.get("extra", 0) for rule in result.document["rules"]] == [1, 0, 0, 1, 0]
    assert verified(server, "--json", code=0).totals == {"found": 8, "same": 8, "ignored": 0}


def test_a_target_whose_source_is_of_another_type_is_extra(server: Instance) -> None:
    """No source of the rule's gives it, and it is said what stands there."""
    server.client.set("job:1", "text")
    server.client.hset("step:1", "a", "1")
    server.client.hset("job:2", "a", "1")
    server.client.hset("step:2", "a", "1")
    out = verified(server, *HASHES, "--extra", code=3).out
    assert "extra    step:1  job:1 is a string" in out
    assert "1 extra: targets that have no source" in out


def test_extra_needs_only_the_permissions_of_the_rules_type(server: Instance) -> None:
    """A hash among strings is not read, though fields of hashes may expire."""
    server.client.set("job:1", "text")
    server.client.set("step:1", "text")
    server.client.hset("step:2", "a", "1")
    if server.has_field_expiries:
        server.client.execute_command("HPEXPIRE", "step:2", 100_000, "FIELDS", 1, "a")
    allowed = ["scan", "script|load", "type", "pttl", "memory|usage", "get", "info", *across(server)]
    calling = ["evalsha_ro"] if server.version >= (7, 0) else ["evalsha"]
    with user(server, [*allowed, *calling], ["*"]) as url:
        options = ("--map", "job:*=step:*", "--type", "string", "--extra", "--json")
        result = luamigrate("verify", *options, url=url)
    assert (result.code, result.totals) == (0, {"found": 1, "same": 1, "ignored": 0})


def test_a_sample_is_a_quick_look_and_says_so(server: Instance) -> None:
    """No more than so many keys of each rule are compared."""
    fill(server.client, jobs=300)
    luamigrate("run", url=server.url)
    result = verified(server, "--sample", "7", "--json", code=0)
    assert result.totals == {"found": 11, "same": 11, "ignored": 0}
    assert result.document["sample"] == 7
    out = verified(server, "--sample", "7", code=0).out
    assert "A SAMPLE: at most the first 7 keys of each rule were compared." in out
    assert "Every source that was found" not in out
    assert verified(server, "--sample", "1000", "--json", code=0).totals["found"] == 304


def test_a_write_under_way_is_not_reported(server: Instance) -> None:
    """What the second look finds equal is `same`."""
    server.client.hset("job:1", "a", "2")
    server.client.hset("step:1", "a", "1")
    with connect(server.url) as connection:
        words: list[str] = []
        for batch in verify(connection, plan([("job:*", "step:*", "hash")]), settle=0.05):
            if batch.tally.waiting > 0:
                server.client.hset("step:1", "a", "2")
            words += batch.tally.counts.elements()
    assert words == ["same"]


def test_a_single_key_that_vanishes_between_the_looks_is_gone(server: Instance) -> None:
    """As one of many would be: it was found."""
    server.client.hset("job", "a", "1")
    words: list[str] = []
    with connect(server.url) as connection:
        for batch in verify(connection, plan([("job", "step", "hash")]), settle=0.05):
            if batch.tally.waiting > 0:
                server.client.delete("job")
            words += batch.tally.counts.elements()
    assert words == ["gone"]


def test_a_permission_that_goes_before_the_search_for_extra_targets_is_no_refusal(server: Instance) -> None:
    """Both scripts are registered before the first key."""
    fill(server.client, jobs=5)
    with user(server, ["@all"], ["*"]) as url, connect(url) as connection:
        server.client.execute_command("ACL", "SETUSER", "careful", "+@all")
        words: list[str] = []
        for batch in verify(connection, plan([("job:*", "step:*", "hash")]), settle=0.05, extra=True):
            server.client.execute_command("ACL", "SETUSER", "careful", "-script")
            words += batch.tally.counts.elements()
    assert words == ["missing"] * 5


def test_without_settling_there_is_one_look(server: Instance) -> None:
    """And nothing is waited for."""
    fill(server.client, jobs=5)
    began = time.monotonic()
    out = verified(server, "--settle", "0", code=3).out
    assert time.monotonic() - began < 5
    assert "checking again" not in out
    out = verified(server, "--settle", LONG_ENOUGH, code=3).out
    assert "9 keys not clean at the first check; checking again" in out


def test_a_stop_while_settling_is_heard_and_what_waits_is_counted(server: Instance) -> None:
    """Nothing that was found is left out of the sum."""
    fill(server.client, jobs=50)
    stopped = threading.Event()
    found = 0
    began = time.monotonic()
    with connect(server.url) as connection:
        for batch in verify(connection, settle=600, operator=Operator(stop=stopped.is_set)):
            found += batch.tally.counts.total()
            if batch.scanned == 1.0 and batch.stage == "again":
                stopped.set()
    assert found == 54
    assert time.monotonic() - began < 30


def test_more_pairs_than_the_queue_takes_make_the_scan_wait(server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost, and no more are held."""
    monkeypatch.setattr("luamigrate.migration.recheck.MOST_WAITING", 30)
    fill(server.client, jobs=300)
    waiting, most, counts = 0, 0, 0
    with connect(server.url) as connection:
        for batch in verify(connection, plan([("job:*", "step:*", "hash")]), settle=0.01, limits=Limits(batch_size=10)):
            waiting += batch.tally.waiting
            most = max(most, waiting)
            counts += batch.tally.counts.total()
    assert (waiting, counts) == (0, 300)
    assert most <= 30 + 2 * 10 * len(server.shards())


READ_ONLY = ["scan", "evalsha", "script|load", "type", "pttl", "memory|usage", "dump", "object|encoding"]
READ_ONLY += ["hgetall", "hkeys", "hget", "hscan", "sdiff", "zrange", "zscore"]


def test_a_read_only_user_can_verify(server: Instance) -> None:
    """No command that writes; where the server has it, by EVALSHA_RO and with read permission on the keys alone."""
    prepare(server)
    newer = server.version >= (7, 0)
    allowed = [name for name in READ_ONLY if name != "evalsha"] + (["evalsha_ro"] if newer else ["evalsha"])
    allowed += [*across(server), *(["hpexpiretime"] if server.has_field_expiries else [])]
    patterns = ["job:*", "step:*", "jobs:*", "steps:*"]
    with user(server, allowed, [] if newer else patterns) as url:
        if newer:
            server.client.execute_command("ACL", "SETUSER", "careful", *(f"%R~{pattern}" for pattern in patterns))
        result = luamigrate("verify", "--json", url=url)
    assert (result.code, result.totals) == (3, TOTALS)


def test_a_command_that_is_not_permitted_is_named(server: Instance) -> None:
    """Exit 4."""
    allowed = ["scan", "evalsha", "script|load", "type", "pttl", *across(server)]
    allowed += ["evalsha_ro"] if server.version >= (7, 0) else []
    with user(server, allowed, ["*"]) as url:
        assert_one_line(luamigrate("verify", url=url), 4, "permissions", "HGETALL")


@pytest.mark.single_server("in a cluster, REPLICAOF is not allowed")
def test_a_replica_will_do_and_it_is_said_loudly(server: Instance) -> None:
    """A warning on the screen, with --quiet too, and in the document; the answer is as good as the replica."""
    prepare(server)
    server.client.replicaof("127.0.0.1", str(free_port()))
    try:
        result = luamigrate("verify", "--json", url=server.url)
        quiet = luamigrate("verify", "--quiet", url=server.url)
    finally:
        server.client.replicaof("no", "one")
    assert (result.code, result.totals) == (3, TOTALS)
    assert "this is a REPLICA" in result.document["warnings"][0]
    assert "Warning: role: this is a REPLICA" in quiet.out


def test_only_reading_scripts_are_called(server: Instance) -> None:
    """By the server's own count."""
    prepare(server)
    server.client.config_resetstat()
    luamigrate("verify", "--extra", url=server.url)
    calls = {name: stats["calls"] for name, stats in server.client.info("commandstats").items()}
    writing = {"copy", "hset", "hsetnx", "sadd", "zadd", "unlink", "del", "restore", "pexpireat"}
    assert not writing & {name.removeprefix("cmdstat_") for name in calls}
    if server.version >= (7, 0):
        assert "cmdstat_evalsha" not in calls


def test_nothing_to_compare_is_said_loudly(server: Instance) -> None:
    """Exit 3, as with run."""
    assert "NO KEY MATCHED ANY RULE" in verified(server, code=3).out
    verified(server, "--allow-empty", code=0)
