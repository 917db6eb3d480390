"""The judge of a cut-over: the application's counts, the server's flag and record, and what luamigrate says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from chaos import counted
from chaos.counted import DOUBLED, LOST, Found
from chaos.counting import NEW, OLD, Report
from chaos.cutover_course import FLAG, SIDES, VALUE, Document, State
from chaos.judging import TELLS, Violation, screens
from chaos.processes import Ended
from chaos.worlds import Keys
from luamigrate.model.rules import RESERVED

RULES = {
    LOST: "no write is lost",
    DOUBLED: "no write is doubled",
    3: "flag, record and side agree",
    4: "in step means equal",
    5: "nothing left behind",
    6: "answers and exit codes are true, and it gets done",
    7: "no traceback, no hang",
    8: "writes are held no longer than allowed",
    9: "who writes a name that was left is named, and his value kept",
}
LONG_MS = 500.0
"""A freeze that is long enough on any machine."""
NOISE_MS = 40.0
"""That a busy machine may add to a freeze: the server's pause itself ends in time."""
SAID_FOR_RECORD = RESERVED + b"followed:"
STRAGGLER, STRAGGLED = "job:straggler", "by somebody"
"""A name that somebody writes after it was left, and the field."""


@dataclass(frozen=True)
class Leg:
    """One word that was obeyed in the end."""

    word: str
    fault: str
    told: Document
    """How the follow stood when it was done."""
    state: State
    """What the server had then."""
    answers: tuple[Document | None, ...]
    """What was answered each time that the word was sent."""
    kills: bool
    """Whether it was killed in the middle."""
    cuts: bool
    """Whether its connections were lost, so that it may not know who has written what."""


@dataclass(frozen=True)
class Case:
    """What happened, and what there is now that nobody writes any more."""

    legs: list[Leg]
    report: Report
    counters: Found
    """Under the names that the application has written last."""
    found: Keys
    """What there was as the follow was in step for the last time."""
    left: Keys
    """What there was when it had ended."""
    state: State
    """What the server had of the cut-over then."""
    former: bytes | None
    """What the flag had at first."""
    finished: bool
    """Whether the last word was `finish`."""
    ends: list[Ended]
    """All follows in turn; the last one ended in good order."""
    stragglers: set[str]
    """The names, the old ones, that were told as such."""
    hooks: list[str]
    kill: str
    freeze_ms: float
    straggled: bool
    """Whether somebody has written an old name after the flip."""
    loses: bool
    """Whether a server may have lost what it had acknowledged."""

    @property
    def side(self) -> str:
        """The side that the application should write now."""
        return SIDES[self.legs[-1].word] if self.legs else SIDES["back"]


def judge(case: Case) -> list[Violation]:
    """Return what breaks a rule."""
    rules = {3: _agreement, 4: _pairs, 5: _left_behind, 6: _claims, 7: _screens, 8: _holds, 9: _stragglers}
    # Who is to close no connections, and is killed before he can tell who wrote, leaves nobody who knows.
    unknown = case.loses or (case.kill != "all" and any(leg.kills for leg in case.legs))
    counts = [] if unknown else list(counted.judge(case.report, case.counters, _excused(case)))
    return counts + [
        (number, text) for number, rule in rules.items() for count, text in enumerate(rule(case)) if count < TELLS
    ]


def _excused(case: Case) -> set[str]:
    """Return the names of stragglers that there may be: where nobody is killed, or nobody was left to kill them."""
    allowed = case.kill != "all" or any(leg.kills for leg in case.legs)
    return case.stragglers if allowed else {STRAGGLER}


def _agreement(case: Case) -> Iterator[str]:
    for leg in case.legs:
        wanted = SIDES[leg.word]
        if not leg.told.get("side") == leg.state.side == wanted:
            yield f"after {leg.word} it says {leg.told.get('side')}, and the server has {leg.state}"
        if wanted == SIDES["back"] and leg.state.flag != case.former:
            yield f"after {leg.word} the flag has {leg.state.flag!r}, not {case.former!r}"
    if case.finished and (case.state.flag, case.state.records) != (VALUE.encode(), {}):
        yield f"after finish the server has {case.state}"
    if not case.finished and case.state.side != case.side:
        yield f"at the end the server has {case.state}, and the application writes {case.side}"


def _pairs(case: Case) -> Iterator[str]:
    skipped = case.stragglers | {STRAGGLER}
    sides = [
        {
            name.partition(b":")[2]: stored
            for name, stored in case.found.items()
            if name.startswith(side.encode() + b":")
        }
        for side in (OLD, NEW)
    ]
    old, new = sides
    for rest in sorted(old.keys() | new.keys()):
        if f"{OLD}:{rest.decode()}" not in skipped and old.get(rest) != new.get(rest):
            yield f"{rest!r} is {old.get(rest)} and {new.get(rest)}"


def _left_behind(case: Case) -> Iterator[str]:
    for name in case.left:
        if name.startswith(RESERVED) and not name.startswith(SAID_FOR_RECORD):
            yield f"{name!r} is left"
    former = case.found.keys() | {FLAG.encode()}
    yield from (f"{name!r} is new" for name in case.left.keys() - former if not name.startswith(RESERVED))


def _claims(case: Case) -> Iterator[str]:
    for leg in case.legs:
        for answer in leg.answers:
            if answer is not None and not (answer.get("done") or answer.get("error")):
                yield f"{leg.word} was answered: {answer}"
        if leg.fault == "nothing" and case.freeze_ms >= LONG_MS and not (leg.answers[0] or {}).get("done"):
            yield f"nothing hindered it, and yet {leg.word} was answered: {leg.answers[0]}"
    flips = sum(bool(answer and answer.get("done")) for leg in case.legs for answer in leg.answers)
    if case.hooks.count("flip") < flips or case.hooks.count("cutover") < flips:
        yield f"{flips} flips, and the hooks were told of {case.hooks}"
    last, followed = case.ends[-1], _figures(case)
    if not followed:
        yield f"it ended without its figures: exit code {last.code}"
        return
    troubles = any(followed.get(name) for name in ("foreign_seen", "extra", "failed", "stragglers"))
    if last.code != (3 if troubles or not followed["was_in_step"] else 0):
        yield f"exit code {last.code}: {followed}"


def _figures(case: Case) -> Document:
    return (case.ends[-1].document or {}).get("followed") or {}


def _screens(case: Case) -> Iterator[str]:
    return screens(case.ends)


def _holds(case: Case) -> Iterator[str]:
    for leg in case.legs:
        held = leg.told.get("freeze_ms")
        if held is not None and held > case.freeze_ms + NOISE_MS:
            yield f"{leg.word} held writes for {held} ms, of {case.freeze_ms}"


def _stragglers(case: Case) -> Iterator[str]:
    if case.straggled:
        if STRAGGLER not in case.stragglers:
            yield f"{STRAGGLER} was written after it was left, and only these were named: {case.stragglers}"
        if not _figures(case).get("stragglers"):
            yield f"a straggler was there, and not in the figures: {_figures(case)}"
        stored = case.left.get(STRAGGLER.encode())
        if stored is None or stored.content.get(STRAGGLED.encode()) != b"1":
            yield f"{STRAGGLER} has lost what was written to it: {stored}"
    elif (
        case.kill == "all"
        and not case.loses
        and not any(leg.kills or leg.cuts for leg in case.legs)
        and case.stragglers
    ):
        yield f"all connections were closed, and yet there are stragglers: {sorted(case.stragglers)}"
