"""Names by a table: each command on real servers, and what is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_bad_input import assert_one_line
from tests.conftest import luamigrate, run
from tests.instances import Instance
from tests.migration.test_run import assert_equal
from tests.schemas import read_report

PAIRS = {
    b"user:1": b"u:{1}",
    b"\x00\xff odd": b"even\t",
    b"a*b": b"<c>",
    "ü".encode(): b"\\",
    b"not there": b"nor this",
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write a pairs file, its names as they are printed."""
    file = tmp_path / "names.tsv"
    file.write_text(
        "# old\tnew\nuser:1\tu:{1}\n\\x00\\xff odd\teven\\x09\na*b\t<c>\nü\t\\\\\nnot there\tnor this\n",
        encoding="utf-8",
    )
    return file


def fill(server: Instance) -> None:
    """Write the sources of the table that are there, and keys that are none of its."""
    for name in list(PAIRS)[:4]:
        server.client.hset(name, "name", name)
    server.client.set("user:2", "1")


def test_each_source_of_the_table_gets_its_target(server: Instance, table: Path) -> None:
    """Names that are not there are counted, loudly; verify agrees, and a rollback undoes it."""
    fill(server)
    options = ("--pairs", str(table), "--json")
    dry = run(server, "--dry-run", *options)
    assert (dry.code, dry.totals) == (0, {"found": 4, "missing": 4, "ignored": 0})
    result = run(server, *options)
    assert (result.code, result.totals) == (0, {"found": 4, "copied": 4, "ignored": 0})
    (rule,) = result.document["rules"]
    assert (rule["source"], rule["names"], rule["absent"]) == (str(table), 5, 1)
    assert "1 of 5 names in" in result.err
    for source, target in list(PAIRS.items())[:4]:
        assert_equal(server, source, target)
    assert server.client.dbsize() == 9
    proof = luamigrate("verify", "--extra", *options, url=server.url)
    assert (proof.code, proof.totals) == (0, {"found": 4, "same": 4, "ignored": 0})
    server.client.set("nor this", "1")
    proof = luamigrate("verify", "--extra", *options, url=server.url)
    assert (proof.code, proof.totals) == (3, {"found": 4, "same": 4, "extra": 1, "ignored": 0})
    back = luamigrate("rollback", "--yes", *options, url=server.url)
    assert back.totals == {"found": 4, "removed": 4, "ignored": 0}
    assert server.client.dbsize() == 6


def test_the_screen_tells_of_the_table(server: Instance, table: Path) -> None:
    """Its file, how many names it has, and how many are not there."""
    fill(server)
    result = luamigrate("run", "--pairs", str(table), url=server.url)
    assert result.code == 0
    assert f"[1/1] 5 names in {table} (any)" in result.out
    assert f"  5 names in {table}: 4 copied, 1 absent" in result.out
    assert f"ABSENT: 1 of 5 names in {table}. Is that right? --verbose names them, as gone." in result.out
    again = luamigrate("run", "--pairs", str(table), "--verbose", url=server.url)
    assert "  gone     not there -> nor this" in again.out
    check = luamigrate("check", "--pairs", str(table), "--json", url=server.url)
    assert check.code == 0
    texts = {finding["name"]: finding["text"] for finding in check.document["checks"]}
    assert texts["targets"] == "4 of 4 sources sampled have one already"


def test_a_table_of_which_no_name_is_there_is_worth_an_exit_code(server: Instance, table: Path) -> None:
    """As a rule that no key matches is."""
    server.client.set("other", "1")
    for command in ("run", "verify"):
        result = luamigrate(command, "--pairs", str(table), url=server.url)
        assert result.code == 3
        assert f"  5 names in {table}: all absent\n" in result.out
    assert luamigrate("run", "--pairs", str(table), "--allow-empty", url=server.url).code == 0


def test_one_name_is_one(any_server: Instance, tmp_path: Path) -> None:
    """Not one names."""
    file = tmp_path / "names.tsv"
    file.write_text("a\tb\n")
    assert f"[1/1] 1 name in {file} (any)" in luamigrate("run", "--pairs", str(file), url=any_server.url).out


