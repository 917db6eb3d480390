"""Words, reasons, exit codes and escaping."""

from __future__ import annotations

import ast
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luamigrate import (
    BUILT_IN,
    Batch,
    Command,
    Error,
    Exit,
    Reason,
    Refused,
    Summary,
    Tally,
    UsageError,
    Word,
    printable,
)
from luamigrate.model.status import reason_for


def summary_of(*words: Word, error: Error | None = None, interrupted: bool = False, **options: Any) -> Summary:
    """Return a summary in which each word came up once."""
    summary = Summary(BUILT_IN, error=error, interrupted=interrupted, **options)
    summary.add(Batch(BUILT_IN[0], tally=Tally(Counter(words))))
    return summary


@pytest.mark.parametrize(
    ("summary", "code"),
    [
        (summary_of(Word.COPIED, Word.SAME, Word.EXISTS, Word.GONE, Word.FILLED), Exit.OK),
        (summary_of(Word.SAME, Word.MISSING, dry_run=True), Exit.OK),
        (summary_of(Word.SAME, Word.MISSING), Exit.UNFINISHED),
        (summary_of(Word.SAME, Word.MISSING, command=Command.VERIFY), Exit.UNFINISHED),
        (summary_of(Word.REMOVED, Word.MISSING, command=Command.ROLLBACK), Exit.OK),
        (summary_of(Word.REMOVED, Word.KEPT, command=Command.ROLLBACK), Exit.UNFINISHED),
        (summary_of(Word.SAME, Word.EXTRA, command=Command.VERIFY), Exit.UNFINISHED),
        (summary_of(Word.COPIED, Word.PARTIAL), Exit.UNFINISHED),
        (summary_of(Word.COPIED, Word.DIFFERS), Exit.UNFINISHED),
        (summary_of(Word.COPIED, Word.EXPIRY), Exit.UNFINISHED),
        (summary_of(), Exit.UNFINISHED),
        (summary_of(allow_empty=True), Exit.OK),
        (summary_of(Word.PARTIAL, error=Refused("stopped")), Exit.REFUSED),
        (summary_of(Word.FAILED, error=Refused("stopped")), Exit.FAILED),
        (summary_of(Word.COPIED, error=Error("lost")), Exit.FAILED),
        (summary_of(error=UsageError("odd")), Exit.USAGE),
        (summary_of(Word.FAILED, Word.DIFFERS), Exit.FAILED),
        (summary_of(Word.FAILED, interrupted=True), Exit.INTERRUPTED),
    ],
)
def test_the_exit_code_is_the_first_that_applies(summary: Summary, code: Exit) -> None:
    """In the order of the documentation."""
    assert summary.exit_code is code


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-OOM command not allowed when used memory > 'maxmemory'.", Reason.OOM),
        ("OOM command not allowed when used memory > 'maxmemory'.", Reason.OOM),
        ("busy: somebody wrote to it in each of 5 attempts; try again when it is quieter", Reason.BUSY),
        ("too-big: a stream of 9,000,000 bytes cannot go in chunks", Reason.TOO_BIG),
        ("ERR ACL failure in script: User u has no permissions to run the 'copy' command", Reason.NOPERM),
        ("ERR The user executing the script can't run this command or subcommand", Reason.NOPERM),
        ("@user_script: 1: The user executing the script can't access at least one of the keys", Reason.NOPERM),
        ("-MISCONF Redis is configured to save RDB snapshots", Reason.OTHER),
        ("ZOOM", Reason.OTHER),
    ],
)
def test_reasons_are_read_from_every_servers_words(text: str, reason: Reason) -> None:
    """As Redis 6.2, 7.0, 8.2 and Valkey 9.1 put them."""
    assert reason_for(text) is reason


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_escaped_names_are_printable_and_reversible(name: bytes) -> None:
    """Whatever the bytes are, the text shows nothing but itself and leads back to them."""
    text = printable(name)
    assert text.isprintable()
    assert ast.literal_eval("b'" + "".join(map(as_bytes_literal, text)) + "'") == name


def as_bytes_literal(character: str) -> str:
    """Write a character of an escaped name so that Python reads it back as bytes."""
    if character == "\\" or (character.isascii() and character != "'"):
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode())


@pytest.mark.parametrize("word", Word)
def test_found_counts_every_word_but_those_outside_the_sum(word: Word) -> None:
    """A key that is gone was found too."""
    tally = Tally()
    tally.count(word, "string")
    assert tally.found == (word not in (Word.IGNORED, Word.EXTRA, Word.FOREIGN, Word.STRAGGLER))
