"""One trial of a cut-over: an application that counts, a follow, words and faults, all drawn from a seed; judged."""

from __future__ import annotations

import random
import tempfile
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from chaos import counted, cutover_rules, worlds
from chaos.counted import Counting
from chaos.counting import NEW, OLD
from chaos.cutover_course import FLAG, SIDES, VALUE, Course, Document, Unfit, state_of
from chaos.cutover_faults import NOTHING, Fault, possible
from chaos.cutover_rules import STRAGGLED, STRAGGLER, Case, Leg
from chaos.cutover_sites import Place
from chaos.judging import Violation
from chaos.trials import PATIENCE
from tests.clusters import surviving, wait_until

PATHS = (("cutover",), ("cutover", "back"), ("cutover", "back", "cutover"))
KILLS = ("all", "all", "all", "held", "none")
FREEZES_MS = (100, 500, 500, 2000)
COUNTERS = 100
STEADY = 200
"""Keys that nobody writes."""
TRIES = 6
"""How often a word is sent at most, until it is obeyed."""
SECONDS_FOR_A_STRAGGLER = 10.0


@dataclass
class Trial:
    """What came of a seed."""

    seed: int
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    legs: int = 0
    attempts: int = 0
    writes: int = 0
    unknown: int = 0
    unheard: int = 0
    """Jobs of the sorted set that commands whose answer was lost may have taken."""
    freezes_ms: list[float] = field(default_factory=list)
    wait_ms: float = 0.0
    """The longest that a write took, its repetitions included."""
    stragglers: int = 0
    violations: list[Violation] = field(default_factory=list)
    story: str = ""


@dataclass(frozen=True)
class Drawn:
    """How luamigrate is called, and what is wished for."""

    words: tuple[str, ...]
    faults: tuple[Fault, ...]
    former: bytes | None
    kill: str
    freeze_ms: int
    straggles: bool
    pause: float
    arguments: tuple[str, ...]


def draw(chance: random.Random, place: Place) -> Drawn:
    """Draw a trial."""
    kill, freeze_ms = chance.choice(KILLS), chance.choice(FREEZES_MS)
    # Who may write the old names once more, or waits for jobs there, keeps them from being written back.
    words = chance.choice(PATHS if kill != "none" else PATHS[:1])
    arguments = ["follow", "--map", f"{OLD}:*={NEW}:*", "--flip", f"{FLAG}={VALUE}", "--freeze", str(freeze_ms)]
    arguments += ["--kill", kill, "--json", "--patience", PATIENCE, "--ignore-check", "blocked", "--settle", "0"]
    arguments += ["--max-lag-ms", str(chance.choice((0, 0.5, 0.5, 5))), *place.options]
    arguments += ["--prove"] if chance.random() < 0.25 else []
    faults = tuple(chance.choice((NOTHING, *possible(place))) for _ in words)
    return Drawn(
        words=words,
        faults=faults,
        former=chance.choice((None, b"old")),
        kill=kill,
        freeze_ms=freeze_ms,
        straggles=SIDES[words[-1]] == SIDES["cutover"] and chance.random() < 0.3,
        pause=chance.choice((0.001, 0.003, 0.01)),
        arguments=tuple(arguments),
    )


def make(place: Place, seed: int) -> Trial:
    """Make a trial at a place, which is whole again afterwards."""
    chance, began = random.Random(seed), time.monotonic()
    drawn = draw(chance, place)
    place.reset()
    _write(place, chance, drawn)
    trial = Trial(seed, [fault.name for fault in drawn.faults])
    settings = replace(place.application, flag=FLAG, value=VALUE, counters=COUNTERS, pause=drawn.pause)
    with tempfile.TemporaryDirectory(prefix="luamigrate-chaos-") as folder:
        application = Counting(settings)
        course = Course(place, Path(folder), drawn.arguments)
        try:
            case = _under_way(course, application, chance, drawn)
            trial.violations = cutover_rules.judge(case)
            _note(trial, case)
        except Unfit as problem:
            number = 7 if "not answered" in str(problem) else 6
            trial.violations = [(number, str(problem))]
        finally:
            application.kill()
            _see_to_its_end(course)
        if trial.violations:
            trial.story = "\n".join((*course.notes, *map(str, course.ended)))
    trial.seconds = time.monotonic() - began
    return trial


