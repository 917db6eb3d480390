"""luamigrate and a contender, measured in turn so that both meet the same machine; told as ratios."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

from bench.contenders import Measured, start_cpu_seconds
from bench.record import processor_seconds
from bench.table import Table

COLUMNS = ("keys/s", "server µs", "client µs", "luamigrate", "server µs", "client µs", "busy", "speed", "cost", "pairs")
"""Rates and the processor time of server and client for each key, from connecting on, of the contender and then of
luamigrate; for which share of its time the server was busy; how many times as fast as the contender luamigrate is, how
many times as much of the server's time it takes; and how fast in each of the pairs."""


def measure(
    client: Any,
    rounds: int,
    contender: Callable[[], Measured],
    ours: Callable[[], Measured],
    clear: Callable[[], None] | None = None,
) -> tuple[list[Measured], list[Measured]]:
    """Measure both so many times in turn; `clear`, where there is one, makes the server ready for the next."""
    theirs_measured: list[Measured] = []
    ours_measured: list[Measured] = []
    for _ in range(rounds):
        for work, measured in ((contender, theirs_measured), (ours, ours_measured)):
            if clear:
                clear()
            measured.append(with_server_time(client, work))
    return theirs_measured, ours_measured


def show(table: Table, name: str, contender: list[Measured], ours: list[Measured]) -> None:
    """Print the medians of a contender and of luamigrate, and of their ratios."""
    pairs = list(zip(ours, contender, strict=True))
    speeds = [one.working_rate / other.working_rate for one, other in pairs]
    cost = median(_server_us(one) / _server_us(other) for one, other in pairs)
    busy = median(one.server_seconds / one.working_seconds for one in ours)
    each = " ".join(f"{speed:.2f}" for speed in speeds)
    last = (f"{busy:.0%}", f"{median(speeds):.2f}", f"{cost:.2f}", each)
    table.add(name, *_medians(contender), *_medians(ours), *last)


def with_server_time(client: Any, work: Callable[[], Measured]) -> Measured:
    """Do the work, and add to what was measured what it took of the server's processor."""
    before = processor_seconds(client)
    measured = work()
    return replace(measured, server_seconds=processor_seconds(client) - before)


def _server_us(measured: Measured) -> float:
    return measured.server_seconds / measured.copied * 1e6


def _client_us(measured: Measured) -> float:
    return measured.working_cpu_seconds / measured.copied * 1e6


def _medians(measured: list[Measured]) -> tuple[str, str, str]:
    return (
        f"{median(one.working_rate for one in measured):,.0f}",
        f"{median(map(_server_us, measured)):.1f}",
        _client(measured),
    )


def _client(measured: list[Measured]) -> str:
    # What starting takes varies, and what is left of little beside it says nothing.
    if measured[0].document and median(one.working_cpu_seconds for one in measured) < start_cpu_seconds() / 2:
        return "-"
    return f"{median(map(_client_us, measured)):.1f}"
