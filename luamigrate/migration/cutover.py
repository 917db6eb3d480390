"""Cutting over: wishes are taken, attempts made, and what comes after a flip is seen to.

It goes on in the loop of a follow, a step each turn; only while writes are held nothing else is done.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from luamigrate.migration.flipping import SIDES, Denied, Flipper, NotNow
from luamigrate.migration.hooks import Event, HookRunner
from luamigrate.migration.lease import Lease
from luamigrate.migration.sides import CutoverState, Found
from luamigrate.model.control import Control
from luamigrate.model.cutover import CutoverOptions, CutoverProgress, Side, Wish
from luamigrate.model.errors import Error, Refused, Stopped, printable
from luamigrate.model.status import Command, KeyOutcome, Word
from luamigrate.scripts import cutover_calls
from luamigrate.scripts.cutover_calls import FlipReply

SECONDS_TO_GET_READY = 30.0
"""For which one attempt waits until nothing speaks against it."""
SECONDS_BETWEEN_ATTEMPTS = 0.5
MOST_STEPS = 50
"""As many are told at the end."""

Steps = Iterator[None]
"""A cut-over that goes on: it yields where it has to wait."""


class Loop(Protocol):
    """The follow that cuts over."""

    def what_is_missing(self) -> str:
        """Say what speaks against holding writes now; empty where nothing does."""

    def prove(self) -> None:
        """Begin to compare all pairs once more."""

    @property
    def changes(self) -> int:
        """How many changes were told."""

    @property
    def unequal(self) -> int | None:
        """How many pairs that comparison found unequal though nobody told; None while it goes on."""


@dataclass
class Cutover:
    """Carries out what is wished of one follow."""

    options: CutoverOptions
    control: Control
    loop: Loop
    lease: Lease
    state: CutoverState
    flipper: Flipper
    is_finished: bool = field(init=False, default=False)
    """Whether the follow is to end, because the mirroring back was finished."""
    is_freezing: bool = field(init=False, default=False)
    """Whether writes are about to be held."""
    _steps: deque[str] = field(init=False, default_factory=lambda: deque(maxlen=MOST_STEPS))
    _attempts: int = field(init=False, default=0)
    _freeze_ms: float | None = field(init=False, default=None)
    _waiting_for: str = field(init=False, default="")
    _work: Steps | None = field(init=False, default=None)
    _wish: Wish | None = field(init=False, default=None)
    _problem: Error | None = field(init=False, default=None)
    """What ended an attempt, and is to be mended by the follow."""
    _ended: tuple[Wish, str] | None = field(init=False, default=None)
    """The wish that has come to its end, and why it was not granted: to be told once the figures have been."""
    _watched_since: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.hooks = HookRunner(self.options.hooks)

    @property
    def side(self) -> Side:
        """The names that the application writes."""
        return self.flipper.keeper.direction.side

    def note(self, text: str) -> None:
        """Tell a step."""
        self._steps.append(text)

    @property
    def progress(self) -> CutoverProgress:
        """How far it is."""
        return CutoverProgress(
            attempts=self._attempts,
            freeze_ms=self._freeze_ms,
            steps=tuple(self._steps),
            waiting_for=self._waiting_for,
        )

    def advance(self) -> None:
        """Take a step. Raises what has ended an attempt and is for the follow to mend; Stopped where it is not."""
        self._tell_end()
        if failure := self.hooks.tend():
            self.note(failure)
        if not self._work and (wish := self.control.wish() or self._own_wish()):
            self._wish, self._work = wish, self._carried_out(wish)
        if self._work:
            self._step()
        problem, self._problem = self._problem, None
        if problem:
            raise problem

    def _step(self) -> None:
        why = ""
        try:
            if next(self._work or iter(()), self) is None:
                return
        except Denied as reason:
            why = str(reason)
            self.note(f"{self._wish}: {why}")
        wish, self._work, self._wish, self._waiting_for = self._wish, None, None, ""
        self.is_freezing = False
        if wish and wish is self.control.wish():
            self._ended = wish, why
        elif why:
            raise Stopped(f"cut-over: {why}")

    def mended(self) -> None:
        """Take that the follow has connected again. Raises Stopped where flag and record are not as they were."""
        try:
            found = self.state.find()
        except Refused as problem:
            raise Stopped(str(problem)) from None
        if found.side is self.side:
            self.flipper.is_unsure = False
            return
        if not self.flipper.is_unsure:
            raise Stopped("cut-over: flag and record have changed while nobody listened: see who has written them")
        # The answer to our own flip was lost.
        self.flipper.is_unsure = False
        self.flipper.keeper.turn(found.side)
        self.note("the flip was done, though the connection was lost before its answer came")

    def stragglers(self, outcomes: list[KeyOutcome]) -> None:
        """Have the hook told of stragglers among some news."""
        names = [outcome.source for outcome in outcomes if outcome.word is Word.STRAGGLER]
        if names:
            self.hooks.straggler(names, self._facts())

    def close(self) -> None:
        """End what is under way, and tell whoever waits for it."""
        self._tell_end()
        wish = self.control.wish()
        if wish:
            self.control.granted(wish, "the follow has ended")
        if failure := self.hooks.close():
            self.note(failure)

    @property
    def has_news(self) -> bool:
        """Whether figures are to be told before anything else: writes are about to be held, or a wish has ended."""
        return self.is_freezing or self._ended is not None

    def _tell_end(self) -> None:
        if self._ended:
            wish_and_why, self._ended = self._ended, None
            self.control.granted(*wish_and_why)

    def _own_wish(self) -> Wish | None:
        """Return what comes next where somebody wants all of it done at once."""
        if not self.options.at_once or self.is_finished:
            return None
        if self.side is Side.SOURCES:
            return None if self.loop.what_is_missing() else Wish.CUTOVER
        now = time.monotonic()
        self._watched_since = self._watched_since or now
        return Wish.FINISH if now - self._watched_since >= self.options.watch_seconds else None

    def _carried_out(self, wish: Wish) -> Steps:
        is_flipped = self.side is Side.TARGETS
        if wish is Wish.CUTOVER and is_flipped:
            raise Denied("the application writes the new names already")
        if wish is not Wish.CUTOVER and not is_flipped:
            raise Denied("nothing has been cut over")
        if wish is Wish.FINISH:
            self._finish()
            return
        self._attempts = 0
        self.flipper.prepare()
        yield from self._hooked()
        yield from self._attempted(wish)
        facts = self._facts() | {"freeze_ms": f"{self._freeze_ms or 0:.1f}", "attempts": str(self._attempts)}
        self.hooks.begin(Event.FLIP, facts)

    def _attempted(self, wish: Wish) -> Steps:
        why = ""
        while self._attempts < self.options.attempts:
            self._attempts += 1
            try:
                yield from self._attempt(wish)
            except NotNow as reason:
                why = str(reason)
                self.is_freezing = False
                self.note(f"attempt {self._attempts} of {self.options.attempts}: {why}; nothing was flipped")
            else:
                return
            yield from _rested(SECONDS_BETWEEN_ATTEMPTS)
        self.state.withdraw()
        raise Denied(f"nothing was flipped in {self._attempts} attempts; the last one: {why}")

    def _attempt(self, wish: Wish) -> Steps:
        """Wait until nothing speaks against it, and flip. Raises NotNow where nothing was flipped."""
        yield from self._ready()
        if self.options.prove:
            yield from self._proven()
            yield from self._ready()
        if not self.options.freezes:
            yield from self._quiet()
        try:
            found = self.state.find()
        except Refused as problem:
            raise Denied(str(problem).removeprefix("cut-over: ")) from None
        if found.side is not self.side:
            raise Denied("flag and record are not as they were: see who has written them")
        # The lease must not expire, nor be renewed, while writes are held.
        if not self.lease.renew_if_due(""):
            raise NotNow("the lease was lost")
        self.is_freezing = self.options.freezes
        yield  # so that it is told before nothing else is done for a while
        self._flip(wish, found)
        self.is_freezing = False
        self._after_flip(wish)

    def _flip(self, wish: Wish, found: Found) -> None:
        try:
            if self.options.freezes:
                self._freeze_ms = self.flipper.in_freeze(wish, found)
            else:
                self.flipper.in_quiet(wish, found)
        except (Denied, NotNow):
            raise
        except Error as problem:
            self._problem = problem
            raise NotNow(str(problem)) from None

    def _after_flip(self, wish: Wish) -> None:
        names = "new" if SIDES[wish] is Side.TARGETS else "old"
        flag = printable(self.state.flag)
        self.note(f"flipped: the flag '{flag}' says that the {names} names are the ones to write")
        self._watched_since = time.monotonic()
        self.lease.side = self.side
        self.lease.renew("")
        if wish is Wish.BACK:
            self.state.withdraw()

    def _finish(self) -> None:
        if standing := self.flipper.keeper.standing.foreign:
            self.note(f"{len(standing):,} old names are left as stragglers wrote them")
        reply = cutover_calls.finish(
            self.state.deployment.node_for(self.state.flag),
            self.state.flag,
            self.state.record,
            value=self.options.value,
        )
        if reply is not FlipReply.FLIPPED:
            raise Denied(f"somebody else has written the flag '{printable(self.state.flag)}' or its record: see who")
        self.state.withdraw()
        self.is_finished = True
        self.note("finished: the old names are not written any more")

    def _ready(self) -> Steps:
        deadline = time.monotonic() + SECONDS_TO_GET_READY
        while reason := self.loop.what_is_missing():
            self._waiting_for = f"waiting for {reason}"
            if time.monotonic() > deadline:
                raise NotNow(f"it waited {SECONDS_TO_GET_READY:.0f} s in vain for {reason}")
            yield
        self._waiting_for = ""

    def _hooked(self) -> Steps:
        """Run the hook that may cancel it. Raises Denied where it does."""
        hook = self.hooks.begin(Event.CUTOVER, self._facts())
        while (failure := hook.poll()) is None:
            self._waiting_for = "waiting for --on-cutover"
            yield
        self._waiting_for = ""
        if failure:
            raise Denied(f"{failure}; nothing was flipped")

    def _proven(self) -> Steps:
        """Compare all pairs once more. Raises NotNow where one was unequal though nobody told."""
        self.loop.prove()
        while (unequal := self.loop.unequal) is None:
            self._waiting_for = "waiting for the proof: every pair is compared"
            yield
        self._waiting_for = ""
        if unequal:
            raise NotNow(f"{unequal:,} pairs were not equal though nobody told of a change; they were made so again")
        self.note("proven: every pair was compared, and what was told since is compared while writes are held")

    def _quiet(self) -> Steps:
        """Wait until nobody writes for a while. Raises NotNow where somebody always does."""
        seconds = self.options.quiet_seconds
        deadline = time.monotonic() + seconds + SECONDS_TO_GET_READY
        changes, since = self.loop.changes, time.monotonic()
        while time.monotonic() - since < seconds or self.loop.what_is_missing():
            self._waiting_for = f"waiting for {seconds:g} s in which nobody writes"
            yield
            if self.loop.changes != changes:
                changes, since = self.loop.changes, time.monotonic()
            if time.monotonic() > deadline:
                raise NotNow("somebody writes: stop what writes first, or hold its writes (without --no-freeze)")
        self._waiting_for = ""

    def _facts(self) -> dict[str, str]:
        return {
            "command": Command.FOLLOW,
            "flag": printable(self.state.flag),
            "value": printable(self.options.value),
            "side": self.side,
            "wish": self._wish or "",
        }


def _rested(seconds: float) -> Steps:
    due = time.monotonic() + seconds
    while time.monotonic() < due:
        yield
