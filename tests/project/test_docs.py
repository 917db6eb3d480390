"""docs/operations.md is true about what is checked and copied; what every page links to and names is there."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

from luamigrate.cli import summary_messages
from luamigrate.cli.commands import app
from luamigrate.model.status import CHECKS
from tests.conftest import luamigrate
from tests.instances import Instance
from tests.migration.test_run import HASHES

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
EVICTION = "whether it evicts keys"
UNTOLD = (
    *("its role (HELLO, ROLE, INFO)", "whether they succeed (INFO)", EVICTION),
    "whether clients wait (CLIENT LIST)",
)
"""What checks warn of where a server leaves it out."""


def test_every_check_has_a_row() -> None:
    """In the order of the program, and none besides."""
    table = OPERATIONS[OPERATIONS.index("## The checks") : OPERATIONS.index("## During")]
    assert tuple(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == CHECKS


def test_the_page_has_what_is_said_where_a_server_does_not_tell() -> None:
    """Each with the text that is printed."""
    for what in UNTOLD:
        assert f"the server does not tell {what}" in OPERATIONS


def test_values_are_copied_as_they_are_and_a_dry_run_says_so(any_server: Instance) -> None:
    """Names and ids inside them are not rewritten, whatever the type."""
    client = any_server.client
    client.hset("job:hash", mapping={"parent": "job:1"})
    client.set("job:string", "job:1")
    client.sadd("job:set", "job:1", "7")
    client.xadd("job:stream", {"id": "job:1"})
    look = luamigrate("run", "--dry-run", "--map", "job:*=step:*", url=any_server.url)
    assert summary_messages.VALUES_ARE_KEPT in look.out
    assert luamigrate("run", "--map", "job:*=step:*", url=any_server.url).code == 0
    assert client.hgetall("step:hash") == {b"parent": b"job:1"}
    assert client.get("step:string") == b"job:1"
    assert client.smembers("step:set") == {b"job:1", b"7"}
    entries: Any = client.xrange("step:stream")
    assert [fields for _, fields in entries] == [{b"id": b"job:1"}]


@pytest.mark.single_server("events are those of one server")
def test_listeners_to_keyspace_events_hear_copies_and_both_expiries(server: Instance) -> None:
    """As the page says."""
    client = server.client
    client.config_set("notify-keyspace-events", "KEA")
    try:
        with client.pubsub(ignore_subscribe_messages=True) as listener:
            listener.psubscribe("__keyspace@0__:*")
            assert listener.get_message(timeout=5) is None
            client.hset("job:1", "a", "1")
            assert luamigrate("run", *HASHES, url=server.url).code == 0
            for name in ("job:1", "step:1"):
                client.pexpire(name, 100)  # sooner, and a busy server finds it in the past, which it calls del
            expired: set[str] = set()
            heard: list[tuple[str, str]] = []
            while not {"job:1", "step:1"} <= expired:
                message = listener.get_message(timeout=10)
                assert message, heard
                heard.append((message["channel"].decode().partition(":")[2], message["data"].decode()))
                expired |= {name for name, event in heard if event == "expired"}
    finally:
        client.config_set("notify-keyspace-events", "")
    assert ("step:1", "copy_to") in heard


@pytest.mark.single_server("the policy is that of one server")
def test_the_use_of_a_copy_begins_anew(server: Instance) -> None:
    """By the counter that evicting the least frequently used goes by."""
    client = server.client
    client.config_set("maxmemory-policy", "allkeys-lfu")
    try:
        client.hset("job:1", "a", "1")
        for _ in range(2000):
            client.hget("job:1", "a")
        assert luamigrate("run", *HASHES, url=server.url).code == 0
        frequencies: list[Any] = [client.object("freq", name) for name in ("job:1", "step:1")]
    finally:
        client.config_set("maxmemory-policy", "noeviction")
    assert frequencies[0] > frequencies[1]


def test_a_move_is_completed_by_the_rollback_of_the_opposite_rule(any_server: Instance) -> None:
    """Old names that have an equal copy are deleted, the others are kept."""
    client = any_server.client
    for number in range(10):
        client.hset(f"job:{number}", "a", number)
    assert luamigrate("run", *HASHES, url=any_server.url).code == 0
    client.hset("step:3", "a", "changed")
    opposite = ("--map", "step:*=job:*", "--type", "hash")
    result = luamigrate("rollback", "--yes", *opposite, "--json", url=any_server.url)
    assert (result.code, result.totals) == (3, {"found": 10, "removed": 9, "kept": 1, "ignored": 0})
    assert list(client.scan_iter("job:*", count=100)) == [b"job:3"]
    assert len(list(client.scan_iter("step:*", count=100))) == 10
    console = re.findall(r"^\$ luamigrate (\w+) .*--map '(\S+)'", OPERATIONS, re.MULTILINE)
    assert console[-1] == ("rollback", opposite[1])


OPPOSITES = re.findall(r"^\| `run (.*)` \| `rollback (.*)` \|$", OPERATIONS, re.MULTILINE)
DELETED = ({"job:1"}, {"job:1", "#", "job:tmp:1", "step:tmp:1"}, {"job:1", "job:tmp:1"}, {"job:1", "#"})
"""By each of these, of the names in the test."""


@pytest.mark.single_server("a cluster has one database")
@pytest.mark.parametrize(("rows", "deleted"), [*zip(OPPOSITES, DELETED, strict=True)], ids=range(len(DELETED)))
def test_old_names_are_deleted_as_the_page_says(
    server: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: tuple[str, str], deleted: set[str]
) -> None:
    """Whatever rule gave the new ones; what an except had left out stays, though it has an equal copy."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.tsv").write_text("# old\tnew\n\njob:1\tstep:1\n\\x23\tstep:2\n")
    (awk,) = re.findall(r"^\$ (awk .*)$", OPERATIONS, re.MULTILINE)
    subprocess.run(["/bin/sh", "-c", awk], check=True)
    before = {"job:1": "1", "#": "2", "job:tmp:1": "3", "step:tmp:1": "3", "app:x": "4", "app:app:x": "4"}
    server.client.mset(before)
    for command, row in zip((("run",), ("rollback", "--yes")), rows, strict=True):
        options = [f"{server.url}?db={word[-1]}" if "://" in word else word for word in shlex.split(row)]
        assert luamigrate(*command, *options, url=server.url).code == 0
    assert {name for name in before if not server.client.exists(name)} == deleted


PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_every_page_lead_somewhere(page: Path) -> None:
    """Files that a page names are there, and so are the headings."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        file = (page.parent / target) if target else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, anchor


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_on_a_page_can_be_typed(page: Path) -> None:
    """The command takes each option that is shown with it."""
    group: Any = typer.main.get_command(app)
    commands = "|".join(group.commands)
    for command, rest in re.findall(rf"luamigrate ({commands})\b([^`\n&]*)", page.read_text(encoding="utf-8")):
        params = group.commands[command].params
        known = {name for param in params for name in (*param.opts, *param.secondary_opts)}
        assert set(re.findall(r"--[a-z][a-z-]*", rest)) <= known | {"--help"}, f"luamigrate {command}{rest}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_whole(page: Path) -> None:
    """Each begins with a heading, and its rows have as many cells: a blank line in between would end it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for table in re.findall(r"^\|(?:.*\n\|)*.*$", text, re.MULTILINE):
        heading, line, *rows = (re.split(r"(?<!\\)\|", row.strip()) for row in table.splitlines())
        assert set("".join(line)) <= set("-: "), table[:80]
        assert [row for row in rows if len(row) != len(heading)] == []


def test_the_page_on_architecture_names_every_module() -> None:
    """And every file that it names is there."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for file in (ROOT / "luamigrate").glob("*/*.py"):
        assert file.stem == "__init__" or f"`{file.stem}`" in page, file
    for name in re.findall(r"`(test_\w+\.py)`", page):
        assert list((ROOT / "tests").rglob(name)), name
