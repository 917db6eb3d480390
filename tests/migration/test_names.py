"""Names that people really have: each rule of docs/rules.md on real servers, as --map and as a plan file."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import luamigrate
from tests.instances import Instance, snapshot
from tests.schemas import read_report

PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| .* \| `(--[^`]*--map[^`]*|--map[^`]*)` \|$", PAGE, re.MULTILINE)
ROWS = [row for row in ROWS if "--to-database" not in row]

TENANTS = {b"tenant:1:destinations": b"t:1:destinations", b"tenant:a:b": b"t:a:b", b"tenant:": None}
MOVES: dict[str, dict[bytes, bytes | None]] = {
    "*=app:*": {b"job:1": b"app:job:1", b"\x00\xff": b"app:\x00\xff", b"app:x": None},
    "app:*=*": {b"app:job:1": b"job:1", b"app:\xff": b"\xff", b"app:app:x": None, b"other": None},
    "x:x:*=x:*": {b"x:x:1": b"x:1", b"x:x:": b"x:", b"x:x:x:1": None, b"x:2": None},
    "tenant:<t>:destination:<d>={<t>}:destination:<d>": {
        b"tenant:7:destination:a": b"{7}:destination:a",
        b"tenant:7:8:destination:a:destination:b": b"{7:8}:destination:a:destination:b",
        b"tenant::destination:a": None,
    },
    "tenant:<t>:destinations=t:<t>:destinations": TENANTS,
    r"odd\*\=\<\\\x00\xff:*=even\*:*": {b"odd*=<\\\x00\xff:1": b"even*:1", b"odd\\x00:1": None},
}
"""Names that are there, and the targets of those that are sources, by the first rule of a row."""
EXTRA = {b"app:x", b"other", b"x:2"}
"""Names that could be a copy, of a source that is not there."""


def options_of(row: str) -> list[str]:
    """Return the options of a row, as a shell gives them."""
    return shlex.split(row.replace(r"\|", "|"))


def as_plan_file(options: list[str], folder: Path) -> list[str]:
    """Write the rules of a row to a plan file, and return the options that say the same."""
    rules = [text for option, text in pairwise(options) if option == "--map"]
    excepts = [text for option, text in pairwise(options) if option == "--except"]
    tables = []
    for rule in rules:
        source, target = re.split(r"(?<!\\)=", rule)
        tables.append(f"[[rule]]\nsource = '{source}'\ntarget = '{target}'\nexcept = {excepts}\n".replace('"', "'"))
    file = folder / "plan.toml"
    file.write_text("\n".join(tables))
    return ["--plan", str(file), *[option for option in options if option == "--first-match"]]


def digests(server: Instance) -> dict[bytes, object]:
    """Return the server's own digest of each key's value."""
    return {name: server.digest_value(name) for name in snapshot(server.client)}


@pytest.mark.parametrize("how", ["map", "plan"])
@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_page_does_what_it_says(server: Instance, tmp_path: Path, row: str, how: str) -> None:
    """Every source has an equal target by the server's own digest, and there is nothing else; verify agrees."""
    options = options_of(row)
    moves = MOVES[options[options.index("--map") + 1]]
    for number, name in enumerate(moves):
        server.client.rpush(name, "item", str(number))
    before = digests(server)
    options = options if how == "map" else as_plan_file(options, tmp_path)
    result = luamigrate("run", *options, "--json", url=server.url)
    wanted = {target: before[source] for source, target in moves.items() if target}
    assert (result.code, result.totals) == (0, {"found": len(wanted), "copied": len(wanted), "ignored": 0})
    assert digests(server) == before | wanted
    proof = luamigrate("verify", "--extra", *options, "--json", url=server.url)
    extra = {"extra": 1} if moves.keys() & EXTRA else {}
    assert proof.totals == {"found": len(wanted), "same": len(wanted), **extra, "ignored": 0}
    assert proof.code == (3 if extra else 0)
    for name in wanted:
        server.client.rpush(name, "later")
    again = luamigrate("run", *options, "--json", url=server.url)
    assert again.totals == {"found": len(wanted), "differs": len(wanted), "ignored": 0}


