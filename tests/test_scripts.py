"""Finding, expanding and registering the Lua."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from luamigrate.scripts import library

FOLDER = library.folder()
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.lua"))
LIBRARIES = {Path(name).stem: name for name in FILES if name.startswith("lib/")}


def code_of(name: str) -> str:
    """Return a file without its comments."""
    return re.sub(r"--.*", "", (FOLDER / name).read_text())


def test_a_library_stands_once_and_before_its_first_user(tmp_path: Path) -> None:
    """Where two ways lead to one file, it is run once."""
    (tmp_path / "main.lua").write_text('local a = include "a.lua"\nlocal b = include "b.lua"\nreturn a + b\n')
    (tmp_path / "a.lua").write_text('local b = include "b.lua"\nreturn b\n')
    (tmp_path / "b.lua").write_text("return 1\n")
    text = library.source("main", tmp_path)
    b, a = "local b = (function()\nreturn 1\nend)()", "local a = (function()\nreturn b\nend)()"
    assert text.split() == f"{b} {a} return a + b".split()


def test_a_missing_include_names_who_wants_it(tmp_path: Path) -> None:
    """File and includer are in the message."""
    (tmp_path / "main.lua").write_text('local none = include "none.lua"\n')
    with pytest.raises(FileNotFoundError, match=r"none\.lua, included by main\.lua"):
        library.source("main", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no Lua script .*other\.lua"):
        library.source("other", tmp_path)


def test_a_circle_of_includes_is_named(tmp_path: Path) -> None:
    """The whole way round is in the message."""
    (tmp_path / "main.lua").write_text('local a = include "a.lua"\n')
    (tmp_path / "a.lua").write_text('local main = include "main.lua"\n')
    with pytest.raises(ValueError, match=r"main\.lua -> a\.lua -> main\.lua"):
        library.source("main", tmp_path)


@pytest.mark.parametrize(
    "line", ['include "a.lua"', 'local b = include "a.lua"', "local a = include 'a.lua'", 'local a = include "a.lua" ']
)
def test_an_include_of_another_form_is_shown(tmp_path: Path, line: str) -> None:
    """A library has one name wherever it is used."""
    (tmp_path / "main.lua").write_text(f"{line}\nreturn a\n")
    (tmp_path / "a.lua").write_text("return 1\n")
    with pytest.raises(ValueError, match=r"main\.lua includes .*a"):
        library.source("main", tmp_path)


@pytest.mark.parametrize("name", library.names())
def test_every_script_says_what_it_takes_and_answers(name: str) -> None:
    """The header names KEYS, ARGV and the answers."""
    header = (FOLDER / f"{name}.lua").read_text().split("\n\n")[0]
    for word in (f"-- {name}.lua: ", "-- KEYS ", "-- ARGV ", "-- Answer"):
        assert word in header


@pytest.mark.parametrize("name", FILES)
def test_every_file_includes_the_libraries_that_it_uses(name: str) -> None:
    """No more, and no fewer: what somebody else has included may be gone tomorrow."""
    text = code_of(name)
    included = set(re.findall(r'^local (\w+) = include "lib/\1\.lua"$', text, re.MULTILINE))
    used = {library for library in LIBRARIES if re.search(rf"(?<![\w.:]){library}\.\w", text)}
    # A library may be a table with its own name, and a script's variable may be called like a library.
    assert used - included <= {Path(name).stem}
    assert included <= used


def test_every_file_in_the_folder_is_a_script_or_included() -> None:
    """Nothing lies about, and the Makefile lints every script."""
    included = {name for file in FILES for name in re.findall(r'include "(.+)"', code_of(file))}
    assert set(FILES) == {f"{name}.lua" for name in library.names()} | included
    makefile = (Path(__file__).parent.parent / "Makefile").read_text()
    assert "for name in library.names():" in makefile


@pytest.mark.parametrize("name", sorted({*FILES} - {"lib/request.lua", "probe.lua"}))
def test_only_one_library_reads_what_the_server_gave(name: str) -> None:
    """In a cluster the names of a batch are not in KEYS: whoever reads that would read nothing."""
    own = re.search(r"^local (KEYS|ARGV|KEYS, ARGV) = ", text := code_of(name), re.MULTILINE)
    for given in {"KEYS", "ARGV"} - set(own[1].split(", ") if own else ()):
        assert not re.search(rf"\b{given}\b", text)
