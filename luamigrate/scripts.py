"""The Lua: find, expand and register the scripts of lua/, and call each with typed arguments."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

from luamigrate.errors import Error, printable
from luamigrate.rules import Pairs
from luamigrate.servers import Call, ScriptMissing, Server

Answer = bytes | list[object]
"""A script's answer for a pair: a word with its text, or a list of a word and notes."""

_INCLUDE = re.compile(r'^include "([^"]+)"$', re.MULTILINE)


class Question(Protocol):
    """A script that answers for pairs, with its options bound: the verbs differ in nothing else."""

    def __call__(self, server: Server, pairs: Pairs) -> ScriptCall:
        """Ask about these pairs."""


def folder() -> Path:
    """Return where the Lua is: inside the installed package, or beside it in a source tree."""
    packaged = Path(__file__).parent / "lua"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent / "lua"


@cache
def source(name: str, directory: Path | None = None) -> str:
    """Return `name`.lua with its includes expanded, each once.

    Raises FileNotFoundError for a missing script or include, ValueError for a circle of includes.
    """
    return _expand(f"{name}.lua", directory or folder(), (), set())


def _expand(name: str, directory: Path, including: tuple[str, ...], done: set[str]) -> str:
    if name in including:
        raise ValueError(f"circular include: {' -> '.join((*including, name))}")
    path = directory / name
    if not path.is_file():
        by = f", included by {including[-1]}" if including else ""
        raise FileNotFoundError(f"no Lua script {path}{by}")

    def included(match: re.Match[str]) -> str:
        if match[1] in done:
            return ""
        text = _expand(match[1], directory, (*including, name), done)
        done.add(match[1])
        return text

    return _INCLUDE.sub(included, path.read_text(encoding="utf-8"))


def register(server: Server, name: str) -> None:
    """Have the server keep a script. Raises Error."""
    server.call("SCRIPT", "LOAD", source(name)).answer()


class ScriptCall:
    """A registered script on its way."""

    def __init__(
        self, server: Server, name: str, command: str, keys: Sequence[bytes], *arguments: bytes | str | int
    ) -> None:
        self._server, self._name = server, name
        self._command = (command, _digest(name), len(keys), *keys, *arguments)
        self._call: Call = server.call(*self._command)

    def answer(self) -> list[Answer]:
        """Wait for the script's answers, registering it again where the server has lost it."""
        try:
            answers = self._call.answer()
        except ScriptMissing:
            # Nothing has run, so sending it again repeats nothing.
            register(self._server, self._name)
            self._call = self._server.call(*self._command)
            answers = self._call.answer()
        if not isinstance(answers, list) or not all(isinstance(answer, (bytes, list)) for answer in answers):
            raise Error(f"the server does not answer {self._name}.lua as it should")
        return answers

    @property
    def seconds(self) -> float:
        """How long the script took, seen from here."""
        return self._call.seconds or 0.0


@cache
def _digest(name: str) -> str:
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def copy(server: Server, pairs: Pairs, *, validate: bool, ignore_expiry: bool, show_values: bool) -> ScriptCall:
    """Call copy.lua: copy where the target is absent, and compare."""
    return _writing("copy", server, pairs, int(validate), int(ignore_expiry), int(show_values), *pairs.digests)


def fill(server: Server, pairs: Pairs, *, ignore_expiry: bool, show_values: bool, filling: str) -> ScriptCall:
    """Call fill.lua: copy, compare, and add what the look that gave `pairs.digests` found missing too."""
    return _writing("fill", server, pairs, int(ignore_expiry), int(show_values), filling, *pairs.digests)


def compare(
    server: Server,
    pairs: Pairs,
    *,
    validate: bool = True,
    ignore_expiry: bool,
    show_values: bool,
    filling: str = "",
    sizes: bool = False,
) -> ScriptCall:
    """Call compare.lua: say how each pair stands; reads only, and the server holds it to that."""
    options = (int(validate), int(ignore_expiry), int(show_values), filling, int(sizes))
    return _reading("compare", server, pairs, *options)


def remove(server: Server, pairs: Pairs, *, delete: bool, show_values: bool) -> ScriptCall:
    """Call remove.lua: delete the targets that equal their source, or only say which."""
    call = _writing if delete else _reading
    return call("remove", server, pairs, int(delete), int(show_values))


def extra(server: Server, pairs: Pairs) -> ScriptCall:
    """Call extra.lua: say which targets have no source; reads only."""
    return _reading("extra", server, pairs)


def probe(
    server: Server, keys: Sequence[bytes], absent: bytes, commands: Sequence[str], *, reads_only: bool
) -> dict[str, str]:
    """Call probe.lua: return 'ok', 'denied', 'unknown' or 'refused …' for each command."""
    command = _reading_command(server) if reads_only else "EVALSHA"
    answers = ScriptCall(server, "probe", command, keys, absent, *commands).answer()
    texts = [printable(answer) for answer in answers if isinstance(answer, bytes)]
    if len(texts) != len(commands):
        raise Error("the server does not answer probe.lua as it should")
    return dict(zip(commands, texts, strict=True))


def _writing(name: str, server: Server, pairs: Pairs, *options: bytes | str | int) -> ScriptCall:
    return ScriptCall(server, name, "EVALSHA", _keys(pairs), pairs.rule.type, *options)


def _reading(name: str, server: Server, pairs: Pairs, *options: bytes | str | int) -> ScriptCall:
    return ScriptCall(server, name, _reading_command(server), _keys(pairs), pairs.rule.type, *options)


def _reading_command(server: Server) -> str:
    return "EVALSHA_RO" if server.identity.is_at_least(redis=(7, 0), valkey=(7, 2)) else "EVALSHA"


def _keys(pairs: Pairs) -> list[bytes]:
    keys = [b""] * (2 * len(pairs.sources))
    keys[::2], keys[1::2] = pairs.sources, pairs.targets
    return keys
