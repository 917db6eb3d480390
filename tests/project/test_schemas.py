"""The schemas of docs/schema: closed, described, with the words of the program, and with nothing that is never told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from luamigrate.cli.demo_jobs import fill
from luamigrate.model.cutover import Side, Wish
from luamigrate.model.errors import Exit
from luamigrate.model.following import Phase
from luamigrate.model.rules import TYPES
from luamigrate.model.status import CHECKS, Command, Reason, Verdict, Word
from tests.conftest import luamigrate
from tests.instances import Instance
from tests.schemas import CHECK, CONTROL, FOLDER, REPORT_LINE, SUMMARY, read_document, read_report, schema, validator

NAMES = (SUMMARY, CHECK, REPORT_LINE, CONTROL)


def test_there_are_no_other_schemas() -> None:
    """Each has a test, and goes by the name of its file."""
    assert {file.name for file in FOLDER.iterdir()} == set(NAMES)
    assert all(schema(name)["$id"] == name for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_valid_and_describe_what_they_name(name: str) -> None:
    """By draft 2020-12; every field of every object says what it is."""
    Draft202012Validator.check_schema(schema(name))
    assert schema(name)["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    for part in (schema(name), *schema(name).get("$defs", {}).values()):
        for field, meaning in part.get("properties", {}).items():
            said = meaning if "description" in meaning else referred(name, meaning)
            assert len(said["description"]) > len(field), field


def referred(name: str, meaning: dict[str, Any]) -> Any:
    """Return the definition that a field refers to."""
    return schema(name)["$defs"][meaning["$ref"].removeprefix("#/$defs/")]


def test_words_and_names_are_those_of_the_program() -> None:
    """None is missing and there are none besides."""
    summary, line = schema(SUMMARY), schema(REPORT_LINE)
    given = summary["$defs"]
    assert list(given["counts"]["properties"]) == ["found", *(word for word in Word if word is not Word.IGNORED)]
    assert line["properties"]["word"]["enum"] == list(Word)
    assert summary["properties"]["command"]["enum"] == list(Command)
    assert summary["properties"]["exit_code"]["enum"] == list(Exit)
    assert given["figures"]["properties"]["phase"]["enum"] == list(Phase)
    assert given["figures"]["properties"]["side"]["enum"] == list(Side)
    assert schema(CONTROL)["$defs"]["follow"]["properties"]["wish"]["enum"] == [*Wish, None]
    assert given["check_name"]["enum"] == list(CHECKS)
    assert given["check"]["properties"]["verdict"]["enum"] == list(Verdict)
    assert given["reason"]["enum"] == list(Reason)
    assert given["rule"]["properties"]["type"]["enum"] == list(TYPES)
    assert line["properties"]["reason"]["enum"] == given["reason"]["enum"] + given["kept_reason"]["enum"]


def test_no_object_takes_a_field_that_is_not_described(any_server: Instance) -> None:
    """Whatever is added to a document or a line without being described fails the tests."""
    fill(any_server.client)
    for command in ("run", "check"):
        document = luamigrate(command, "--json", url=any_server.url).document
        for part in (document, document["server"], document["totals"], *document["rules"], *document.get("checks", ())):
            part["surprise"] = 1
            with pytest.raises(ValidationError):
                read_document(json.dumps(document))
            del part["surprise"]
        assert read_document(json.dumps(document)) == document
    line = {"source": "a", "target": "b", "word": "missing"}
    assert validator(REPORT_LINE).is_valid(line)
    assert not validator(REPORT_LINE).is_valid(line | {"surprise": 1})


@pytest.mark.parametrize(
    "line",
    [
        {"word": "failed", "reason": "oom"},
        {"word": "failed", "reason": "differs", "text": "OOM"},
        {"word": "kept"},
        {"word": "ignored"},
        {"word": "same", "reason": "oom"},
        {"word": "differs", "source_size": 1},
        {"word": "missing", "type": "hash"},
        {"word": "odd"},
    ],
    ids=str,
)
def test_a_line_without_what_its_word_needs_is_refused(line: dict[str, Any]) -> None:
    """A reason, a text, a type, both sizes; and none that belongs to another word."""
    assert not validator(REPORT_LINE).is_valid({"source": "a", "target": "b"} | line)


def make_every_note(server: Instance) -> None:
    """Write pairs that differ in everything that two keys can differ in."""
    client = server.client
    client.hset("job:hash", mapping={"same": "1", "wanted": "1", "other": "1"})
    client.hset("step:hash", mapping={"same": "1", "more": "1", "other": "2"})
    for name in ("partial", "expiry", "fields"):
        client.hset(f"job:{name}", mapping={"a": "1", "b": "2"})
        client.copy(f"job:{name}", f"step:{name}")
    client.hdel("step:partial", "b")
    client.expire("step:expiry", 1000)
    client.hexpire("step:fields", 1000, "a")
    client.rpush("job:list", "1", "2")
    client.rpush("step:list", "1", "3")
    client.xadd("job:stream", {"a": "1"}, id="1-1")
    client.xadd("step:stream", {"a": "2"}, id="1-1")
    client.set("job:type", "1")
    client.set("job:odd=", "1")
    client.hset("step:type", "a", "1")
    client.hset("job:big", mapping={str(number): os.urandom(100) for number in range(10)})
    client.hset("step:extra", "a", "1")


@pytest.mark.single_server("what is told of a pair is the same in a cluster")
def test_every_field_of_a_line_is_told_of_some_key(any_server: Instance, tmp_path: Path) -> None:
    """No schema promises what never comes."""
    if not any_server.has_field_expiries:
        pytest.skip(f"{any_server.name} knows no expiries of fields")
    make_every_note(any_server)
    file = tmp_path / "report"
    told: set[str] = set()
    rule = ("--map", "job:*=step:*", "--settle", "0", "--report", str(file))
    for command in (
        ("run", "--dry-run", "--on-existing", "fill", "--report-all", "--show-values"),
        ("verify", "--extra"),
        ("verify", "--type", "hash", "--report-all"),
        ("rollback", "--yes"),
        ("run", "--to-database", "3", "--report-all"),
    ):
        luamigrate(*command, *rule, url=any_server.url)
        told |= {name for line in read_report(file.read_text()) for name in line}
    of_others = {"text", "time_ms", "was"}  # keys that failed; a comparison that goes on, in test_verify_follow.py
    assert set(schema(REPORT_LINE)["properties"]) - told == of_others
