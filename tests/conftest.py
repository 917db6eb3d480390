"""Fixtures: a real server of each version, and the command line run against it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import typer.main
from hypothesis import settings

from luamigrate.cli import commands
from luamigrate.cli.options import VARIABLES
from luamigrate.migration import throttle
from luamigrate.model.errors import Exit
from tests import binaries, clusters, processes
from tests.clusters import QUICK_MS, ClusterInstance
from tests.instances import Instance, Reachable, assert_kept, snapshot, start
from tests.schemas import read_answer, read_document, read_report

SHORT = "0.02"
"""Seconds to settle where a test does not say: nobody writes meanwhile."""


TOPOLOGIES = ("standalone", "cluster")
OLDEST_AND_NEWEST = ("redis-6.2", "valkey-9.1")
MARKERS = {
    "oldest_and_newest": "two kinds of server are enough: what lies between them is alike",
    "single_server(why)": "makes no sense on a cluster",
    "cluster": "makes sense on a cluster only",
}
EXAMPLES = {"standalone": 150, "cluster": 20}
"""That Hypothesis draws where a test does not say: what is the same for all of them takes longer on a cluster."""
BUILT = cache(typer.main.get_command)
"""The commands, built once from the functions that carry them out: that takes as long as carrying out a small one."""
ON_A_CLUSTER = "cluster-"
"""Begins the names of servers that are the nodes of a cluster."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the same tests run on single servers or on clusters."""
    parser.addoption("--topology", choices=TOPOLOGIES, default=TOPOLOGIES[0], help="what the tests run on")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to pass with no server at all."""
    for marker, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")
    settings.register_profile("here", max_examples=EXAMPLES[config.getoption("topology")])
    settings.load_profile("here")
    if not any(isinstance(binaries.find(name), Path) for name in binaries.NAMES):
        pytest.exit("no Redis or Valkey server can be had on this machine: nothing would be tested", returncode=1)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for a server on each of them, alone or as a cluster."""
    if "server_name" in metafunc.fixturenames:
        prefix = ON_A_CLUSTER if _is_on_clusters(metafunc.config) else ""
        names = OLDEST_AND_NEWEST if metafunc.definition.get_closest_marker("oldest_and_newest") else binaries.NAMES
        metafunc.parametrize("server_name", [prefix + name for name in names], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what makes no sense here, and on clusters what asks for no server: it has run already.

    What may take longest comes first, so that nobody waits for it at the end.
    """
    wanted = [item for item in items if _is_wanted(item, on_clusters=_is_on_clusters(config))]
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = sorted(wanted, key=lambda item: item.get_closest_marker("timeout") is None)


def _is_on_clusters(config: pytest.Config) -> bool:
    return bool(config.getoption("topology") == "cluster")


def _is_wanted(item: pytest.Item, *, on_clusters: bool) -> bool:
    if item.get_closest_marker("cluster"):
        return on_clusters
    asks = {"server", "any_server"} & set(getattr(item, "fixturenames", ()))
    return not on_clusters or (bool(asks) and not item.get_closest_marker("single_server"))


@pytest.fixture(scope="session", autouse=True)
def _signals_are_heard() -> None:
    """Have the processes of the tests hear signals also where pytest was started to ignore them."""
    processes.let_signals_through()


@pytest.fixture(autouse=True)
def _processes_end() -> Iterator[None]:
    """Have no process of a test outlive it."""
    yield
    processes.end_all()


@pytest.fixture(scope="session")
def running() -> Iterator[Callable[[str], Instance]]:
    """Start each server or cluster once for this process, when it is first asked for."""
    with ExitStack() as stack:
        instances: dict[str, Instance] = {}

        def get(name: str) -> Instance:
            if name not in instances:
                instances[name] = stack.enter_context(_start(name))
            return instances[name]

        yield get


def _start(name: str) -> AbstractContextManager[Instance]:
    if not name.startswith(ON_A_CLUSTER):
        return start(name)
    # It has all that the tests of both topologies ask of a server.
    return cast("AbstractContextManager[Instance]", clusters.start(name.removeprefix(ON_A_CLUSTER)))


@pytest.fixture
def server_name(request: pytest.FixtureRequest) -> str:
    """Name each server in turn; one that cannot be had here is a visible skip."""
    name: str = request.param
    found = binaries.find(name.removeprefix(ON_A_CLUSTER))
    if not isinstance(found, Path):
        pytest.skip(f"{name}: {found}")
    return name


@pytest.fixture
def server(server_name: str, running: Callable[[str], Instance]) -> Instance:
    """Give the test an empty server, or cluster, to itself."""
    instance = running(server_name)
    instance.client.flushall()
    instance.client.script_flush()
    return instance


@pytest.fixture
def cluster(server: Instance) -> ClusterInstance:
    """Give the test an empty cluster to itself, which it leaves as it is."""
    return cast("ClusterInstance", cast("Any", server))


@pytest.fixture
def movable(server_name: str) -> Iterator[ClusterInstance]:
    """Give the test a cluster of its own, whose slots it may move."""
    with clusters.start(server_name.removeprefix(ON_A_CLUSTER)) as cluster:
        yield cluster


@pytest.fixture
def replicated(server_name: str) -> Iterator[ClusterInstance]:
    """Give the test a cluster of its own whose primaries have a replica each and are missed soon."""
    with clusters.start(server_name.removeprefix(ON_A_CLUSTER), replicas=True, node_timeout=QUICK_MS) as cluster:
        yield cluster


@pytest.fixture
def any_server(request: pytest.FixtureRequest, running: Callable[[str], Instance]) -> Instance:
    """Give the test one server, or cluster, for what does not depend on the version."""
    name = next(name for name in ("valkey-9.1", *binaries.NAMES) if isinstance(binaries.find(name), Path))
    instance = running(ON_A_CLUSTER + name if _is_on_clusters(request.config) else name)
    instance.client.flushall()
    return instance


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the throttle ask the server each time, not once a second, and wait for moments only."""
    monkeypatch.setattr(throttle, "SECONDS_BETWEEN_CHECKS", 0.0)
    monkeypatch.setattr(throttle, "SECONDS_TO_SLEEP", 0.02)
    monkeypatch.setattr(throttle, "ACKNOWLEDGED_MS", 100)


@dataclass(frozen=True)
class Result:
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON document on standard output."""
        return read_document(self.out)

    @property
    def totals(self) -> Any:
        """The totals of the JSON document."""
        return self.document["totals"]


def luamigrate(*arguments: str, url: str | None = None, env: Mapping[str, str] | None = None) -> Result:
    """Run the command line in this process, as `main` does it, without the caller's settings."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in ({"SETTLE": SHORT} | dict(env or {})).items():
            patch.setenv(name, value)
        if url:
            patch.setenv("REDIS_URL", url)
        patch.setattr(typer.main, "get_command", BUILT)
        patch.setattr(sys, "argv", ["luamigrate", *arguments])
        patch.setattr("luamigrate.cli.settings.SECONDS_FOR_NOBODY", 0.0)
        with pytest.raises(SystemExit) as end:
            commands.main()
    assert "Traceback" not in err.getvalue()
    result = Result(int(end.value.code or 0), out.getvalue(), err.getvalue())
    _assert_told_by_the_schemas(result, arguments)
    return result


def _assert_told_by_the_schemas(result: Result, arguments: tuple[str, ...]) -> None:
    """Hold what programs are told against its schema, also where a test does not look at it."""
    if "--json" in arguments and result.out:
        (read_answer if arguments[0] == "control" else read_document)(result.out)
    given = dict(pairwise(arguments)).get("--report")
    if given and Path(given).is_file() and result.code != Exit.USAGE:
        read_report(Path(given).read_text(encoding="utf-8"))


def run(server: Reachable, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """Run `luamigrate run` and assert its first promises: whatever was there is as it was."""
    before = snapshot(server.client)
    result = luamigrate("run", *arguments, url=server.url, env=env)
    assert_kept(before, snapshot(server.client))
    return result
