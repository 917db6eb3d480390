"""Both distributions: built from what is shipped alone, checked, installed where nothing else is, and tried."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from luamigrate import __version__
from luamigrate.cli.options import environment

ROOT = Path(__file__).parents[1]
SHIPPED = ("luamigrate", "lua", "docs/schema", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
INSIDE = {"lua": "lua", "docs/schema": "schema"}
"""Folders that the wheel carries inside the package, and their names there."""


@dataclass(frozen=True)
class Distributions:
    """What has been built."""

    wheel: Path
    sdist: Path

    @property
    def in_wheel(self) -> set[str]:
        """The files of the wheel."""
        return set(zipfile.ZipFile(self.wheel).namelist())

    @property
    def in_sdist(self) -> set[str]:
        """The files of the source distribution, without the folder that they are in."""
        with tarfile.open(self.sdist) as archive:
            return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def build(target: Path) -> Distributions:
    """Build both from a copy of what is shipped, and the wheel from the source distribution; throw the copy away."""
    with tempfile.TemporaryDirectory() as copy:
        for name in SHIPPED:
            source, copied = ROOT / name, Path(copy) / name
            copied.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copied, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copied)
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), copy)
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return Distributions(wheel, sdist)


def check(built: Distributions) -> None:
    """Refuse distributions that lack something, have something else, or would not be accepted by an index."""
    run(sys.executable, "-m", "twine", "check", "--strict", str(built.wheel), str(built.sdist))
    information = f"luamigrate-{__version__}.dist-info/"
    package = {name for name in built.in_wheel if not name.startswith(information)}
    compare("the wheel", package, files_of_the_package())
    if f"{information}licenses/LICENSE" not in built.in_wheel:
        sys.exit("the wheel has no LICENSE")
    kept = {file.relative_to(ROOT).as_posix() for name in SHIPPED for file in files_in(ROOT / name)}
    compare("the source distribution", built.in_sdist, {*kept, "PKG-INFO"})


def files_of_the_package() -> set[str]:
    """Return the files that the wheel has to carry: Python, the marker for types, Lua, schemas."""
    names = {file.relative_to(ROOT).as_posix() for file in files_in(ROOT / "luamigrate")}
    for folder, inside in INSIDE.items():
        names |= {
            f"luamigrate/{inside}/{file.relative_to(ROOT / folder).as_posix()}" for file in files_in(ROOT / folder)
        }
    return names


def files_in(place: Path) -> list[Path]:
    """Return a file, or the files in a folder that are not made by running it."""
    found = place.rglob("*") if place.is_dir() else [place]
    return [file for file in found if file.is_file() and "__pycache__" not in file.parts]


def compare(what: str, names: set[str], expected: set[str]) -> None:
    """Refuse what lacks files or has others."""
    for told, wrong in (("lacks", expected - names), ("should not have", names - expected)):
        if wrong:
            sys.exit(f"{what} {told} {', '.join(sorted(wrong))}")


def install(wheel: Path, folder: Path, *, extra: str = "") -> Path:
    """Install the wheel into an empty environment in a folder, and return the command that it has there."""
    # Our pip serves the empty environment: to give it one of its own would take longer than all the rest.
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    pip = (sys.executable, "-m", "pip", "--python", str(folder / "bin/python"), "-q", "--no-input")
    options = ("--disable-pip-version-check", "--no-compile", "-c", str(ROOT / "constraints.txt"))
    run(*pip, "install", *options, f"{wheel}{extra}")
    return folder / "bin/luamigrate"


def run(*command: str) -> None:
    """Run a command, and say what it said where it fails."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stdout}")


def main() -> None:
    """Make both distributions in dist/."""
    target = ROOT / "dist"
    for older in target.glob("luamigrate-*"):
        older.unlink()
    built = build(target)
    check(built)
    with tempfile.TemporaryDirectory() as folder:
        command = install(built.wheel, Path(folder) / "venv", extra="[demo]")
        demo = (str(command), "demo")
        shown = subprocess.run(demo, env=environment(), cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if shown.returncode or "nothing is left behind" not in shown.stdout:
        sys.exit(f"luamigrate demo does not work where the wheel is installed:\n{shown.stdout}")
    print(f"Built, checked, installed and tried: {built.wheel.name} and {built.sdist.name}, in dist/")


if __name__ == "__main__":
    main()
