"""A machine that has just been started: its clocks begin at nought, and nothing takes that for long ago."""

from __future__ import annotations

import time

import pytest

from luamigrate import Batch, Summary, connect, plan
from luamigrate.cli.reporter import ConsoleReporter
from luamigrate.migration import throttle
from luamigrate.model.control import Control
from luamigrate.server.connection import ReconnectPolicy
from luamigrate.server.errors import ConnectionLost
from tests.instances import Instance
from tests.migration.test_guards import Told, evict, nearly_full, refuse_writes, stopped
from tests.migration.test_run import fill
from tests.preflight.test_preflight import configured
from tests.proxies import cutting
from tests.server.test_recovery import once_at

pytestmark = pytest.mark.single_server("the clock stands still for whoever waits for nodes")

MOMENT = 0.25
PATIENCE = 1.0


class Clock(Told):
    """A clock that stands at nought, and goes on by a moment whenever something is told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def __call__(self, text: str) -> None:
        """Take a line, which takes a moment."""
        super().__call__(text)
        self.now += MOMENT

    def read(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock that everything reads, and have the throttle ask the server each time."""
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.read)
    monkeypatch.setattr(time, "perf_counter", clock.read)
    monkeypatch.setattr(throttle, "SECONDS_BETWEEN_CHECKS", 0.0)
    monkeypatch.setattr(throttle, "SECONDS_TO_SLEEP", 0.02)
    return clock


def test_the_guards_look_before_the_first_batch(
    any_server: Instance, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """However seldom the server is asked: an eviction is noticed by the last question at the latest."""
    monkeypatch.setattr(throttle, "SECONDS_BETWEEN_CHECKS", 1000.0)
    fill(any_server.client, jobs=300)
    with configured(any_server, maxmemory=0, maxmemory_policy="noeviction"):
        stopped(any_server, once_at(200, evict(any_server)), "eviction: the server has evicted", told=clock)


def test_the_patience_for_memory_begins_at_nought(any_server: Instance, clock: Clock) -> None:
    """It is as long as it is on any other machine."""
    fill(any_server.client, jobs=300)
    with configured(any_server, maxmemory=0):
        stopped(any_server, once_at(100, nearly_full(any_server)), "memory: ", told=clock, patience=PATIENCE)
    assert len(clock.of("memory")) == PATIENCE / MOMENT


def test_the_patience_for_writes_begins_at_nought(any_server: Instance, clock: Clock) -> None:
    """As above."""
    fill(any_server.client, jobs=300)
    with configured(any_server, min_replicas_to_write=0):
        stopped(any_server, once_at(100, refuse_writes(any_server)), "writes: ", told=clock, patience=PATIENCE)
    assert len(clock.of("writes")) == PATIENCE / MOMENT


def test_the_patience_for_a_server_that_only_greets_begins_at_nought(any_server: Instance, clock: Clock) -> None:
    """As above; each connection is lost before anything else is answered."""
    path = any_server.url.removeprefix("unix://")
    with cutting(path, requests=lambda content: 0 if b"DBSIZE" in content else None) as url, connect(url) as deployment:
        deployment.reconnect_by(ReconnectPolicy(patience=PATIENCE, control=Control(tell=clock)))
        (server,) = deployment.primaries
        with pytest.raises(ConnectionLost):
            server.call("DBSIZE").answer()
    assert len(clock.of("waiting for the server")) == PATIENCE / MOMENT


def test_a_command_that_is_sent_at_nought_has_been_sent(any_server: Instance, clock: Clock) -> None:
    """What it takes counts from then."""
    with connect(any_server.url) as deployment:
        (server,) = deployment.primaries
        call = server.call("PING")
        server.flush()
        clock.now = MOMENT
        call.answer()
    assert (call.seconds, call.alone) == (MOMENT, True)


def test_the_first_line_about_a_big_key_is_told_at_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """Only those after it wait."""
    jobs = plan([("job:*", "step:*", "hash")])
    reporter = ConsoleReporter(Summary(jobs), to_stderr=False, quiet=False, verbose=False)
    for part in (0.25, 0.5):
        reporter.batch(Batch(jobs[0], large=(b"job:big", part)))
    out = capsys.readouterr().out
    assert "25%" in out
    assert "50%" not in out
