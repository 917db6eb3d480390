"""Names and notes of a cut-over, and what comes of those that nobody has written so."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some
from redis.crc import key_slot

from luamigrate import UsageError, plan
from luamigrate.model.cutover import CutoverNote, CutoverRecord, cutover_record_of
from luamigrate.model.following import cutover_notes_of
from luamigrate.model.rules import RESERVED

RECORD = {b"flag": b"app:names", b"value": b"step:", b"former": b"job:", b"moment": b"1700000000000"}
NOTE = CutoverNote(
    who="here, process 1",
    flag=b"app:\xff",
    value=b"step:",
    record=b"luamigrate:cutover:1",
    database=3,
    sources=(b"job:", b"\xfe"),
    targets=(),
)


def reply(fields: dict[bytes, bytes]) -> list[bytes]:
    """Return what HGETALL answers."""
    return [each for pair in fields.items() for each in pair]


@given(some.binary(max_size=12) | some.text("{}ab", max_size=6).map(str.encode))
def test_the_record_is_in_the_slot_of_its_flag_or_the_flag_is_refused(flag: bytes) -> None:
    """Only one with a closing brace that is not behind a tag, or without a name, has no such record."""
    try:
        record = cutover_record_of(b"0123", flag, is_cluster=True)
    except UsageError:
        assert not flag or b"}" in flag
    else:
        assert key_slot(record) == key_slot(flag)
        assert record.startswith(b"luamigrate:cutover:0123:")


@pytest.mark.parametrize("flag", [b"app:names", b"{app}:names", b"a{b", b"{{a}}", b"x{a}}"])
def test_most_flags_have_a_record_in_a_cluster(flag: bytes) -> None:
    """With and without a hash tag."""
    assert key_slot(cutover_record_of(b"0", flag, is_cluster=True)) == key_slot(flag)


def test_on_one_server_any_flag_will_do() -> None:
    """There are no slots."""
    assert cutover_record_of(b"0123", b"a}b", is_cluster=False) == b"luamigrate:cutover:0123"


def test_a_record_is_read_as_it_was_written() -> None:
    """Also one of a flag that was absent before."""
    wanted = CutoverRecord(flag=b"app:names", value=b"step:", former=b"job:", moment=1_700_000_000_000)
    assert CutoverRecord.read(reply(RECORD)) == wanted
    without = CutoverRecord.read(reply({name: RECORD[name] for name in RECORD if name != b"former"}))
    assert without
    assert without.former is None


@pytest.mark.parametrize(
    "fields",
    [
        *[{name: RECORD[name] for name in RECORD if name != left_out} for left_out in (b"flag", b"value", b"moment")],
        RECORD | {b"more": b"1"},
        RECORD | {b"moment": b"soon"},
        RECORD | {b"moment": b""},
        RECORD | {b"moment": b"9" * 30},
        RECORD | {b"value": b""},
        {},
    ],
)
def test_an_odd_record_is_none(fields: dict[bytes, bytes]) -> None:
    """Nobody guesses what it may mean."""
    assert CutoverRecord.read(reply(fields)) is None


@pytest.mark.parametrize("answer", [None, 1, b"OK", [b"flag"], [1, 2], [None, b"x"], "text", {}])
def test_what_is_no_hash_is_no_record(answer: object) -> None:
    """Whatever a server answers."""
    assert CutoverRecord.read(answer) is None


def test_a_note_is_read_as_it_was_written() -> None:
    """Whatever bytes names have."""
    assert CutoverNote.read(NOTE.written()) == NOTE


@pytest.mark.parametrize(
    "change",
    [
        {"record": b"other:name".hex()},
        {"database": -1},
        {"database": "none"},
        {"flag": "not hexadecimal"},
        {"sources": None},
        {"targets": [1]},
    ],
)
def test_an_odd_note_is_none(change: dict[str, object]) -> None:
    """One of its fields is not what it should be, or is not there."""
    written = json.loads(NOTE.written())
    assert CutoverNote.read(json.dumps(written | change).encode()) is None
    assert (
        CutoverNote.read(json.dumps({name: written[name] for name in written.keys() - change.keys()}).encode()) is None
    )


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"1", b"\xff", None, 7, b"null"])
def test_what_is_no_json_of_ours_is_no_note(text: object) -> None:
    """Whatever somebody has written there."""
    assert CutoverNote.read(text) is None


def test_there_is_a_note_for_each_database() -> None:
    """Sources in one, targets in the other; the flag is with the sources."""
    rules = plan([("job:*", "step:*", "any")], database=5)
    notes = cutover_notes_of(rules, 2, "me", flag=b"f", value=b"v", record=RESERVED + b"cutover:1")
    assert {each: (note.sources, note.targets, note.database) for each, note in notes.items()} == {
        2: ((b"job:",), (), 2),
        5: ((), (b"step:",), 2),
    }
