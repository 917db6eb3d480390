"""Finding, expanding and registering the Lua."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from luamigrate.model.status import Word
from luamigrate.scripts import library
from luamigrate.scripts.chunk_replies import ChunkReply, ChunkValue
from luamigrate.scripts.cutover_calls import FlipReply
from luamigrate.scripts.follow_calls import LeaseReply
from luamigrate.scripts.replies import CrossSlotReply, MirrorReply, PairReply, ProbeReply

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
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert "for name in library.names():" in makefile


ALONE = {"probe.lua", "in_database.lua", "mirror_plain.lua"}
"""They include no library, and are never called about keys of many slots."""


@pytest.mark.parametrize("name", sorted({*FILES} - {"lib/request.lua"} - ALONE))
def test_only_one_library_reads_what_the_server_gave(name: str) -> None:
    """In a cluster the names of a batch are not in KEYS: whoever reads that would read nothing."""
    own = re.search(r"^local (KEYS|ARGV|KEYS, ARGV) = ", text := code_of(name), re.MULTILINE)
    for given in {"KEYS", "ARGV"} - set(own[1].split(", ") if own else ()):
        assert not re.search(rf"\b{given}\b", text)


def words_of(name: str) -> set[str]:
    """Return the words that a file's header lists, each with what it means."""
    header = (FOLDER / name).read_text().split("\n\n")[0]
    lists = re.findall(r"^--   ([a-z_]+(?:, [a-z_]+)*)(?: <[a-z]+>)*  ", header, re.MULTILINE)
    return {word for words in lists for word in words.split(", ")}


VERBS = ("copy", "compare", "fill", "remove", "find_extra", "mirror")
FOR_PAIRS = {*Word, *(reply.decode() for reply in PairReply)}


@pytest.mark.parametrize(
    ("files", "beside", "own"),
    [
        (["lib/batch.lua", *(f"{name}.lua" for name in VERBS)], {"unheld", "waited"}, FOR_PAIRS - {Word.STRAGGLER}),
        (
            [name for name in FILES if name.startswith("cross_slot/")],
            FOR_PAIRS | {"unheld", "waited"},
            {*CrossSlotReply},
        ),
        ([f"chunk/{name}.lua" for name in ("publish", "stage", "append", "add_fields")], set(), {*ChunkReply}),
        (["probe.lua"], set(), {*ProbeReply}),
        (["mirror.lua", "mirror_plain.lua"], {*Word}, {*MirrorReply}),
        (["lease.lua"], set(), {*LeaseReply}),
        (["flip.lua"], set(), {*FlipReply}),
        (["chunk/compare.lua"], set(), {*ChunkValue}),
    ],
)
def test_every_word_of_a_script_is_a_member_of_an_enum(files: list[str], beside: set[str], own: set[object]) -> None:
    """And the other way round: no enum knows a word that no header explains."""
    documented = set().union(*map(words_of, files))
    known = {word.decode() if isinstance(word, bytes) else str(word) for word in own}
    assert documented - beside == known


@pytest.mark.parametrize("name", [f"{name}.lua" for name in library.names()])
def test_every_word_that_a_script_answers_is_in_a_header(name: str) -> None:
    """What stands behind a return is listed, in the script's own header or in that of what it uses."""
    answered = set(re.findall(r"\breturn (?:\{ )?'([a-z]+)", code_of(name)))
    assert answered <= {*words_of(name), *words_of("lib/batch.lua"), "position", "length"}
