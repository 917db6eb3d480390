"""Rules that make no sense end with one clear line, exit code 2, and nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.test_bad_input import assert_one_line
from tests.conftest import luamigrate
from tests.instances import Instance
from tests.migration.test_run import fill

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--map", "a:*"], ["exactly one =", "a:*"]),
        (["--map", "a=b=c"], ["exactly one =", "\\="]),
        (["--map", "a:*:*=b:*"], ["more than one *", "a:*:*"]),
        (["--map", "a:*=b:*:*"], ["more than one *", "b:*:*"]),
        (["--map", "a=b:*"], ["one * each", "'a' -> 'b:*'"]),
        (["--map", "a:*=b"], ["one * each", "'a:*' -> 'b'"]),
        (["--map", "=b"], ["empty"]),
        (["--map", "a:*="], ["empty"]),
        (
            ["--map", "a:*=b:*", "--map", "c:*=b:x:*"],
            ["'c:*' -> 'b:x:*'", "same target"],
        ),
        (["--map", "a:*=b:*", "--map", "a:x=c"], ["'a:*' -> 'b:*'", "'a:x' -> 'c'", "overlap"]),
        (["--map", "a:*=a:b:*"], ["its own source"]),
        (["--map", "a:*=*"], ["its own source"]),
        (["--map", "a=a"], ["its own source"]),
        (
            ["--map", "a:*=b:*", "--map", "b:*=c:*"],
            ["'b:*' -> 'c:*'", "copied again"],
        ),
        (["--map", "a:*=luamigrate:*"], ["reserved"]),
        (["--map", "luamigrate:x=y"], ["reserved"]),
        (["--map", "x:*=luamigrate*"], ["reserved"]),
        (["--map", "lua*=x:*"], ["reserved"]),
        (["--map", "a:<x>:<x>=b:<x>"], ["'a:<x>:<x>'", "<x> more than once"]),
        (["--map", "a:<x>=b:<x>:<x>"], ["'b:<x>:<x>'", "<x> more than once"]),
        (["--map", "a:<x>=b:<y>"], ["'a:<x>' -> 'b:<y>'", "<x> stands on one side only"]),
        (["--map", "a:<x>=b:<x>:<y>"], ["<y> stands on one side only"]),
        (["--map", "a:<x>=b:*"], ["<x> stands on one side only"]),
        (["--map", "a:*=b:<x>"], ["<x> stands on one side only"]),
        (["--map", "a:<x>*=b:<x>*"], ["'a:<x>*'", "beside placeholders"]),
        (["--map", "a:<>=b:<>"], ["'a:<>'", "begins a placeholder", r"\<"]),
        (["--map", "a:<x=b:<x"], ["'a:<x'", "begins a placeholder"]),
        (["--map", "a:<x><y>=b:<x>:<y>"], ["'a:<x><y>'", "between two placeholders"]),
        (["--map", r"a\:*=b:*"], [r"pattern 'a\:*': '\:' is no escape"]),
        (["--map", "a\x1b\\:*=b:*"], [r"pattern 'a\x1b\:*': '\:' is no escape"]),
        (["--map", r"a:*\d*=b:*"], [r"'\d' is no escape"]),
        (["--map", r"a\\*:*=b:*"], [r"pattern 'a\\*:*' has more than one *"]),
        (["--map", r"a\*\="], [r"--map 'a\*\=': needs exactly one ="]),
        (["--map", "a:*=b:*", "--type", r"ha\sh"], [r"ha\sh"]),
        (["--map", "a:*=b:*", r"c:\*"], [r"c:\*"]),
        (["--plan", r"no\where.toml"], [r"plan file no\where.toml: "]),
        (["--pairs", r"no\where.tsv"], [r"pairs file no\where.tsv: "]),
        (["--map", r"a\x4=b"], ["is no escape"]),
        (["--map", "a:*=b:*", "--except", ""], ["a pattern is empty"]),
        (["--map", "a:*=b:*", "--except", r"\d"], [r"pattern '\d': '\d' is no escape"]),
        (["--map", "a:*=b:*", "--except", "*"], ["'a:*' -> 'b:*'", "except '*' leaves it no source"]),
        (["--except", "job:*"], ["'job:*' -> 'step:*'", "leaves it no source"]),
        (["--map", "a:*=b:*", "--except", "a:<x>"], ["except 'a:<x>' leaves it no source but 'a:'"]),
        (["--map", "a:*'=b:*", "--except", "a*"], ["except 'a*' leaves it no source"]),
        (["--map", "a:<x>:<y>=b:<x>:<y>", "--except", "a:*:*"], ["more than one *"]),
        (["--map", "a:*=b:*", "--map", "a:*=b:*"], ["is there twice"]),
        (["--map", "a:*=b:*", "--map", "a:*=b:*", "--first-match"], ["is there twice"]),
        (["--map", "*=app:*"], ["its own source", "--except 'app:*'"]),
        (["--map", "a:*=b:*", "--to-database", "-1"], ["--to-database", "equal to 0"]),
        (["--map", "a:*=b:*", "--to-database", "x"], ["--to-database", "integer"]),
        (["--map", "a:*=a:*", "--to-database", "0"], ["database 0 is that of the sources too", "its own source"]),
        (["--map", "t:<x>:d=q:<x>", "--map", "t:<x>=p:<x>"], ["overlap", "--first-match"]),
    ],
)
def test_odd_rules_are_usage_errors(any_server: Instance, options: list[str], fragments: list[str]) -> None:
    """The line shows the patterns as they can be pasted, and names what would help where something would."""
    fill(any_server.client, jobs=3)
    digest = any_server.digest()
    assert_one_line(luamigrate("run", *options, url=any_server.url), 2, *fragments)
    assert any_server.digest() == digest


@pytest.mark.parametrize("given", ["1", "[1]", "{ a = 'b' }", "''", "'*'", "['c', '*']", "'\\d'"])
def test_an_odd_except_in_a_plan_file_is_a_usage_error(any_server: Instance, tmp_path: Path, given: str) -> None:
    """It is a string or a list of them, each a pattern, and leaves the rule some source."""
    file = tmp_path / "plan.toml"
    file.write_text(f"[[rule]]\nsource = 'a:*'\ntarget = 'b:*'\nexcept = {given}\n")
    assert_one_line(luamigrate("run", "--plan", str(file), url=any_server.url), 2, "plan.toml")


@pytest.mark.parametrize("given", ["-1", "'x'", "true", "1.5", "[1]", "4294967296"])
def test_an_odd_database_in_a_plan_file_is_a_usage_error(any_server: Instance, tmp_path: Path, given: str) -> None:
    """It is a number from 0 on."""
    file = tmp_path / "plan.toml"
    file.write_text(f"[[rule]]\nsource = 'a:*'\ntarget = 'b:*'\ndatabase = {given}\n")
    assert_one_line(luamigrate("run", "--plan", str(file), url=any_server.url), 2, "plan.toml", "database")


@pytest.mark.cluster
def test_another_database_is_refused_in_a_cluster(server: Instance) -> None:
    """By name, before anything is written or deleted, and whatever check is ignored."""
    fill(server.client, jobs=3)
    keys = server.client.dbsize()
    options = ("--map", "job:*=job:*", "--to-database", "3", "--ignore-check", "databases")
    for command in (("run",), ("check",), ("verify",), ("run", "--dry-run"), ("rollback", "--yes")):
        result = luamigrate(*command, *options, url=server.url)
        assert result.code == 4
        assert "in a cluster source and target are in one database" in result.out + result.err
        assert server.client.dbsize() == keys


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "luamigrate").rglob("*.py")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_patterns_in_examples_and_messages_stand_in_single_quotes(page: Path) -> None:
    """In a shell an unquoted `<`, `>` or `*` means something else."""
    given = re.findall(r"--(?:map|except) (\S*[*<=:]\S*)", page.read_text(encoding="utf-8"))
    assert [pattern for pattern in given if not pattern.startswith("'") and not pattern.startswith("SRC=DST")] == []
