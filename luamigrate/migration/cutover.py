"""Cutting over: wishes are taken, attempts made, and what comes after a flip is seen to.

It goes on in the loop of a follow, a step each turn; only while writes are held nothing else is done.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress

from luamigrate.migration.flipping import SIDES, Denied, Flipper, NotNow
from luamigrate.migration.hooks import Event, HookRunner
from luamigrate.migration.keeper import Keeper
from luamigrate.migration.lease import Lease, NotWritten
from luamigrate.migration.readiness import FEW_WAITING, Loop, Readiness, Steps
from luamigrate.migration.sides import CutoverState, Found
from luamigrate.model.cutover import CutoverProgress, Side, Wish
from luamigrate.model.errors import Error, Refused, Stopped, printable
from luamigrate.model.status import Command, KeyOutcome, Word
from luamigrate.scripts import cutover_calls
from luamigrate.scripts.cutover_calls import FlipReply
from luamigrate.server.errors import ConnectionLost, ServerChanged

SECONDS_BETWEEN_ATTEMPTS = 0.5
FOR_THE_FOLLOW = (ConnectionLost, ServerChanged, NotWritten)
"""What ends an attempt and is mended, or waited out, by the follow before the next one."""
MOST_STEPS = 50
"""As many are told at the end."""


class Cutover:
    """Carries out what is wished of one follow."""

    def __init__(self, state: CutoverState, keeper: Keeper, loop: Loop, *, lease: Lease, copies_groups: bool) -> None:
        self._state, self._keeper, self._loop, self._lease = state, keeper, loop, lease
        self._options, self._control = state.options, state.control
        self._flipper = Flipper(state, keeper, self._note, copies_groups=copies_groups)
        self._hooks = HookRunner(self._options.hooks)
        self.is_finished = False
        """Whether the follow is to end, because the mirroring back was finished."""
        self.is_freezing = False
        """Whether writes are about to be held."""
        self._goes_by_itself = self._options.at_once
        """Whether it does all that comes next without being asked."""
        self._is_finishing = False
        """Whether the record may have been deleted, because somebody wished that it is finished."""
        self._steps: deque[str] = deque(maxlen=MOST_STEPS)
        self._attempts = 0
        self._freeze_ms: float | None = None
        self._readiness = Readiness(self._options, keeper, loop, self._note)
        self._work: Steps | None = None
        self._wish: Wish | None = None
        self._problem: Error | None = None
        """What ended an attempt, and is for the follow to mend."""
        self._ended: tuple[Wish, str] | None = None
        """The wish that has come to its end, and why it was not granted: to be told once the figures have been."""
        self._flipped = 0.0
        """When the watching began, by `time.monotonic`; 0 before that."""

    @property
    def side(self) -> Side:
        """The names that the application writes."""
        return self._keeper.direction.side

    def _note(self, text: str) -> None:
        """Tell a step."""
        self._steps.append(text)

    @property
    def progress(self) -> CutoverProgress:
        """How far it is."""
        return CutoverProgress(
            attempts=self._attempts,
            freeze_ms=self._freeze_ms,
            steps=tuple(self._steps),
            waiting_for=self._readiness.waiting_for,
        )

    def advance(self) -> None:
        """Take a step. Raises what has ended an attempt and is for the follow to mend; Stopped where it is not."""
        self._tell_end()
        if failure := self._hooks.tend():
            self._note(failure)
        if not self._work and (wish := self._control.wish() or self._own_wish()):
            self._wish, self._work = wish, self._carried_out(wish)
        if self._work:
            self._step(self._work)
        problem, self._problem = self._problem, None
        if problem:
            raise problem

    def _step(self, work: Steps) -> None:
        why = ""
        try:
            if next(work, self) is None:
                return
        except (Denied, Error) as reason:
            why = str(reason)
            self._note(f"{self._wish}: {why}")
            self._leave_to_mend(reason)
        wish, self._work, self._wish, self._readiness.waiting_for = self._wish, None, None, ""
        self.is_freezing = False
        if wish and wish is self._control.wish():
            self._ended = wish, why
        elif why and not self._problem:
            raise Stopped(f"cut-over: {why}")

    def _leave_to_mend(self, problem: Exception) -> None:
        """Keep for the follow what only it can mend: it connects again, or asks who has which key now."""
        if isinstance(problem, Error):
            is_lost = isinstance(problem, FOR_THE_FOLLOW)
            self._problem = problem if is_lost or self._state.deployment.is_unsettled(problem) else None

    def mended(self) -> None:
        """Take that the follow has connected again. Raises Stopped where flag and record are not as they were."""
        try:
            found = self._state.find()
        except Refused as problem:
            if self._is_finishing and not self._state.has_record():
                self._end_all()
                return
            raise Stopped(str(problem)) from None
        if not self._flipper.is_unsure:
            if found.side is not self.side:
                raise Stopped("cut-over: flag and record have changed while nobody listened: see who has written them")
            return
        # The answer to our own flip was lost.
        self._flipper.is_unsure = False
        if found.side is not self.side:
            self._note("the flip was done, though the connection was lost before its answer came")
        self._keeper.turn(found.side)

    def stragglers(self, outcomes: list[KeyOutcome]) -> None:
        """Have the hook told of stragglers among some news."""
        names = [outcome.source for outcome in outcomes if outcome.word is Word.STRAGGLER]
        if names:
            self._hooks.straggler(names, self._facts())

    def close(self) -> None:
        """End what is under way, and tell whoever waits for it."""
        self._tell_end()
        wish = self._control.wish()
        if wish:
            self._control.granted(wish, "the follow has ended")
        if failure := self._hooks.close():
            self._note(failure)

    @property
    def has_news(self) -> bool:
        """Whether figures are to be told before anything else: writes are about to be held, or a wish has ended."""
        return self.is_freezing or self._ended is not None

    def _tell_end(self) -> None:
        if self._ended:
            wish_and_why, self._ended = self._ended, None
            self._control.granted(*wish_and_why)

    def _own_wish(self) -> Wish | None:
        """Return what comes next where somebody wants all of it done at once."""
        if not self._goes_by_itself or self.is_finished:
            return None
        if self.side is Side.SOURCES:
            return None if self._loop.what_is_missing(FEW_WAITING) or self._keeper.standing.trouble else Wish.CUTOVER
        now = time.monotonic()
        self._flipped = self._flipped or now
        return Wish.FINISH if now - self._flipped >= self._options.watch_seconds else None

    def _carried_out(self, wish: Wish) -> Steps:
        is_flipped = self.side is Side.TARGETS
        if wish is Wish.CUTOVER and is_flipped:
            raise Denied("the application writes the new names already")
        if wish is not Wish.CUTOVER and not is_flipped:
            raise Denied("nothing has been cut over")
        if wish is Wish.FINISH:
            yield from self._finish()
            return
        self._attempts = 0
        yield from self._hooked()
        yield from self._attempted(wish)
        facts = self._facts() | {"freeze_ms": f"{self._freeze_ms or 0:.1f}", "attempts": str(self._attempts)}
        self._hooks.begin(Event.FLIP, facts)

    def _attempted(self, wish: Wish) -> Steps:
        why = ""
        while self._attempts < self._options.attempts:
            self._attempts += 1
            try:
                yield from self._attempt(wish)
            except (NotNow, Error) as reason:
                why = str(reason)
                self._leave_to_mend(reason)
            else:
                return
            self.is_freezing = False
            # Meanwhile what was lost is mended, and it is known whether the flag was flipped.
            yield from _rested(SECONDS_BETWEEN_ATTEMPTS)
            if self.side is SIDES[wish]:
                self._after_flip(wish)
                return
            self._note(f"attempt {self._attempts} of {self._options.attempts}: {why}; nothing was flipped")
        with suppress(Error):
            self._state.withdraw()
        raise Denied(f"nothing was flipped in {self._attempts} attempts; the last one: {why}")

    def _attempt(self, wish: Wish) -> Steps:
        """Wait until nothing speaks against it, and flip. Raises NotNow where nothing was flipped."""
        yield from self._readiness.ready()
        self._flipper.prepare()
        if self._options.prove:
            yield from self._readiness.proven(self._flipper.streams)
            yield from self._readiness.ready()
        if not self._options.freezes:
            yield from self._readiness.quiet(self._options.quiet_seconds)
        found = self._found()
        if not self._options.freezes and self._flipper.copy_groups():
            yield  # so that it is not in step before they are copied
            yield from self._readiness.quiet(0.0)
        # The lease must not expire, nor be renewed, while writes are held.
        if not self._lease.renew_if_due(""):
            raise NotNow("the lease was lost")
        self.is_freezing = self._options.freezes
        yield  # so that it is told before nothing else is done for a while
        if self._options.freezes:
            self._freeze_ms = self._flipper.in_freeze(wish, found)
        else:
            self._flipper.in_quiet(wish, found)
        self.is_freezing = False
        self._after_flip(wish)

    def _found(self) -> Found:
        """Return what flag and record say. Raises Denied where they, or others, speak against a flip."""
        try:
            found = self._state.find()
            # Another plan may have flipped this flag, or begun with such names.
            self._lease.refuse_others()
        except Refused as problem:
            raise Denied(str(problem).removeprefix("cut-over: ").removeprefix("follow: ")) from None
        if found.side is not self.side:
            raise Denied("flag and record are not as they were: see who has written them")
        return found

    def _after_flip(self, wish: Wish) -> None:
        names = "new" if SIDES[wish] is Side.TARGETS else "old"
        flag = printable(self._state.flag)
        self._note(f"flipped: the flag '{flag}' says that the {names} names are the ones to write")
        self._flipped = time.monotonic()
        self._lease.side = self.side
        # Who has gone back does not want it cut over again by itself.
        self._goes_by_itself &= wish is not Wish.BACK
        # It is done, and what is to be told to others is not worth that somebody takes it for undone.
        with suppress(Error):
            self._lease.renew("")
            if wish is Wish.BACK:
                self._state.withdraw()

    def _finish(self) -> Steps:
        if standing := self._keeper.standing.foreign:
            self._note(f"old names that are left as stragglers wrote them, and reach no new name: {len(standing):,}")
        self._is_finishing = True
        while True:
            try:
                reply = cutover_calls.finish(
                    self._state.deployment.node_for(self._state.flag),
                    self._state.flag,
                    self._state.record,
                    value=self._options.value,
                )
                break
            except FOR_THE_FOLLOW as problem:
                # Whether it was done is known once that is mended.
                self._problem = problem
                yield
        if reply is not FlipReply.FLIPPED:
            self._is_finishing = False
            raise Denied(f"somebody else has written the flag '{printable(self._state.flag)}' or its record: see who")
        self._end_all()

    def _end_all(self) -> None:
        """End the follow, because the record of the flip is gone."""
        with suppress(Error):
            self._state.withdraw()
        self.is_finished = True
        self._note("finished: the old names are not written any more")
        if self._wish and self._wish is self._control.wish():
            self._ended = self._wish, ""

    def _hooked(self) -> Steps:
        """Run the hook that may cancel it. Raises Denied where it does."""
        hook = self._hooks.begin(Event.CUTOVER, self._facts())
        while (failure := hook.poll()) is None:
            self._readiness.waiting_for = "waiting for --on-cutover"
            yield
        self._readiness.waiting_for = ""
        if failure:
            raise Denied(f"{failure}; nothing was flipped")

    def _facts(self) -> dict[str, str]:
        return {
            "command": Command.FOLLOW,
            "flag": printable(self._state.flag),
            "value": printable(self._options.value),
            "side": self.side,
            "wish": self._wish or "",
        }


def _rested(seconds: float) -> Steps:
    due = time.monotonic() + seconds
    while time.monotonic() < due:
        yield
