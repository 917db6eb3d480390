"""What goes wrong in a cut-over: at one of the packets of its freeze, or some milliseconds after it was wished for."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis

from chaos.cutover_course import Course
from chaos.gate import FREEZING
from chaos.sites import Guarded
from tests.clusters import surviving, wait_until

MOST_PACKETS = 14
"""Among the first of a freeze: a cut-over beside an application mostly has no more."""
SOON = 0.08
"""Seconds in which most cut-overs are over."""
LONGER = (1.1, 2.5)
"""Of a freeze: for so long a process stops that is to wake up too late."""

Strike = Callable[[Course, random.Random], None]


class Trigger:
    """Acts at one of the packets of a freeze, once."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.seen = 0
        self._number, self._act = number, act
        self._lock = threading.Lock()

    @property
    def has_struck(self) -> bool:
        """Whether there were so many packets."""
        return self.seen >= self._number

    def __call__(self, content: bytes) -> None:
        """Count a packet."""
        with self._lock:
            if not self.seen and FREEZING not in content:
                return
            self.seen += 1
            strikes = self.seen == self._number
        if strikes:
            self._act()


def nothing(_course: Course, _chance: random.Random) -> None:
    """Let it be."""


@dataclass(frozen=True)
class Fault:
    """A fault, and what it may excuse."""

    name: str
    prepare: Strike = nothing
    """Before the word is sent."""
    meanwhile: Strike = nothing
    """While it is carried out."""
    kills: bool = False
    """Whether luamigrate ends of it."""
    cuts: bool = False
    """Whether it loses connections, and so cannot know for a moment who has written what."""
    loses: bool = False
    """Whether what the server has acknowledged may be lost with it."""
    needs_gate: bool = False
    needs_sentinel: bool = False


def _at_a_packet(act: Callable[[Course, random.Random], Callable[[], None]]) -> Strike:
    """Have something done before one of the packets has passed, or after."""

    def prepare(course: Course, chance: random.Random) -> None:
        gate = course.place.gate
        assert gate
        trigger = Trigger(chance.randint(1, MOST_PACKETS), act(course, chance))
        if chance.random() < 0.5:
            gate.watch = trigger
        else:
            gate.after = trigger

    return prepare


def _kill(course: Course, chance: random.Random) -> Callable[[], None]:
    tool, cuts = course.tool, chance.random() < 0.5

    def act() -> None:
        course.note("kill -9")
        tool.send(signal.SIGKILL)
        if cuts:
            raise ConnectionAbortedError  # as if the packet had not been sent

    return act


def _stop_for_too_long(course: Course, chance: random.Random) -> Callable[[], None]:
    tool, seconds = course.tool, freeze_of(course) * chance.uniform(*LONGER)

    def act() -> None:
        course.note(f"SIGSTOP for {seconds:.2f} s")
        tool.send(signal.SIGSTOP)
        threading.Timer(seconds, partial(tool.send, signal.SIGCONT)).start()

    return act


def _cut(course: Course, _chance: random.Random) -> Callable[[], None]:
    def act() -> None:
        course.note("cut")
        raise ConnectionAbortedError

    return act


def _split(course: Course, chance: random.Random) -> None:
    assert course.place.gate
    course.place.gate.splits = chance.choice((0.3, 0.6, 1.0))


def freeze_of(course: Course) -> float:
    """Return the seconds for which writes may be held."""
    return int(course.arguments[course.arguments.index("--freeze") + 1]) / 1000


def _kill_soon(course: Course, chance: random.Random) -> None:
    time.sleep(chance.uniform(0, SOON))
    course.note("kill -9")
    course.tool.send(signal.SIGKILL)


def _end_soon(course: Course, chance: random.Random) -> None:
    time.sleep(chance.uniform(0, SOON))
    course.note("SIGTERM")
    course.tool.send(signal.SIGTERM)


def _hang_soon(course: Course, chance: random.Random) -> None:
    time.sleep(chance.uniform(0, SOON))
    course.note("SIGSTOP")
    course.tool.send(signal.SIGSTOP)
    time.sleep(freeze_of(course) * chance.uniform(*LONGER))
    course.tool.send(signal.SIGCONT)


def _kill_in_hook(event: str) -> Strike:
    def prepare(course: Course, _chance: random.Random) -> None:
        (course.folder / f"kill-{event}").touch()

    return prepare


