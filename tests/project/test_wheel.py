"""The distributions: built from a copy of what is shipped, installed where nothing else is, and run."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from luamigrate.cli.options import environment
from tests.instances import Instance
from tests.migration.test_run import HASHES
from tools import dist
from tools.dist import Distributions


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """Build both distributions."""
    return dist.build(tmp_path_factory.mktemp("dist"))


def test_both_distributions_carry_all_of_the_program_and_nothing_else(built: Distributions) -> None:
    """Python, Lua, schemas, the marker for types, the licence; no tests, no caches; and an index would take them."""
    dist.check(built)
    assert {"luamigrate/py.typed", "luamigrate/lua/copy.lua", "luamigrate/schema/summary.schema.json"} < built.in_wheel
    assert {"lua/copy.lua", "docs/schema/summary.schema.json", "README.md", "LICENSE"} < built.in_sdist
    assert not any(name.startswith(("tests", "tools")) for name in built.in_wheel | built.in_sdist)


def test_a_distribution_that_lacks_something_is_refused(built: Distributions) -> None:
    """By the name of the file."""
    names = dist.files_of_the_package()
    with pytest.raises(SystemExit, match=r"the wheel lacks luamigrate/lua/copy\.lua$"):
        dist.compare("the wheel", names - {"luamigrate/lua/copy.lua"}, names)
    with pytest.raises(SystemExit, match=r"the wheel should not have tests/x\.py$"):
        dist.compare("the wheel", names | {"tests/x.py"}, names)
    with pytest.raises(SystemExit, match="twine check --strict"):
        dist.check(replace(built, wheel=built.sdist.with_name("nothing.whl")))


@pytest.mark.single_server("what is installed is the same for both")
@pytest.mark.timeout(180)
def test_the_installed_wheel_finds_its_lua(built: Distributions, any_server: Instance, tmp_path: Path) -> None:
    """In an empty environment, in another folder, with nothing of ours on the path."""
    luamigrate = str(dist.install(built.wheel, tmp_path / "venv"))
    any_server.client.hset("job:1", "a", "1")
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
    assert demo.stderr.startswith("luamigrate: the demo needs a server that is not installed here: pip install")
