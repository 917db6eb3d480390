"""One trial: a world, companions, a run under faults, runs without, and the judgement; all drawn from its seed."""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from chaos import faults, processes, sites, worlds
from chaos.application import Application, Reader
from chaos.faults import Fault
from chaos.judging import Case, Violation, judge, judge_verify
from chaos.processes import Ended, Tool
from chaos.sites import Site
from chaos.worlds import Keys, World, expires_meanwhile, lives_as_long, relation
from luamigrate.model.errors import printable
from tests.clusters import wait_until

PATIENCE = "25"
"""Seconds: longer than any fault lasts."""
MOST_KEYS = 300
SECONDS = 1.2
"""That a run is to last, by the rate that it is given."""
SOON_SECONDS = worlds.SOON_MS[1] / 1000 + 0.1
"""Until the last of what expires in the middle of a trial has."""


@dataclass
class Trial:
    """What came of a seed."""

    seed: int
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    keys: int = 0
    writes: int = 0
    reads: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    story: str = ""
    """What the runs printed, where a rule was broken."""


@dataclass(frozen=True)
class Drawn:
    """The options of a run."""

    arguments: tuple[str, ...]
    fills: str
    validates: bool
    ignores_expiry: bool
    max_pause: float

    @property
    def to_compare(self) -> list[str]:
        """The options that verify takes too."""
        own = {"--on-existing": 2, "--fill-queues": 1, "--no-validate": 1}
        left = list(self.arguments)
        for name, width in own.items():
            if name in left:
                del left[left.index(name) : left.index(name) + width]
        return left


def draw_options(chance: random.Random, world: World) -> Drawn:
    """Draw how luamigrate is called."""
    fills = chance.choice(("", "", "", "sets", "queues"))
    validates = bool(fills) or chance.random() < 0.9
    ignores_expiry = chance.random() < 0.1
    max_pause = chance.choice((0.1, 0.5, 1.0, 1.0, 5.0, 5.0, 20.0))
    arguments = [option for naming in world.namings for option in naming.options]
    arguments += ["--json", "--patience", PATIENCE, "--max-pause", str(max_pause)]
    arguments += ["--batch-size", str(chance.choice((3, 10, 30, 100, 100, 1000)))]
    arguments += ["--settle", str(chance.choice((0, 0.02, 0.1, 0.3)))] if not fills else ["--settle", "0.1"]
    arguments += ["--on-existing", "fill"] if fills else []
    arguments += ["--fill-queues"] if fills == "queues" else []
    arguments += ["--ignore-expiry"] if ignores_expiry else []
    arguments += [] if validates else ["--no-validate"]
    return Drawn(tuple(arguments), fills, validates, ignores_expiry, max_pause)


def make(site: Site, seed: int) -> Trial:
    """Make a trial on a site, which is whole again afterwards."""
    chance, began = random.Random(seed), time.monotonic()
    trial = Trial(seed)
    world = worlds.draw(chance, most=MOST_KEYS, with_moments=site.has_moments)
    drawn = draw_options(chance, world)
    chosen = chance.sample(faults.possible(site), chance.choice((1, 1, 2, 2, 3)))
    creates = chance.random() < 0.4
    sites.reset(site)
    _write(site, world)
    written = time.monotonic()
    trial.faults, trial.keys = [fault.name for fault in chosen], len(world.keys)
    with tempfile.TemporaryDirectory(prefix="luamigrate-chaos-") as folder:
        application = Application(site, world, seed, creates=creates)
        with application, Reader(site, world, application, seed) as reader:
            runs, last_loss = _under_faults(site, chance, chosen, Path(folder), drawn, count=len(world.sources))
            runs.append(_again(site, Path(folder), drawn, "again"))
        time.sleep(max(0.0, written + SOON_SECONDS - time.monotonic()))
        runs.append(_again(site, Path(folder), drawn, "final"))
        case = Case(
            site=site,
            world=world,
            application=application,
            reader=reader,
            faults=chosen,
            last_loss=last_loss,
            runs=runs,
            fills=drawn.fills,
            validates=drawn.validates,
            ignores_expiry=drawn.ignores_expiry,
            max_pause=drawn.max_pause,
            found=_observe(site),
        )
        trial.violations = judge(case)
        if chance.random() < 0.25:
            verified = processes.run(Path(folder), site.url(), ("verify", *drawn.to_compare), "verify")
            trial.violations += judge_verify(case, verified)
        if chance.random() < 0.25:
            trial.violations += _roll_back(site, chance, case, trial, Path(folder))
    trial.writes, trial.reads = application.writes, reader.reads
    trial.seconds = time.monotonic() - began
    trial.codes.update(str(run.code) for run in runs)
    if trial.violations:
        trial.story += f"the application {application.when=}, {drawn}\n" + "\n".join(map(str, runs))
    return trial


