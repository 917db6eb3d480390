"""The same from Python: what the README shows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import luamigrate
from tests.instances import Instance
from tests.migration.test_run import fill


def test_a_migration_in_a_few_lines(any_server: Instance) -> None:
    """Connect, migrate, add up."""
    fill(any_server.client, jobs=10)
    with luamigrate.connect(any_server.url) as server:
        summary = luamigrate.Summary(luamigrate.BUILT_IN)
        for batch in luamigrate.migrate(server):
            summary.add(batch)
    assert summary.totals.counts == {luamigrate.Word.COPIED: 14}
    assert summary.exit_code == 0


def test_a_plan_of_ones_own_and_each_key(any_server: Instance) -> None:
    """Rules as triples, and what came of every key."""
    any_server.client.hset("a:1", "f", "1")
    any_server.client.set("a:2", "x")
    plan = luamigrate.plan([("a:*", "b:*", "hash")])
    with luamigrate.connect(any_server.url) as server:
        keys = [key for batch in luamigrate.migrate(server, plan, dry_run=True, every_key=True) for key in batch.keys]
    assert sorted((key.source, key.target, key.word) for key in keys) == [
        (b"a:1", b"b:1", luamigrate.Word.MISSING),
        (b"a:2", b"b:2", luamigrate.Word.IGNORED),
    ]


def test_errors_have_one_base_and_an_exit_code() -> None:
    """A caller catches one class, and may catch the others one by one."""
    with pytest.raises(luamigrate.Error) as usage:
        luamigrate.plan([("a:*", "a:b:*", "hash")])
    assert isinstance(usage.value, luamigrate.UsageError)
    assert usage.value.exit_code == 2
    with pytest.raises(luamigrate.Error) as unreachable:
        luamigrate.connect("unix:///no/such/socket")
    assert unreachable.value.exit_code == 1


def test_each_rule_is_announced_by_a_batch_without_keys(any_server: Instance) -> None:
    """So that a caller can tell what is being done before it takes long."""
    with luamigrate.connect(any_server.url) as server:
        batches = list(luamigrate.migrate(server))
    announced = [batch.rule for batch in batches if batch.scanned == 0.0 and not batch.tally.counts]
    assert announced == list(luamigrate.BUILT_IN)


def test_the_function_is_offered_though_a_module_has_its_name() -> None:
    """Whatever is imported first."""
    script = (
        "import {first}\nimport luamigrate\nfrom luamigrate import migrate\n"
        "print(callable(luamigrate.migrate), callable(migrate), 'migrate' in dir(luamigrate))\n"
    )
    for first in ("luamigrate", "luamigrate.migration.execute", "luamigrate.cli.commands"):
        command = (sys.executable, "-c", script.format(first=first))
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (result.stdout, result.stderr) == ("True True True\n", "")


def test_everything_exported_exists_and_is_typed() -> None:
    """`__all__` is true, and py.typed is there."""
    assert all(hasattr(luamigrate, name) for name in luamigrate.__all__)
    assert (Path(luamigrate.__file__).parent / "py.typed").exists()
