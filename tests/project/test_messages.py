"""The pages quote messages as the program prints them, and say what to do about every error."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from luamigrate.model.status import Reason

ROOT = Path(__file__).parents[2]
PAGES = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")}
ERRORS = {"Error", "UsageError", "Refused", "Stopped"}
OTHERS_WORDS = {
    *("command not found", "DB index is out of range", "certificate verify failed"),
    *("unable to get local issuer certificate", "self-signed certificate", "certificate has expired", "not valid for"),
}
"""What a shell, a server or OpenSSL says."""
SHORTEST = 4
"""Characters of a quoted piece that tell anything."""


def literals() -> Iterator[tuple[ast.AST, str]]:
    """Yield every text of the program with its place; `…` stands for what is put in when it is printed."""
    for file in sorted((ROOT / "luamigrate").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Constant, ast.JoinedStr)):
                yield node, text_of(node)


def text_of(node: ast.AST) -> str:
    """Return a literal as a page quotes it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) if isinstance(value, ast.Constant) else "…" for value in node.values)
    return ""


PROGRAM = tuple({text for _, text in literals() if len(text) >= SHORTEST})


def quoted(page: str) -> Iterator[str]:
    """Yield what the tables of a page say that the program says."""
    column = None
    for line in page.splitlines():
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        if not cells:
            column = None
        elif column is None:
            column = next((index for index, cell in enumerate(cells) if "says" in cell), len(cells))
        elif column < len(cells):
            yield from re.findall(r"`([^`]+)`", cells[column])


def pieces(message: str) -> list[str]:
    """Return what is left of a quoted message without what varies, and without what is put before it."""
    split = re.split(r"…|^Warning: |^waiting for the (?:server|cluster): ", message)
    return [piece for text in split if len(piece := text.strip(" ,;:'")) >= SHORTEST]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_message_in_a_table_is_printed_by_the_program(name: str) -> None:
    """In these words, but for what varies."""
    unknown = [
        piece
        for message in quoted(PAGES[name])
        for piece in pieces(message)
        if piece not in OTHERS_WORDS and not any(piece in text for text in PROGRAM)
    ]
    assert not unknown


def errors() -> Iterator[str]:
    """Yield the text of every error that the program makes with a text of its own."""
    for file in sorted((ROOT / "luamigrate").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id=kind), args=[argument, *_]) if kind in ERRORS and text_of(argument):
                    yield text_of(argument)


def test_every_error_has_a_row() -> None:
    """So whoever meets one finds what to do."""
    told = [piece for page in PAGES.values() for message in quoted(page) for piece in pieces(message)]
    missing = [text for text in errors() if not any(piece in text for piece in told)]
    assert not missing


def test_every_reason_has_a_row_or_needs_none() -> None:
    """`other` has the server's own words."""
    assert {f"FAILED … {reason}" for reason in Reason if reason is not Reason.OTHER} == set(
        re.findall(r"^\| `(FAILED … [\w-]+)`", PAGES["operations.md"], re.MULTILINE)
    )
