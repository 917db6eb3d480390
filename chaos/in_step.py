"""The judge of a follow: what it calls in step is equal, and nothing else was touched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chaos.faults import Fault
from chaos.judging import NOISE_MS, TELLS, Violation, long_scripts, screens
from chaos.processes import Ended
from chaos.sites import Site
from chaos.worlds import Keys
from luamigrate.model.rules import RESERVED

RECORD = RESERVED + b"followed:"
RECORD_MS = 7 * 86_400_000
LEASE_MS = 30_000
REFUSED = 4


@dataclass(frozen=True)
class Sides:
    """How names of sources and of their targets begin, computed without luamigrate."""

    source: bytes
    target: bytes

    @property
    def rule(self) -> str:
        """As the command line takes it."""
        return f"{self.source.decode()}*={self.target.decode()}*"

    def target_of(self, source: bytes) -> bytes:
        """Name the target of a source."""
        return self.target + source.removeprefix(self.source)

    def is_target(self, name: bytes) -> bool:
        """Tell whether a name would be the target of some source."""
        return name.startswith(self.target) and not name.startswith((self.source, RESERVED))


@dataclass(frozen=True)
class Followed:
    """What happened, and what there is now that nobody writes any more and no follow is under way."""

    site: Site
    sides: Sides
    faults: list[Fault]
    unrelated: Keys
    """That were there before, which no fault has deleted; not targets, though some may be named as if they were."""
    wanted: str
    """How the follow should have said at the end that it stands."""
    state: str
    """How it said so."""
    follows: list[Ended]
    """In turn: one began where the one before it was killed."""
    refused: list[Ended]
    """What was started beside."""
    complaints: list[str]
    max_pause: float
    found: Keys

    @property
    def may_be_doubtful(self) -> bool:
        """Whether a follow may find targets of which it cannot know whose they are, and has to name them."""
        return any(fault.kills or fault.loses for fault in self.faults)


def judge(case: Followed) -> list[Violation]:
    """Return what breaks a rule."""
    rules = {2: _unrelated, 5: _left_behind, 6: _claims, 7: _pauses, 8: _screens, 9: _pairs, 10: _kept}
    return [(number, text) for number, rule in rules.items() for count, text in enumerate(rule(case)) if count < TELLS]


def _unrelated(case: Followed) -> Iterator[str]:
    for name, stored in case.unrelated.items():
        there = case.found.get(name)
        if there != stored:
            yield f"{name!r}, which is not of the plan, was {stored} and is {there}"


def _left_behind(case: Followed) -> Iterator[str]:
    for server in case.site.servers():
        client: Any = server.client
        for name in client.scan_iter(RESERVED + b"*"):
            left, longest = client.pttl(name), RECORD_MS if name.startswith(RECORD) else LEASE_MS
            # Who loses its connection as it ends cannot give up its lease.
            if not (0 < left <= longest and (case.faults or name.startswith(RECORD))):
                yield f"{name!r} is left, for {left} ms"


def _claims(case: Followed) -> Iterator[str]:
    for run in case.refused:
        if run.code != REFUSED:
            yield f"{run.arguments[0]} was not refused beside a follow: exit code {run.code}"
    *killed, last = case.follows
    for run in killed:
        if run.code is None or run.code >= 0:
            yield f"it ended before it was killed: exit code {run.code}"
    followed = _figures(last)
    if not followed:
        yield f"it did not follow: exit code {last.code}"
        return
    troubles = followed["foreign_seen"] + followed["extra"] + followed["failed"]
    wanted = 3 if troubles or not followed["was_in_step"] else 0
    if not last.code == last.document["exit_code"] == wanted:
        yield f"exit code {last.code}, in the document {last.document['exit_code']}, not {wanted}: {followed}"
    if followed["foreign_seen"] and not case.may_be_doubtful:
        words = {source: word for source, word in last.report.items() if word.startswith("foreign")}
        yield f"foreign, though nobody else has written targets: {words}"


def _figures(run: Ended) -> Any:
    return run.document and run.document.get("followed")


def _pauses(case: Followed) -> Iterator[str]:
    if not any(fault.blocks for fault in case.faults):
        yield from long_scripts(case.site, case.max_pause + NOISE_MS)


def _screens(case: Followed) -> Iterator[str]:
    return screens((*case.follows, *case.refused))


def _pairs(case: Followed) -> Iterator[str]:
    if case.state != case.wanted:
        yield f"it says {case.state!r}, not {case.wanted!r}"
        return
    followed = _figures(case.follows[-1])
    if followed and followed["in_step"] != (case.wanted == "in step"):
        yield f"at the end it stood otherwise: {followed}"
    sources = {name: stored for name, stored in case.found.items() if name.startswith(case.sides.source)}
    for name, stored in sources.items():
        there = case.found.get(case.sides.target_of(name))
        # Expiries too, to the millisecond.
        if there != stored:
            yield f"{name!r} is {stored}, and its target is {there}"
    targets = {case.sides.target_of(name) for name in sources}
    for name in case.found.keys() - targets - case.unrelated.keys():
        if case.sides.is_target(name):
            yield f"{name!r} is there without its source"


def _kept(case: Followed) -> Iterator[str]:
    yield from case.complaints
