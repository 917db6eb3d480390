"""The Lua: find, expand and register the scripts of lua/, and call each with typed arguments."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

from luamigrate.errors import Error
from luamigrate.rules import Pairs
from luamigrate.servers import Call, ScriptMissing, Server

_INCLUDE = re.compile(r'^include "([^"]+)"$', re.MULTILINE)


class Question(Protocol):
    """A script that answers for pairs, with its options bound."""

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

    def answer(self) -> list[bytes]:
        """Wait for the script's answers, registering it again where the server has lost it."""
        try:
            answers = self._call.answer()
        except ScriptMissing:
            # Nothing has run, so sending it again repeats nothing.
            register(self._server, self._name)
            self._call = self._server.call(*self._command)
            answers = self._call.answer()
        if not isinstance(answers, list) or not all(isinstance(answer, bytes) for answer in answers):
            raise Error(f"the server does not answer {self._name}.lua as it should")
        return answers

    @property
    def seconds(self) -> float:
        """How long the script took, seen from here."""
        return self._call.seconds or 0.0


@cache
def _digest(name: str) -> str:
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()


def copy(server: Server, pairs: Pairs, *, validate: bool, ignore_expiry: bool) -> ScriptCall:
    """Call copy.lua: copy where the target is absent, and compare."""
    return ScriptCall(server, "copy", "EVALSHA", _keys(pairs), pairs.rule.type, int(validate), int(ignore_expiry))


def compare(server: Server, pairs: Pairs, *, validate: bool, ignore_expiry: bool) -> ScriptCall:
    """Call compare.lua: say how each pair stands; reads only, and the server holds it to that."""
    command = "EVALSHA_RO" if server.identity.is_at_least(redis=(7, 0), valkey=(7, 2)) else "EVALSHA"
    return ScriptCall(server, "compare", command, _keys(pairs), pairs.rule.type, int(validate), int(ignore_expiry))


def probe(server: Server, keys: Sequence[bytes], absent: bytes, commands: Sequence[str]) -> dict[str, str]:
    """Call probe.lua: return 'ok', 'denied' or 'unknown' for each command."""
    answers = ScriptCall(server, "probe", "EVALSHA", keys, absent, *commands).answer()
    if len(answers) != len(commands):
        raise Error("the server does not answer probe.lua as it should")
    return dict(zip(commands, (answer.decode() for answer in answers), strict=True))


def _keys(pairs: Pairs) -> list[bytes]:
    keys = [b""] * (2 * len(pairs.sources))
    keys[::2], keys[1::2] = pairs.sources, pairs.targets
    return keys
