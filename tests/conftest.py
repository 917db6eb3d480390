"""Fixtures: a real server of each version, and the command line run against it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from luamigrate import cli
from luamigrate.demo import SETTINGS
from tests import binaries
from tests.instances import Instance, assert_kept, snapshot, start

SHORT = "0.02"
"""Seconds to settle where a test does not say: nobody writes meanwhile."""


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to pass with no server at all."""
    if not any(isinstance(binaries.find(name), Path) for name in binaries.NAMES):
        pytest.exit("no Redis or Valkey server can be had on this machine: nothing would be tested", returncode=1)


@pytest.fixture(scope="session")
def running() -> Iterator[Callable[[str], Instance]]:
    """Start each server once for this process, when it is first asked for."""
    with ExitStack() as stack:
        instances: dict[str, Instance] = {}

        def get(name: str) -> Instance:
            if name not in instances:
                instances[name] = stack.enter_context(start(name))
            return instances[name]

        yield get


@pytest.fixture(params=binaries.NAMES)
def server_name(request: pytest.FixtureRequest) -> str:
    """Name each server in turn; one that cannot be had here is a visible skip."""
    name: str = request.param
    found = binaries.find(name)
    if not isinstance(found, Path):
        pytest.skip(f"{name}: {found}")
    return name


@pytest.fixture
def server(server_name: str, running: Callable[[str], Instance]) -> Instance:
    """Give the test an empty server to itself."""
    instance = running(server_name)
    instance.client.flushall()
    instance.client.script_flush()
    return instance


@pytest.fixture
def any_server(running: Callable[[str], Instance]) -> Instance:
    """Give the test one server, for what does not depend on the version."""
    name = next(name for name in ("valkey-9.1", *binaries.NAMES) if isinstance(binaries.find(name), Path))
    instance = running(name)
    instance.client.flushall()
    return instance


@dataclass(frozen=True)
class Result:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document on standard output."""
        return json.loads(self.out)

    @property
    def totals(self) -> Any:
        """The totals of the JSON document."""
        return self.document["totals"]


def luamigrate(*arguments: str, url: str | None = None, env: Mapping[str, str] | None = None) -> Result:
    """Run the command line in this process, as `main` does it, without the caller's settings."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name in SETTINGS:
            patch.delenv(name, raising=False)
        for name, value in ({"SETTLE": SHORT} | dict(env or {})).items():
            patch.setenv(name, value)
        if url:
            patch.setenv("REDIS_URL", url)
        patch.setattr(sys, "argv", ["luamigrate", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert "Traceback" not in err.getvalue()
    return Result(int(end.value.code or 0), out.getvalue(), err.getvalue())


def run(server: Instance, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """Run `luamigrate run` and hold it to its first promises: whatever was there is as it was."""
    before = snapshot(server.client)
    result = luamigrate("run", *arguments, url=server.url, env=env)
    assert_kept(before, snapshot(server.client))
    return result
