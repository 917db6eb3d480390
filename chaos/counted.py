"""The judge of an application that counts: each write that was acknowledged is there, and none of them twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from typing import Any

from chaos.counting import OLD, Names, Report, Settings
from luamigrate.cli.options import environment
from tests.processes import of_this_test

ROLES = (
    ("count", "count", "enqueue", "work"),
    ("count", "count", "work", "work_later"),
    ("count", "count", "enqueue", "work_later"),
)
"""The connections of each process: twelve with all of them."""
SECONDS_TO_END = 60.0
LOST, DOUBLED = 1, 2
"""The numbers of the rules."""


class Counting:
    """The processes of an application, which work until they are ended."""

    def __init__(self, settings: Settings) -> None:
        command = (sys.executable, "-m", "chaos.counting")
        each = (replace(settings, number=number, roles=roles) for number, roles in enumerate(ROLES))
        self._processes = [
            of_this_test(
                subprocess.Popen(
                    (*command, json.dumps(asdict(one))),
                    env=environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            for one in each
        ]

    @property
    def has_failed(self) -> bool:
        """Whether a process has ended by itself."""
        return any(process.poll() is not None for process in self._processes)

    def end(self) -> Report:
        """Have it come to an end, and return what it knows."""
        for process in self._processes:
            assert process.stdin
            process.stdin.close()
            process.stdin = None
        report = Report()
        for process in self._processes:
            out, _ = process.communicate(timeout=SECONDS_TO_END)
            assert process.returncode == 0, f"the application has failed: {out[-2000:]}"
            report.add(Report.read(out))
        return report

    def kill(self) -> None:
        """End it without asking what it knows."""
        for process in self._processes:
            process.kill()
            process.communicate()


Found = Counter[str]
"""How often each thing that an application writes is there, under the names of one side: counters and jobs."""


def find(client: Any, side: str, counters: int) -> Found:
    """Read what an application has written under the names of a side."""
    names = Names(side)
    found = Found(
        {f"counter:{number}": int(client.hget(names.counter(str(number)), "n") or 0) for number in range(counters)}
    )
    for queue in (names.waiting, names.running):
        found.update(f"list:{job.decode()}" for job in client.lrange(queue, 0, -1))
    found.update(f"zset:{job.decode()}" for job in client.zrange(names.later, 0, -1))
    return found


def old_names_of(what: str) -> set[str]:
    """Name the keys that have had a counter or a job before the cut-over."""
    names, (kind, _, number) = Names(OLD), what.partition(":")
    if kind == "counter":
        return {names.counter(number)}
    return {names.waiting, names.running} if kind == "list" else {names.later}


def judge(report: Report, found: Found, stragglers: Collection[str] = ()) -> Iterator[tuple[int, str]]:
    """Yield what was lost and what was doubled, but for the names (the old ones) that were told as stragglers."""
    written = report.acknowledged.keys() | report.unknown.keys() | report.ran.keys() | found.keys()
    lost = Counter[str]()
    for what in sorted(each for each in written if ":" in each and not old_names_of(each) & {*stragglers}):
        wanted, unknown = report.acknowledged[what], report.unknown[what]
        there = found[what] + report.ran[what]
        if there > wanted + unknown:
            yield DOUBLED, f"{what}: {there} times, {wanted} acknowledged and {unknown} unknown"
        if there < wanted:
            lost[what] = wanted - there
    # Who takes a job from a sorted set, and never hears of it, has lost it by himself.
    for what in [each for each in lost if each.startswith("zset:")][: report.unknown_takes]:
        del lost[what]
    for what, count in lost.items():
        yield LOST, f"{what}: {count} lost of {report.acknowledged[what]} acknowledged"
    if not {Names(OLD).running, Names(OLD).waiting} & {*stragglers}:
        for job in report.astray:
            yield LOST, f"list:{job}: it was taken, and was not among those under way"


def unheard(report: Report, found: Found) -> int:
    """Count the jobs that are gone from the sorted set, and that commands whose answer was lost may have taken."""
    jobs = [what for what in report.acknowledged if what.startswith("zset:")]
    return sum(found[what] + report.ran[what] < report.acknowledged[what] for what in jobs)