def _pause_by_others(course: Course, chance: random.Random) -> None:
    time.sleep(chance.choice((0.0, chance.uniform(0, SOON))))
    milliseconds = chance.randint(50, 900)
    course.note(f"CLIENT PAUSE {milliseconds} by somebody else")
    course.place.site.primary.client.execute_command("CLIENT", "PAUSE", milliseconds, "WRITE")


def _pause_first(course: Course, chance: random.Random) -> None:
    milliseconds = chance.randint(200, 900)
    course.note(f"CLIENT PAUSE {milliseconds} by somebody else, before")
    course.place.site.primary.client.execute_command("CLIENT", "PAUSE", milliseconds, "WRITE")


def _kill_clients(kind: str) -> Strike:
    def strike(course: Course, chance: random.Random) -> None:
        for _ in range(chance.choice((1, 3))):
            time.sleep(chance.uniform(0, SOON))
            course.note(f"CLIENT KILL TYPE {kind}")
            with suppress(redis.RedisError):
                course.place.site.primary.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    return strike


def _wish_twice(course: Course, chance: random.Random) -> None:
    time.sleep(chance.uniform(0, SOON))
    told = course.ask(chance.choice(("cutover", "back", "finish")), SECONDS_TO_REFUSE)
    course.note(f"a second wish: {told and told.get('error')}")


def _kill_server(course: Course, chance: random.Random) -> None:
    time.sleep(chance.uniform(0, SOON))
    site = course.place.site
    course.note("kill -9 of the server")
    site.primary.kill()
    time.sleep(chance.uniform(0.1, 0.6))
    site.start_again(site.primary)
    wait_until(lambda: _is_up(site.primary.client))


def _fail_over(course: Course, chance: random.Random) -> None:
    time.sleep(chance.uniform(0, SOON))
    course.note("SENTINEL FAILOVER")
    _guarded(course).fail_over()


def _kill_until_replaced(course: Course, chance: random.Random) -> None:
    time.sleep(chance.uniform(0, SOON))
    site = _guarded(course)
    former = site.primary
    course.note("kill -9 until the Sentinel acts")
    former.kill()
    site.await_other_than(former)
    site.start_again(former)


def _guarded(course: Course) -> Guarded:
    site = course.place.site
    assert isinstance(site, Guarded)
    return site


def _is_up(client: Any) -> bool:
    return bool(surviving(client.ping))


SECONDS_TO_REFUSE = 60.0
NOTHING = Fault("nothing")
FAULTS = (
    NOTHING,
    Fault("kill -9 at a packet", _at_a_packet(_kill), kills=True, needs_gate=True),
    Fault("kill -9 at a moment", meanwhile=_kill_soon, kills=True),
    Fault("kill -9 in --on-cutover", _kill_in_hook("cutover"), kills=True),
    Fault("kill -9 in --on-flip", _kill_in_hook("flip"), kills=True),
    Fault("SIGTERM", meanwhile=_end_soon),
    Fault("SIGSTOP at a packet", _at_a_packet(_stop_for_too_long), needs_gate=True),
    Fault("SIGSTOP at a moment", meanwhile=_hang_soon),
    Fault("cut at a packet", _at_a_packet(_cut), cuts=True, needs_gate=True),
    Fault("packets split", _split, needs_gate=True),
    Fault("CLIENT PAUSE by others", meanwhile=_pause_by_others),
    Fault("CLIENT PAUSE by others before", _pause_first),
    Fault("CLIENT KILL", meanwhile=_kill_clients("normal"), cuts=True),
    Fault("CLIENT KILL of the listener", meanwhile=_kill_clients("pubsub"), cuts=True),
    Fault("a second wish", meanwhile=_wish_twice),
    Fault("kill -9 of the server", meanwhile=_kill_server, loses=True, needs_gate=True),
    Fault("SENTINEL FAILOVER", meanwhile=_fail_over, loses=True, needs_sentinel=True),
    Fault("kill -9 until the Sentinel acts", meanwhile=_kill_until_replaced, loses=True, needs_sentinel=True),
)


def possible(place: Any) -> list[Fault]:
    """Return the faults that can strike there."""
    guarded = isinstance(place.site, Guarded)
    return [
        fault
        for fault in FAULTS
        if not (fault.needs_gate and not place.gate) and not (fault.needs_sentinel and not guarded)
    ]
