"""What a follow takes of the application's writes and of the server, and how far behind it is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

from bench import jobs
from bench.contenders import JOBS
from bench.record import processor_seconds
from bench.setting import Bench
from bench.traffic import listening, write
from luamigrate.cli.options import environment
from luamigrate.model.plans import plan
from luamigrate.model.prefixes import MOST, merged, source_prefixes

MOST_KEYS = 20_000
PREFIXES = ("job:", "step:")
PIPELINES = {"one write at a time": 1, "16 in a pipeline": 16}
RULES = 10_000
TENANT = "tenant-{:04}:job"
SECONDS_TO_CATCH_UP = 0.5


@dataclass(frozen=True)
class Traffic:
    """What the writing client reached in one measurement."""

    writes: float
    """A second."""
    server_us: float
    """The server's processor time for each write."""
    lag_ms: Mapping[str, float] = field(default_factory=dict)
    """As the follow tells it."""


def show_follow(bench: Bench) -> None:
    """Show writes alone, with a listener that does nothing, and followed; and what many prefixes cost."""
    keys = min(bench.keys, MOST_KEYS)
    jobs.fill(bench.client, keys)
    bench.table.begin(
        "8 connections write",
        *("alone/s", "tracked/s", "followed/s", "tracked by", "followed by", "µs alone", "µs tracked", "µs followed"),
        *("lag p50, ms", "p99", "worst"),
    )
    for name, pipeline in PIPELINES.items():
        rounds = [_beside_each(bench, pipeline, keys) for _ in range(bench.rounds)]
        alone, tracked, followed = zip(*rounds, strict=True)
        bench.table.add(
            name,
            *(f"{median(one.writes for one in each):,.0f}" for each in (alone, tracked, followed)),
            *(_ratio(one, other) for one, other in ((tracked, alone), (followed, tracked))),
            *(f"{median(one.server_us for one in each):.1f}" for each in (alone, tracked, followed)),
            *(f"{median(one.lag_ms[share] for one in followed):.1f}" for share in ("p50", "p99", "max")),
        )
    _show_prefixes(bench)


def _show_prefixes(bench: Bench) -> None:
    rules = plan([(f"tenant-{number:04}:*", f"moved-{number:04}:*", "hash") for number in range(RULES)])
    many = [each.decode() for each in merged(source_prefixes(rules))]
    assert len(many) <= MOST
    jobs.fill(bench.client, RULES, name=TENANT)
    beside: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "no listener": nullcontext,
        "one prefix": partial(listening, bench.url, ["tenant-"]),
        f"{len(many)} prefixes, of {RULES:,} rules": partial(listening, bench.url, many),
    }
    bench.table.begin("16 writes in a pipeline", "writes/s", "µs", "by alone")
    measured: dict[str, list[Traffic]] = {name: [] for name in beside}
    for _ in range(bench.rounds):
        for name, listen in beside.items():
            with listen():
                measured[name].append(_written(bench, 16, TENANT, RULES))
    alone = measured["no listener"]
    for name, each in measured.items():
        writes, cost = median(one.writes for one in each), median(one.server_us for one in each)
        bench.table.add(name, f"{writes:,.0f}", f"{cost:.1f}", _ratio(each, alone))


def _ratio(ones: Any, others: Any) -> str:
    """Return the median of the ratios of what was measured in turn."""
    return f"{median(one.writes / other.writes for one, other in zip(ones, others, strict=True)):.2f}"


def _beside_each(bench: Bench, pipeline: int, keys: int) -> tuple[Traffic, Traffic, Traffic]:
    """Measure alone, tracked and followed, in turn."""
    written = partial(_written, bench, pipeline, jobs.NAME, keys)
    alone = written()
    with listening(bench.url, PREFIXES):
        tracked = written()
    with _followed(bench.url) as ended:
        followed = written()
    return alone, tracked, Traffic(followed.writes, followed.server_us, ended["lag_ms"])


def _written(bench: Bench, pipeline: int, names: str, keys: int) -> Traffic:
    before = processor_seconds(bench.client)
    count, seconds = write(bench.url, pipeline, names, keys)
    return Traffic(count / seconds, (processor_seconds(bench.client) - before) / count * 1e6)


@contextmanager
def _followed(url: str) -> Iterator[dict[str, Any]]:
    """Follow; yield what is filled with the figures that it tells at its end."""
    command = (sys.executable, "-m", "luamigrate", "follow", *JOBS[1:], "--settle", "0")
    process = subprocess.Popen(
        command, env=environment(REDIS_URL=url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    figures: dict[str, Any] = {}
    try:
        assert process.stderr
        assert any(line.strip().startswith("in step") for line in process.stderr), "it has ended"
        yield figures
        time.sleep(SECONDS_TO_CATCH_UP)
    finally:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert process.returncode == 0, err
    figures.update(json.loads(out)["followed"])