def test_the_page_has_the_rows_that_are_tried() -> None:
    """None is left out."""
    assert len(ROWS) >= 6
    assert {options_of(row)[options_of(row).index("--map") + 1] for row in ROWS} <= MOVES.keys()


STRIPPED = ("--map", "app:*=*", "--except", "app:app:*")
SWAPPED = ("--map", "t:<a>:<b>=s:<b>:<a>")


@pytest.mark.parametrize(
    ("options", "sources", "failed", "reason"),
    [
        (SWAPPED, [b"t:a:b", b"t:c:d:e"], b"t:c:d:e", "ambiguous"),
        (STRIPPED, [b"app:x", b"app:luamigrate:x"], b"app:luamigrate:x", "reserved"),
        (("--map", "<a>:<b>=<b>:<a>", "--except", "b:*"), [b"a:b", b"a:c"], b"a:c", "chain"),
    ],
)
def test_a_pair_that_must_not_be_written_fails_in_every_command(
    server: Instance, tmp_path: Path, options: tuple[str, ...], sources: list[bytes], failed: bytes, reason: str
) -> None:
    """With its reason and the form to paste; nothing is written there, compared, or deleted."""
    client, report = server.client, tmp_path / "report"
    for name in sources:
        client.set(name, "x")
    check = luamigrate("check", *options, url=server.url)
    assert f"1 of the sources sampled would fail ({reason}: " in check.out
    assert f"--except '{failed.decode()}'" in check.out
    for command in (("run", "--dry-run"), ("run",), ("verify",), ("rollback", "--yes")):
        result = luamigrate(*command, *options, "--json", "--report", str(report), url=server.url)
        assert result.code == 1
        assert result.totals["found"] == 2
        assert result.totals["failed"] == 1
        assert result.document["rules"][0]["failed_reasons"] == {reason: 1}
        lines = read_report(report.read_text())
        assert (failed.decode(), reason) in {(line["source"], line.get("reason")) for line in lines}
        assert f"The first that failed ({reason}): '{failed.decode()}': its target " in result.err
        assert f"{reason}: its target " in result.err
        assert f"{reason}: {reason}" not in result.err
        assert client.dbsize() == (3 if command in {("run",), ("verify",)} else 2)


def test_extra_calls_nothing_extra_that_is_no_target_of_the_plan(server: Instance) -> None:
    """What an except keeps from being a source has no target, and a source is none."""
    client = server.client
    for name in (b"app:1", b"app:app:1", b"app:luamigrate:1", b"app:gone"):
        client.set(name, "x")
    client.set(b"1", "x")
    options = ("--map", "*=app:*", "--except", "app:*", "--json")
    result = luamigrate("verify", "--extra", *options, url=server.url)
    assert result.totals == {"found": 1, "same": 1, "extra": 1, "ignored": 0}


def test_the_first_rule_that_matches_takes_the_key(server: Instance) -> None:
    """And no other does, whatever their order on the command line."""
    client = server.client
    for name in ("a:b:1", "a:1"):
        client.set(name, "x")
    rules = ("--map", "a:b:*=c:*", "--map", "a:*=d:*")
    refused = luamigrate("run", *rules, url=server.url)
    assert refused.code == 2
    assert "--first-match" in refused.err
    assert luamigrate("run", *rules, url=server.url, env={"LUAMIGRATE_FIRST_MATCH": "true"}).code == 0
    assert {name for name in snapshot(client) if name[:1] != b"a"} == {b"c:1", b"d:1"}


def test_a_name_in_the_report_comes_with_its_form_as_a_pattern(server: Instance, tmp_path: Path) -> None:
    """Which leaves out this key and no other."""
    client, report = server.client, tmp_path / "report"
    for name in (b"a:*'=\xff", b"a:xyz"):
        client.set(name, "x")
    rule = ("--map", "a:*=b:*")
    luamigrate("verify", *rule, "--report", str(report), url=server.url)
    lines = {line["source"]: line.get("source_pattern") for line in read_report(report.read_text())}
    assert lines == {r"a:*'=\xff": r"a:\*\x27\=\xff", "a:xyz": None}
    except_it = ("--except", lines[r"a:*'=\xff"])
    assert luamigrate("run", *rule, *except_it, "--json", url=server.url).totals["copied"] == 1
    assert not client.exists(b"b:*'=\xff")
