"""What is waited for before a flip: that little is on its way, that all pairs are proven equal, that nobody writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from luamigrate.migration.flipping import Denied, NotNow
from luamigrate.migration.keeper import Keeper
from luamigrate.migration.proof import Proof
from luamigrate.model.cutover import CutoverOptions

SECONDS_TO_GET_READY = 30.0
"""For which one attempt waits until nothing speaks against it."""
SECONDS_FOR_CALM = 5.0
"""For which an attempt waits until only few changes are to be mirrored, so that writes are held for moments."""
FEW_WAITING = 500
WAITING_PER_MS = 10
"""Changes that are mirrored in a millisecond for sure."""

Steps = Iterator[None]
"""A cut-over that goes on: it yields where it has to wait."""


class Loop(Protocol):
    """The follow that cuts over."""

    def what_is_missing(self, most_waiting: int) -> str:
        """Say what speaks against holding writes now, more changes to be mirrored than these for one; else empty."""

    def compare_all(self) -> None:
        """Begin to compare all pairs once more."""

    @property
    def is_comparing(self) -> bool:
        """Whether that goes on."""

    @property
    def is_in_step(self) -> bool:
        """Whether all that was told is mirrored, and a barrier has brought nothing since."""

    @property
    def changes(self) -> int:
        """How many changes were told."""


class Readiness:
    """Waits, step by step, and says what for."""

    def __init__(self, options: CutoverOptions, keeper: Keeper, loop: Loop, note: Callable[[str], None]) -> None:
        self._options, self._keeper, self._loop, self._note = options, keeper, loop, note
        self.waiting_for = ""
        """What is waited for; empty where that is nothing."""

    def ready(self) -> Steps:
        """Wait until nothing speaks against it. Raises Denied where waiting does not help, NotNow where it did not."""
        began = time.monotonic()
        while True:
            if trouble := self._keeper.standing.trouble:
                raise Denied(f"{trouble}: see to them first; nothing was flipped")
            waited = time.monotonic() - began
            # Where so much is written that it is never calm, writes are held for somewhat longer.
            most = FEW_WAITING if waited < SECONDS_FOR_CALM else self._options.freeze_ms * WAITING_PER_MS
            reason = self._loop.what_is_missing(most)
            if not reason:
                break
            self.waiting_for = f"waiting for {reason}"
            if waited > SECONDS_TO_GET_READY:
                raise NotNow(f"it waited {waited:.0f} s in vain for {reason}")
            yield
        self.waiting_for = ""

    def proven(self, streams: Collection[bytes]) -> Steps:
        """Compare all pairs once more. Raises NotNow where one was unequal though nobody told."""
        hearing = self._keeper.hearing
        proof = hearing.proof = Proof(streams)
        self._loop.compare_all()
        while not proof.is_void and (self._loop.is_comparing or proof.is_doubtful):
            if proof.is_doubtful and not hearing.is_asked:
                hearing.barrier()
            self.waiting_for = "waiting for the proof: every pair is compared"
            yield
        hearing.proof, self.waiting_for = None, ""
        if proof.is_void:
            raise NotNow("both sides had to be compared for another reason, in the middle of the proof")
        if proof.unequal:
            raise NotNow(
                f"{proof.unequal:,} pairs were not equal though nobody told of a change; they were made so again"
            )
        self._note("proven: every pair was compared, and what was told since is compared while writes are held")

    def quiet(self, seconds: float) -> Steps:
        """Wait until nobody writes for a while, and all is in step. Raises NotNow where that does not come."""
        deadline = time.monotonic() + seconds + SECONDS_TO_GET_READY
        changes, since = self._loop.changes, time.monotonic()
        while (is_noisy := time.monotonic() - since < seconds) or not self._loop.is_in_step:
            self.waiting_for = f"waiting for {seconds:g} s in which nobody writes"
            if not is_noisy:
                self.waiting_for = f"waiting for {self._loop.what_is_missing(0) or 'all pairs to be in step'}"
            yield
            if self._loop.changes != changes:
                changes, since = self._loop.changes, time.monotonic()
            if time.monotonic() > deadline and is_noisy:
                raise NotNow("somebody writes: stop what writes first, or hold its writes (without --no-freeze)")
            if time.monotonic() > deadline:
                raise NotNow("not all pairs come into step: see what is foreign, fails, or waits")
        self.waiting_for = ""
