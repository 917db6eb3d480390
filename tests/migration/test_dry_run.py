"""`luamigrate run --dry-run`: what it says, and that it writes nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from luamigrate import connect, migrate, plan
from tests.conftest import run
from tests.instances import Instance
from tests.migration.test_run import HASHES, fill
from tests.schemas import read_report


def prepare(server: Instance) -> None:
    """Write a job system in which dual-writing has begun."""
    fill(server.client, jobs=40)
    server.client.hset("step:1", mapping={"id": 1})
    server.client.copy("job:2", "step:2")
    server.client.hset("step:3", mapping={"id": "another"})
    server.client.copy("job:4", "step:4")
    server.client.expire("step:4", 1000)
    server.client.set("job:counter", 40)
    server.client.sadd("steps:active", "active-1", "active-2")


def test_nothing_is_written(server: Instance) -> None:
    """The server's digest of everything is the same before and after."""
    prepare(server)
    digest = server.digest()
    keys = set(server.client.keys())
    for options in ((), ("--no-validate",), ("--verbose",), ("--json",)):
        run(server, "--dry-run", *options)
        assert server.digest() == digest
        assert set(server.client.keys()) == keys


@pytest.mark.single_server("it counts the calls to one server")
def test_the_server_itself_holds_it_to_reading(server: Instance) -> None:
    """Where there is EVALSHA_RO, pairs are only ever looked at through it."""
    if server.version < (7, 0):
        pytest.skip("this server has no EVALSHA_RO")
    prepare(server)
    server.client.config_resetstat()
    run(server, "--dry-run", *HASHES, "--batch-size", "10", "--settle", "0")
    calls = {name: stats["calls"] for name, stats in server.client.info("commandstats").items()}
    assert calls["cmdstat_evalsha_ro"] == 5 + 1, "41 keys in batches of 10, and the probe"
    assert calls["cmdstat_copy"] == 1, "the probe's, onto the name itself"


def test_it_tells_what_a_run_would_do_and_the_run_does_it(server: Instance) -> None:
    """The same words, the same exit code, `missing` for what would be copied."""
    prepare(server)
    dry = run(server, "--dry-run", "--json")
    wet = run(server, "--json")
    words = {"partial": 2, "same": 1, "differs": 1, "expiry": 1, "ignored": 1}
    assert dry.totals == {"found": 44, "missing": 39, **words}
    assert wet.totals == {"found": 44, "copied": 39, **words}
    assert (dry.code, wet.code) == (3, 3)
    assert dry.document["dry_run"] is True


def test_missing_targets_alone_are_fine(server: Instance) -> None:
    """A dry run of a fresh migration exits 0, as its run will."""
    fill(server.client, jobs=3)
    result = run(server, env={"DRY_RUN": "true"})
    assert result.code == 0
    assert "3 would be copied" in result.out
    assert "would copy 7 keys" in result.out


def test_sizes_of_collections_are_told(server: Instance) -> None:
    """In members, for the source and where it exists for the target."""
    prepare(server)
    out = run(server, "--dry-run").out
    assert "20 members, 2 in the target" in out
    assert "40 members" in out


def test_a_target_of_another_type_has_no_size(server: Instance, tmp_path: Path) -> None:
    """It would be measured as what it is not."""
    server.client.hset("job:1", "a", "1")
    server.client.set("step:1", "a string")
    server.client.hset("job:2", "a", "1")
    server.client.hset("step:2", mapping={"a": "2", "b": "3"})
    report = tmp_path / "report"
    run(server, "--dry-run", "--report", str(report), *HASHES)
    first, second = sorted(read_report(report.read_text(encoding="utf-8")), key=lambda line: str(line["source"]))
    assert (first["source_type"], first["target_type"]) == ("hash", "string")
    assert {"source_size", "target_size"}.isdisjoint(first)
    assert (second["source_size"], second["target_size"]) == (1, 2)


def test_what_the_run_would_do_is_said_only_if_there_is_something(server: Instance) -> None:
    """Nothing to do is not said where something is left to be looked at."""
    server.client.hset("job:1", "a", "1")
    server.client.copy("job:1", "step:1")
    assert "There is nothing to do." in run(server, "--dry-run", *HASHES).out
    server.client.hset("step:1", "a", "2")
    out = run(server, "--dry-run", *HASHES).out
    assert "There is nothing to do." not in out
    assert "without --dry-run" not in out


def test_what_becomes_equal_between_the_looks_is_measured_once(server: Instance) -> None:
    """Fields are counted at the first check."""
    server.client.hset("job:1", mapping={"a": "1", "b": "2"})
    server.client.hset("step:1", mapping={"a": "1", "b": "3"})
    elements: Counter[str] = Counter()
    with connect(server.url) as connection:
        for batch in migrate(connection, plan([("job:*", "step:*", "hash")]), dry_run=True, settle=0.05):
            if batch.tally.waiting > 0:
                server.client.hset("step:1", "b", "2")
            elements.update(batch.tally.elements)
    assert elements == {"source": 2, "target": 2}


def test_verbose_tells_about_each_key(server: Instance) -> None:
    """A line with word, names and sizes; what is ignored, with its type."""
    prepare(server)
    lines = run(server, "--dry-run", "--verbose", *HASHES).out.splitlines()
    assert "  partial  job:1 -> step:1  size 3, target 1; lacks 2 (status, payload)" in lines
    assert "  same     job:2 -> step:2  size 3, target 3" in lines
    assert "  missing  job:5 -> step:5  size 3" in lines
    assert "  ignored  job:counter -> step:counter  is of type string" in lines


def test_without_validation_targets_only_exist(server: Instance) -> None:
    """Nothing is compared, and nothing is said about equality."""
    prepare(server)
    result = run(server, "--dry-run", "--no-validate", *HASHES, "--json")
    assert (result.code, result.totals) == (0, {"found": 40, "missing": 36, "exists": 4, "ignored": 1})