@pytest.mark.parametrize("there", [True, False])
def test_a_star_in_a_table_is_said_to_be_literal_where_names_are_absent(
    any_server: Instance, tmp_path: Path, there: bool
) -> None:
    """Once; nobody needs to know while all names are there."""
    file = tmp_path / "names.tsv"
    file.write_text("job:*\tstep:*\na\tb\n")
    any_server.client.mset({"job:1": "1", "a" if there else "other": "1"})
    said = "In a table * is literal, as in 'job:*': patterns go into --map or a plan file."
    assert luamigrate("run", "--pairs", str(file), url=any_server.url).out.count(said) == 1
    any_server.client.mset({"job:*": "1", "a": "1"})
    assert said not in luamigrate("run", "--pairs", str(file), url=any_server.url).out


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (3, 3, "and the names in the table the right ones?"),
        (300, 0, "NO KEY OF ANY RULE AMONG THE 100 NAMES OF RULES LOOKED AT; a dry run looks at all of them."),
    ],
)
def test_a_check_says_how_many_names_it_has_looked_at(
    any_server: Instance, tmp_path: Path, number: int, code: int, said: str
) -> None:
    """Where none of them is there; where it has seen all names, the exit code is that of the run."""
    file = tmp_path / "names.tsv"
    file.write_text("".join(f"old:{each}\tnew:{each}\n" for each in range(number)))
    any_server.client.set("other", "1")
    result = luamigrate("check", "--pairs", str(file), url=any_server.url)
    assert (result.code, said in result.out) == (code, True)


def test_the_type_holds_for_the_whole_table(server: Instance, table: Path, tmp_path: Path) -> None:
    """Keys of another type are ignored; reports name each key."""
    fill(server)
    server.client.set("not there", "but now it is")
    report = tmp_path / "report"
    options = ("--pairs", str(table), "--type", "hash", "--report", str(report), "--report-all")
    result = luamigrate("run", *options, "--json", url=server.url)
    assert result.totals == {"found": 4, "copied": 4, "ignored": 1}
    lines = read_report(report.read_text(encoding="utf-8"))
    assert {line["word"] for line in lines} == {"copied", "ignored"}


@pytest.mark.single_server("a cluster has one database")
def test_a_table_may_lead_to_another_database(server: Instance, tmp_path: Path) -> None:
    """Then a target may have the name of a source."""
    file = tmp_path / "names.tsv"
    file.write_text("a\tb\nb\ta\n")
    server.client.mset({"a": "1", "b": "2"})
    result = luamigrate("run", "--pairs", str(file), "--to-database", "3", "--json", url=server.url)
    assert (result.code, result.totals["copied"]) == (0, 2)
    with server.another_client(db=3) as there:
        assert there.mget("a", "b") == [b"2", b"1"]
    refused = luamigrate("run", "--pairs", str(file), "--to-database", "0", url=server.url)
    assert_one_line(refused, 2, "database 0 is that of the sources too")


def test_many_names_go_in_batches(server: Instance, tmp_path: Path) -> None:
    """All of them, whatever the size of a batch; a sample is the first of them."""
    file = tmp_path / "names.tsv"
    file.write_text("".join(f"old:{number}\tnew:{number}\n" for number in range(1000)))
    pipeline = server.client.pipeline(transaction=False)
    for number in range(0, 1000, 2):
        pipeline.set(f"old:{number}", number)
    pipeline.execute()
    result = luamigrate("run", "--pairs", str(file), "--batch-size", "7", "--json", url=server.url)
    assert (result.code, result.totals) == (0, {"found": 500, "copied": 500, "ignored": 0})
    sample = luamigrate("verify", "--pairs", str(file), "--sample", "10", "--json", url=server.url)
    assert sample.totals == {"found": 5, "same": 5, "ignored": 0}


@pytest.mark.parametrize(
    "more", [("--map", "a:*=b:*"), ("--plan", "plan.toml"), ("--except", "a:*"), ("--first-match",)]
)
def test_other_rules_beside_a_table_are_a_usage_error(any_server: Instance, table: Path, more: tuple[str, ...]) -> None:
    """Nothing is written."""
    fill(any_server)
    before = any_server.client.dbsize()
    result = luamigrate("run", "--pairs", str(table), *more, url=any_server.url)
    assert_one_line(result, 2, f"--pairs and {more[0]} exclude each other")
    assert any_server.client.dbsize() == before


def test_an_odd_table_is_a_usage_error(any_server: Instance, tmp_path: Path) -> None:
    """One line, with the line of the file; nothing is written."""
    fill(any_server)
    before = any_server.client.dbsize()
    file = tmp_path / "names.tsv"
    file.write_bytes(b"user:1\tx\nuser:1\ty\n")
    for command in ("run", "verify", "check"):
        assert_one_line(luamigrate(command, "--pairs", str(file), url=any_server.url), 2, "line 2", "user:1")
    assert_one_line(luamigrate("run", "--pairs", str(tmp_path / "none"), url=any_server.url), 2, "No such file")
    assert any_server.client.dbsize() == before