def _under_faults(
    site: Site, chance: random.Random, chosen: list[Fault], folder: Path, drawn: Drawn, *, count: int
) -> tuple[list[Ended], float]:
    tool = Tool(folder, site.url(), ("run", *drawn.arguments, "--max-rate", str(max(20, count / SECONDS))))
    last_loss = -math.inf
    tool.wait_until_begun()
    for fault in chosen:
        time.sleep(chance.uniform(0, 0.5))
        fault.strike(site, chance, tool)
        if fault.loses:
            last_loss = time.monotonic()
    runs = tool.wait()
    site.heal()
    return runs, last_loss


def _again(site: Site, folder: Path, drawn: Drawn, name: str) -> Ended:
    return processes.run(folder, site.url(), ("run", *drawn.arguments), name)


def _write(site: Site, world: World) -> None:
    for server in site.servers():
        worlds.write(server.client, {name: stored for name, stored in world.keys.items() if site.has(server, name)})
        wait_until(partial(sites.replicated, server.client))


def _observe(site: Site) -> Keys:
    return worlds.observe((server.client for server in site.servers()), with_moments=site.has_moments)


def _roll_back(site: Site, chance: random.Random, case: Case, trial: Trial, folder: Path) -> list[Violation]:
    """Undo it under a fault, and once more without: what equals its source is gone, and nothing else."""
    arguments = [option for naming in case.world.namings for option in naming.options]
    arguments += ["--yes", "--json", "--settle", "0.02", "--patience", PATIENCE]
    fault = chance.choice(faults.possible(site))
    trial.faults.append(f"in rollback: {fault.name}")
    tool = Tool(folder, site.url(), ("rollback", *arguments, "--max-rate", str(len(case.world.sources))), "rollback")
    tool.wait_until_begun()
    time.sleep(chance.uniform(0, 0.5))
    fault.strike(site, chance, tool)
    tool.wait()
    site.heal()
    # A slot that moves takes expiries along that are some milliseconds off, which may decide.
    before = _observe(site)
    last = processes.run(folder, site.url(), ("rollback", *arguments), "rollback-again")
    trial.codes.update([f"rollback {last.code}"])
    found = _observe(site)
    violations = [(6, f"nothing hindered it, and yet: {last}")] if last.code not in (0, 1, 3) else []
    source_of = {target: source for source, _, target in case.pairs}
    for name, stored in case.found.items():
        source = source_of.get(name, b"")
        if expires_meanwhile(stored):
            continue
        if (there := found.get(name)) is None:
            if not (_may_go(case.found, source, name) or _may_go(before, source, name)):
                violations.append((2, f"{name!r} was removed"))
        elif _may_go(before, source, name) and not last.report.get(printable(source), "").startswith("failed"):
            violations.append((3, f"{name!r} should have been removed"))
        elif not (there.content == stored.content and lives_as_long(there, stored)):
            violations.append((1, f"{name!r} was changed"))
    trial.story += str(last) if violations else ""
    return violations


def _may_go(keys: Keys, source: bytes, target: bytes) -> bool:
    """Tell whether a target equals its source, which lives as long."""
    if not (source in keys and target in keys):
        return False
    return relation(keys[source], keys[target], ignore_expiry=True) == "same" and _lasts(keys[source], keys[target])


def _lasts(source: worlds.Stored, target: worlds.Stored) -> bool:
    """Tell whether a source lives at least as long as its target, to the millisecond."""
    moments = [(source.at, target.at), *((at, target.moments.get(name)) for name, at in source.moments.items())]
    return all(one is None or (other is not None and one >= other) for one, other in moments)
