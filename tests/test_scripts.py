"""Finding, expanding and registering the Lua."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from luamigrate.scripts import library

SCRIPTS = (
    *("copy", "compare", "fill", "remove", "extra", "probe", "stage", "contrast", "publish", "supply"),
    *("read", "create", "replace", "against", "fetch", "append", "hold", "pick"),
)


def test_includes_are_expanded_once_each(tmp_path: Path) -> None:
    """Where two ways lead to one file, its text stands once, at the first."""
    (tmp_path / "main.lua").write_text('include "a.lua"\ninclude "b.lua"\nreturn a + b\n')
    (tmp_path / "a.lua").write_text('include "b.lua"\nlocal a = b\n')
    (tmp_path / "b.lua").write_text("local b = 1\n")
    text = library.source("main", tmp_path)
    assert text.split() == ["local", "b", "=", "1", "local", "a", "=", "b", "return", "a", "+", "b"]


def test_a_missing_include_names_who_wants_it(tmp_path: Path) -> None:
    """File and includer are in the message."""
    (tmp_path / "main.lua").write_text('include "none.lua"\n')
    with pytest.raises(FileNotFoundError, match=r"none\.lua, included by main\.lua"):
        library.source("main", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no Lua script .*other\.lua"):
        library.source("other", tmp_path)


def test_a_circle_of_includes_is_named(tmp_path: Path) -> None:
    """The whole way round is in the message."""
    (tmp_path / "main.lua").write_text('include "a.lua"\n')
    (tmp_path / "a.lua").write_text('include "main.lua"\n')
    with pytest.raises(ValueError, match=r"main\.lua -> a\.lua -> main\.lua"):
        library.source("main", tmp_path)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_says_what_it_takes_and_answers(name: str) -> None:
    """The header names KEYS, ARGV and the answers."""
    header = (library.folder() / f"{name}.lua").read_text().split("\n\n")[0]
    for word in (f"-- {name}.lua: ", "-- KEYS ", "-- ARGV ", "-- Answer"):
        assert word in header


def test_every_file_in_the_folder_is_a_script_or_included() -> None:
    """Nothing lies about, and the Makefile lints every script."""
    files = {path.relative_to(library.folder()).as_posix() for path in library.folder().rglob("*.lua")}
    texts = [(library.folder() / name).read_text() for name in files]
    included = {name for text in texts for name in re.findall(r'^include "(.+)"$', text, re.MULTILINE)}
    assert files == {f"{name}.lua" for name in SCRIPTS} | included
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    assert re.search(r"^LUA +:= .*\$\(wildcard lua/\*\.lua\)", makefile, re.MULTILINE)