def _under_way(course: Course, application: Counting, chance: random.Random, drawn: Drawn) -> Case:
    place, loses = course.place, any(fault.loses for fault in drawn.faults)
    course.stand(written=True)
    legs = []
    for word, fault in zip(drawn.words, drawn.faults, strict=True):
        time.sleep(chance.uniform(0.1, 0.6))
        assert not application.has_failed, "the application has failed"
        legs.append(_obeyed(course, word, fault, chance))
    time.sleep(chance.uniform(0.1, 0.6))
    if drawn.straggles:
        _straggle(course)
    report = application.end()
    told = course.stand()
    with place.site.client() as client:
        found = worlds.observe([client], with_moments=False)
        counters = counted.find(client, NEW if told["side"] == SIDES["cutover"] else OLD, COUNTERS)
    finishes = told["side"] == SIDES["cutover"]
    answer = course.ask("finish") if finishes else None
    if finishes and not (answer or {}).get("done"):
        raise Unfit(f"finish was answered: {answer}")
    end = course.end() if finishes else course.stop()
    course.note(f"at the end: {end.document and end.document.get('followed')}")
    with place.site.client() as client:
        left = worlds.observe([client], with_moments=False)
    return Case(
        legs=legs,
        report=report,
        counters=counters,
        found=found,
        left=left,
        state=state_of(place),
        former=drawn.former,
        finished=finishes,
        ends=course.ended,
        stragglers=course.stragglers,
        hooks=course.hooks(),
        kill=drawn.kill,
        freeze_ms=drawn.freeze_ms,
        straggled=drawn.straggles,
        loses=loses,
    )


def _obeyed(course: Course, word: str, fault: Fault, chance: random.Random) -> Leg:
    """Wish for something under a fault, and again without, until it is done."""
    answers: list[Document | None] = []
    for number in range(TRIES):
        strikes = fault if number == 0 else NOTHING
        if word == "back":
            course.see_to_stragglers()
        strikes.prepare(course, chance)
        answers.append(course.wish(word, partial(strikes.meanwhile, course, chance)))
        course.place.heal()
        told, state = course.stand(written=True), state_of(course.place)
        if told.get("side") == SIDES[word]:
            return Leg(word, fault.name, told, state, tuple(answers), fault.kills, fault.cuts)
    raise Unfit(f"{word} was wished for {TRIES} times in vain: {answers}")


def _straggle(course: Course) -> None:
    """Write an old name, as somebody does who does not ask the flag."""
    with course.place.site.client() as client:
        surviving(lambda: client.hset(STRAGGLER, STRAGGLED, "1"))
    deadline = time.monotonic() + SECONDS_FOR_A_STRAGGLER
    while time.monotonic() < deadline and not (course.ask("status") or {}).get("stragglers"):
        time.sleep(0.02)


def _write(place: Place, chance: random.Random, drawn: Drawn) -> None:
    now = int(time.time() * 1000)
    keys = {b"job:steady:%d" % number: worlds.draw_stored(chance, now, with_moments=False) for number in range(STEADY)}
    keys = {name: stored for name, stored in keys.items() if not worlds.expires_meanwhile(stored)}
    keys[STRAGGLER.encode()] = worlds.Stored("hash", {b"a": b"1"})
    client = place.site.primary.client
    worlds.write(client, keys)
    if drawn.former is not None:
        client.set(FLAG, drawn.former)
    wait_until(lambda: place.site.has_all(client, b""))


def _note(trial: Trial, case: Case) -> None:
    told = [answer for leg in case.legs for answer in leg.answers if answer and answer.get("done")]
    trial.legs = len(case.legs)
    trial.attempts = sum(int(answer.get("attempts", 0)) for answer in told)
    trial.freezes_ms = [float(answer["freeze_ms"]) for answer in told if answer.get("freeze_ms") is not None]
    trial.writes = sum(case.report.wrote.values())
    trial.unknown = sum(case.report.unknown.values())
    trial.unheard = 0 if case.loses else counted.unheard(case.report, case.counters)
    trial.wait_ms = max(case.report.waits_ms, default=0.0)
    trial.stragglers = len(case.stragglers)


def _see_to_its_end(course: Course) -> None:
    course.place.heal()
    if course.tool.is_under_way:
        course.stop()
