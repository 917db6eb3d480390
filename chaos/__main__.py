"""`make chaos`: as many trials as asked for, on the servers asked for, and a table of what came of them."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import following, sites, trials
from chaos.judging import PAUSES, RULES
from chaos.sites import Site
from chaos.trials import Trial
from tests import binaries
from tests.processes import let_signals_through

TOPOLOGIES = ("standalone", "sentinel", "cluster")
VERBS = {"run": trials.make, "follow": following.make}
FOLLOWS_ONE_IN = 4
"""Seeds, where both are asked for."""
TRIALS_ON_A_SITE = 25
"""Then it is started anew."""
SHOWN = 6000
"""Characters of what a trial that broke a rule has printed."""


@dataclass
class Totals:
    """What came of all trials on a kind of server."""

    trials: int = 0
    keys: int = 0
    writes: int = 0
    reads: int = 0
    unjudged: int = 0
    """Trials that did not come to their end, because the servers did not."""
    faults: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    violations: Counter[int] = field(default_factory=Counter)
    failed: list[int] = field(default_factory=list)
    """Seeds."""

    def add(self, trial: Trial) -> None:
        """Count a trial."""
        self.trials += 1
        self.keys += trial.keys
        self.writes += trial.writes
        self.reads += trial.reads
        self.faults.update(trial.faults)
        self.codes.update(trial.codes)
        self.violations.update(number for number, _ in trial.violations)
        self.failed += [trial.seed] if trial.violations else []


@dataclass(frozen=True)
class Work:
    """Trials on one kind of site, until the seeds or the time are used up."""

    name: str
    topology: str
    seeds: list[int]
    deadline: float
    verbs: list[str]

    def verb(self, seed: int) -> str:
        """Return what is tried with a seed."""
        if len(self.verbs) == 1:
            return self.verbs[0]
        return "follow" if seed % FOLLOWS_ONE_IN == 0 and self.topology in following.TOPOLOGIES else "run"


def make_site(stack: ExitStack, work: Work, number: int) -> Site:
    """Start servers."""
    if work.topology == "cluster":
        return stack.enter_context(sites.clustered(work.name))
    if work.topology == "sentinel":
        return stack.enter_context(sites.guarded(work.name))
    return stack.enter_context(sites.standalone(work.name, sites.SYNC[number % len(sites.SYNC)]))


def carry_out(todo: Any, news: Any) -> None:
    """Do work from one queue until there is none, telling of each trial in another."""
    starter = os.getppid()
    while work := todo.get():
        for told in results(work):
            if os.getppid() != starter:
                os._exit(1)  # nobody listens any more; the servers end with us
            news.put((work, told))
    news.put(None)


def results(work: Work) -> Iterator[Trial | str]:
    """Make trials, and yield what came of each; start the servers anew after trouble."""
    seeds = list(work.seeds)
    while seeds and time.time() < work.deadline:
        try:
            with ExitStack() as stack:
                site = make_site(stack, work, seeds[0] // TRIALS_ON_A_SITE)
                while seeds and time.time() < work.deadline:
                    yield make(site, seeds[0], work.verb(seeds.pop(0)))
        except Exception:  # noqa: BLE001  # whatever it is: the next trial gets new servers
            yield f"before seed {seeds[:1]}: {traceback.format_exc()}"


def make(site: Site, seed: int, verb: str) -> Trial:
    """Make a trial; once more where only a pause was too long.

    What does not repeat itself there was the machine's doing, for it is the world and the options that decide.
    """
    trial = VERBS[verb](site, seed)
    return VERBS[verb](site, seed) if {number for number, _ in trial.violations} == {PAUSES} else trial


def told(works: list[Work], jobs: int) -> Iterator[tuple[Work, Trial | str]]:
    """Have it done by so many processes, and yield what is told of it."""
    context = multiprocessing.get_context("fork")
    todo: Any = context.Queue()
    news: Any = context.Queue()
    for work in (*works, *[None] * jobs):
        todo.put(work)
    processes = [context.Process(target=carry_out, args=(todo, news), daemon=True) for _ in range(jobs)]
    for process in processes:
        process.start()
    while jobs:
        if item := news.get():
            yield item
        else:
            jobs -= 1
    for process in processes:
        process.join()


def show(work: Work, trial: Trial) -> None:
    """Print what came of a trial that broke a rule, and how to repeat it."""
    print(f"\nVIOLATION, seed {trial.seed} on {work.name}, {work.topology}; faults: {', '.join(trial.faults)}")
    for number, text in trial.violations:
        print(f"  rule {number} ({RULES[number]}): {text}")
    print(trial.story[-SHOWN:])
    again = f"--servers {work.name} --topology {work.topology} --verbs {work.verb(trial.seed)}"
    again += f" --seed {trial.seed} --trials 1"
    print(f"again: python -m chaos {again}", flush=True)


def table(totals: dict[tuple[str, str], Totals]) -> str:
    """Return the tables, as they stand in docs/reliability.md."""
    rules = [f"rule {number}" for number in RULES]
    head = ["servers", "trials", "runs", "keys", "writes beside", "reads beside", *rules]
    lines = [head, ["---"] * len(head)]
    for (name, topology), each in totals.items():
        counts = [each.trials, each.codes.total(), each.keys, each.writes, each.reads]
        counts += [each.violations[number] for number in RULES]
        lines.append([f"{name}, {topology}", *(f"{count:,}" for count in counts)])
    faults = sum((each.faults for each in totals.values()), Counter[str]())
    rows = [["fault", "times"], ["---", "---"], *([name, f"{count:,}"] for name, count in sorted(faults.items()))]
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in part) for part in (lines, rows))


def main() -> int:
    """Carry out the campaign; exit code 1 where a rule was broken or a trial not judged."""
    options = _options()
    let_signals_through()
    kinds = [
        (name, topology)
        for name in options.servers.split(",")
        for topology in options.topology.split(",")
        if isinstance(binaries.find(name), Path) or print(f"SKIPPED: {name}: {binaries.find(name)}")
        if "run" in options.verbs or topology in following.TOPOLOGIES
    ]
    deadline = time.time() + options.seconds
    seeds = range(options.seed, options.seed + options.trials)
    shares = [list(seeds[first : first + TRIALS_ON_A_SITE]) for first in range(0, len(seeds), TRIALS_ON_A_SITE)]
    works = [Work(*kind, share, deadline, options.verbs) for share in shares for kind in kinds]
    totals = {kind: Totals() for kind in kinds}
    for work, news in told(works, options.jobs):
        each = totals[work.name, work.topology]
        if isinstance(news, str):
            each.unjudged += 1
            print(f"\nNOT JUDGED on {work.name}, {work.topology}, {news}", flush=True)
            continue
        each.add(news)
        if news.violations:
            show(work, news)
        elif options.verbose:
            what = f"{', '.join(news.faults)}: {dict(news.codes)}, {news.seconds:.1f} s"
            print(f"{work.name} {work.topology} {news.seed} {work.verb(news.seed)}: {what}", flush=True)
    print(table(totals))
    failed = sum(len(each.failed) + each.unjudged for each in totals.values())
    print(f"\n{sum(each.trials for each in totals.values())} trials, {failed} of them failed")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--servers", default=",".join(binaries.NAMES), help="names, with commas between them")
    parser.add_argument("--topology", default=",".join(TOPOLOGIES), help="names, with commas between them")
    parser.add_argument("--verbs", type=lambda text: text.split(","), default=[*VERBS], help=f"of {', '.join(VERBS)}")
    parser.add_argument("--seed", type=int, default=1, help="of the first trial; those of the others follow")
    parser.add_argument("--trials", type=int, default=1000, help="on each kind of server and topology, at most")
    parser.add_argument("--seconds", type=float, default=600, help="after which no trial is begun")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trials at a time")
    parser.add_argument("--verbose", action="store_true", help="print a line for each trial")
    return parser.parse_args()


sys.exit(main())
