"""The Lua: find, expand and register the scripts of lua/."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from luamigrate.server.connection import Server

_INCLUDE = re.compile(r'^include "([^"]+)"$', re.MULTILINE)


def folder() -> Path:
    """Return where the Lua is: inside the installed package, or beside it in a source tree."""
    package = Path(__file__).parent.parent
    packaged = package / "lua"
    return packaged if packaged.is_dir() else package.parent / "lua"


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


@cache
def digest(name: str) -> str:
    """Return the name by which the server keeps a script: the SHA-1 of its source."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()
