"""One trial of a follow: writers of everything at full speed, faults, an end of the writing, and the judgement."""

from __future__ import annotations

import random
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from chaos import faults, in_step, sites, worlds
from chaos.faults import LEASES, Fault
from chaos.in_step import Followed, Sides
from chaos.processes import LONGEST, Ended, Tool
from chaos.sites import Site
from chaos.trials import PATIENCE, Trial
from chaos.worlds import Keys
from tests.clusters import surviving, wait_until
from tests.following import Writer

TOPOLOGIES = ("standalone", "sentinel")
JOBS = Sides(b"job:", b"step:")
INTO_EVERYTHING = Sides(b"job:", b"")
"""Beside names that would be targets, and have no source."""
UNRELATED = 20
WRITERS = 2
FOLLOWS = "in step"
"""It says that it is, or is not, once it has looked at both sides; before that a server that is replaced ends it."""
LEFT_MS = 1000
"""The lease of a process that has died ends so soon, that a trial be short."""
SOON_MS = 5000
"""What lives longer is still there when it is judged."""
SECONDS_TO_CATCH_UP = 45.0
SECONDS_BETWEEN = 0.3
"""Between two questions how it stands: more than between two of its figures."""
DOUBTFUL = ("extra", "foreign")
"""Words for targets that an operator has to see to."""


@dataclass(frozen=True)
class _Place:
    """What a writer needs to know of where it writes."""

    another_client: Callable[[], Any]
    has_field_expiries: bool
    mode: str = "standalone"


@dataclass
class Course:
    """The follow that is under way, and what has ended so far."""

    tool: Tool
    follows: list[Ended] = field(default_factory=list)
    refused: list[Ended] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def end(self) -> None:
        """Wait until it has ended, and take what came of it and of what was started beside."""
        own, *others = self.tool.wait()
        self.follows.append(own)
        self.refused += others
        self.complaints += self.tool.complaints


def make(site: Site, seed: int) -> Trial:
    """Make a trial on a site, which is whole again afterwards."""
    chance, began = random.Random(seed), time.monotonic()
    sides = chance.choice((JOBS, JOBS, INTO_EVERYTHING))
    chosen = chance.sample(faults.possible_in_a_follow(site), chance.choice((1, 2, 2, 3)))
    arguments, max_pause = _draw_options(chance, sides)
    sites.reset(site)
    unrelated = _write_unrelated(site, chance)
    trial = Trial(seed, [f"in follow: {fault.name}" for fault in chosen])
    with tempfile.TemporaryDirectory(prefix="luamigrate-chaos-") as folder:
        with ExitStack() as stack:
            place = _Place(site.client, site.has_moments)
            writers = [stack.enter_context(Writer(cast("Any", place), seed + number)) for number in range(WRITERS)]
            course = _under_faults(site, chance, chosen, Path(folder), arguments)
            assert all(writer.is_alive() for writer in writers), "a writer has failed"
        site.heal()
        unrelated = {} if any(fault.empties for fault in chosen) else unrelated
        wanted = f"not in step: {len(unrelated)} extra" if sides is INTO_EVERYTHING and unrelated else "in step"
        state = _catch_up(site, course.tool, sides, unrelated, wanted)
        course.tool.send(signal.SIGTERM)
        course.end()
        case = Followed(
            site=site,
            sides=sides,
            faults=chosen,
            unrelated=unrelated,
            wanted=wanted,
            state=state,
            follows=course.follows,
            refused=course.refused,
            complaints=course.complaints,
            max_pause=max_pause,
            found=worlds.observe((server.client for server in site.servers()), with_moments=site.has_moments),
        )
        trial.violations = in_step.judge(case)
    trial.keys, trial.writes = len(case.found), sum(writer.writes for writer in writers)
    trial.seconds = time.monotonic() - began
    trial.codes.update(f"{run.arguments[0]} {run.code}" for run in (*case.follows, *case.refused))
    if trial.violations:
        trial.story = "\n".join(map(str, (*case.refused, *case.follows)))
    return trial


def _draw_options(chance: random.Random, sides: Sides) -> tuple[tuple[str, ...], float]:
    """Draw how luamigrate is called; return its longest pause too."""
    max_pause = chance.choice((1.0, 5.0, 20.0))
    arguments = ["follow", "--map", sides.rule, "--json", "--patience", PATIENCE, "--max-pause", str(max_pause)]
    arguments += ["--batch-size", str(chance.choice((3, 100, 100, 1000)))]
    arguments += ["--max-lag-ms", str(chance.choice((0, 0.5, 0.5, 5)))]
    arguments += ["--settle", str(chance.choice((0, 0.1, 0.5)))]
    if sides is INTO_EVERYTHING:
        arguments += ["--except", "job:job:*", "--ignore-check", "targets"]
    return tuple(arguments), max_pause


def _write_unrelated(site: Site, chance: random.Random) -> Keys:
    now = int(time.time() * 1000)
    drawn = {
        b"other:%d" % number: worlds.draw_stored(chance, now, with_moments=site.has_moments)
        for number in range(UNRELATED)
    }
    keys = {name: stored for name, stored in drawn.items() if not worlds.expires_meanwhile(stored)}
    for server in site.servers():
        worlds.write(server.client, keys)
        wait_until(partial(sites.replicated, server.client))
    return keys


def _under_faults(
    site: Site, chance: random.Random, chosen: list[Fault], folder: Path, arguments: tuple[str, ...]
) -> Course:
    """Follow, and follow again where it was killed."""
    course = Course(Tool(folder, site.url(), arguments, "follow"))
    course.tool.wait_until_begun(FOLLOWS, LONGEST)
    for fault in chosen:
        time.sleep(chance.uniform(0, 1.0))
        fault.strike(site, chance, course.tool)
        if fault.kills:
            course.end()
            surviving(partial(_end_leases, site))
            course.tool = Tool(folder, site.url(), arguments, f"follow-{len(course.follows)}")
            course.tool.wait_until_begun(FOLLOWS, LONGEST)
    time.sleep(chance.uniform(0, 0.5))
    return course


def _end_leases(site: Site) -> None:
    for server in site.servers():
        for name in server.client.scan_iter(LEASES, count=1000):
            server.client.pexpire(name, LEFT_MS)


def _catch_up(site: Site, tool: Tool, sides: Sides, unrelated: Keys, wanted: str) -> str:
    """Wait until it says that it stands as it should, seeing to what is doubtful; return what it said at last."""
    wait_until(partial(_nothing_is_about_to_expire, site))
    deadline, state = time.monotonic() + SECONDS_TO_CATCH_UP, ""
    while tool.is_under_way and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN)
        state = tool.ask().partition(";")[0]
        if state == wanted:
            break
        if any(word in state for word in DOUBTFUL) and "to mirror" not in state:
            _see_to(site, tool, sides, unrelated)
    return state


def _see_to(site: Site, tool: Tool, sides: Sides, unrelated: Keys) -> None:
    """Delete the targets that it has named, as an operator does who knows that only the sources are right."""
    for source, word in tool.words.items():
        target = sides.target_of(source.encode())
        if word.split()[0] in DOUBTFUL and target not in unrelated:
            surviving(partial(site.client().unlink, target))


def _nothing_is_about_to_expire(site: Site) -> bool:
    """Tell whether what is there will be there for some seconds."""
    for server in site.servers():
        pipeline = server.client.pipeline(transaction=False)
        for name in server.client.scan_iter(count=1000):
            pipeline.pttl(name)
        if any(0 <= left < SOON_MS for left in pipeline.execute()):
            return False
    return True
