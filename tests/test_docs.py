"""docs/operations.md is true: every check, guard and reason is there, in the words that are printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from luamigrate import checks, guards, servers, staged, walk
from luamigrate.outcome import Reason

ROOT = Path(__file__).parent.parent
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
UNTOLD = (
    *("its role (HELLO, ROLE, INFO)", "whether they succeed (INFO)", "whether it evicts keys"),
    "whether clients wait (CLIENT LIST)",
)
"""What checks warn of where a server leaves it out."""


def test_every_check_has_a_row() -> None:
    """In the order of the program, and none besides."""
    table = OPERATIONS[OPERATIONS.index("## The checks") : OPERATIONS.index("## During")]
    assert tuple(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == checks.NAMES


@pytest.mark.parametrize("module", [checks, guards, servers, staged, walk])
def test_the_words_it_quotes_are_those_of_the_program(module: object) -> None:
    """What each module prints begins as the page says."""
    text = Path(str(module.__file__)).read_text(encoding="utf-8")  # type: ignore[attr-defined]
    quoted = {
        checks: (
            *("this is a replica, and what is written here would be lost", "clients wait in this database"),
            *(f"the server does not tell {what}" for what in UNTOLD),
        ),
        guards: (
            *("held by SIGUSR1", "the server has evicted", "of maxmemory is used", "have acknowledged what was"),
            "the server does not tell how far they are (INFO replication)",
        ),
        servers: ("waiting for the server", "no answer for", "it is a replica now"),
        staged: ("busy: somebody wrote to it in each of",),
        walk: ("has an element of",),
    }
    for words in quoted[module]:  # type: ignore[index]
        assert words in text


def test_the_page_has_what_is_said_where_a_server_does_not_tell() -> None:
    """Each in the words that are printed."""
    for what in UNTOLD:
        assert f"the server does not tell {what}" in OPERATIONS


def test_every_reason_has_a_row_or_needs_none() -> None:
    """`other` has the server's own words."""
    assert {f"FAILED … {reason}" for reason in Reason if reason is not Reason.OTHER} == set(
        re.findall(r"^\| `(FAILED … [\w-]+)`", OPERATIONS, re.MULTILINE)
    )


def test_links_lead_somewhere() -> None:
    """Files that the page names are there."""
    for target in re.findall(r"\]\(([^)#]+)\)", OPERATIONS):
        assert (ROOT / "docs" / target).exists()
