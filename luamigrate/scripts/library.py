"""The Lua: find, expand and register the scripts of lua/."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from luamigrate.server.connection import Connection

_INCLUDE = re.compile(r'^local (\w+) = include "([^"]+)"\n', re.MULTILINE)


def folder() -> Path:
    """Return where the Lua is: inside the installed package, or beside it in a source tree."""
    package = Path(__file__).parent.parent
    packaged = package / "lua"
    return packaged if packaged.is_dir() else package.parent / "lua"


def names() -> list[str]:
    """Return all scripts that a server may be given, as paths in the folder without the ending."""
    files = (path.relative_to(folder()) for path in folder().rglob("*.lua"))
    return sorted(file.with_suffix("").as_posix() for file in files if file.parts[0] != "lib")


@cache
def source(name: str, directory: Path | None = None) -> str:
    """Return `name`.lua, and in front of it each library that it needs, once, before the first that uses it.

    A library is a file that returns a table; `local expiry = include "lib/expiry.lua"` makes it known under the
    name of its file. Raises FileNotFoundError for a missing script or library, ValueError for libraries that need
    each other in a circle and for an include of another form.
    """
    libraries: dict[str, str] = {}
    text = _without_includes(f"{name}.lua", directory or folder(), (), libraries)
    return "".join((*libraries.values(), text))


def _without_includes(name: str, directory: Path, including: tuple[str, ...], libraries: dict[str, str]) -> str:
    """Return the text of a file, and put the libraries that it includes behind those that are there already."""
    if name in including:
        raise ValueError(f"circular include: {' -> '.join((*including, name))}")
    path = directory / name
    if not path.is_file():
        by = f", included by {including[-1]}" if including else ""
        raise FileNotFoundError(f"no Lua script {path}{by}")
    text = path.read_text(encoding="utf-8")
    for variable, library in _INCLUDE.findall(text):
        if variable != Path(library).stem:
            raise ValueError(f"{name} includes {library} as {variable}, not as {Path(library).stem}")
        if library not in libraries:
            body = _without_includes(library, directory, (*including, name), libraries)
            libraries[library] = f"local {variable} = (function()\n{body}end)()\n\n"
    text = _INCLUDE.sub("", text)
    if strange := re.search(r"^[^-\n]*\binclude\b.*", text, re.MULTILINE):
        raise ValueError(f"{name} includes in a form that is not known: {strange[0]}")
    return text


def register(server: Connection, name: str) -> None:
    """Have the server keep a script. Raises Error."""
    server.call("SCRIPT", "LOAD", source(name)).answer()


@cache
def digest(name: str) -> str:
    """Return the name by which the server keeps a script: the SHA-1 of its source."""
    return hashlib.sha1(source(name).encode(), usedforsecurity=False).hexdigest()
