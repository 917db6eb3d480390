"""Pairs that are too large for one script: taken in chunks, followed where their slots move, or taken whole."""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator
from dataclasses import replace

from luamigrate.migration.chunks import LargePair
from luamigrate.migration.in_flight import InFlight
from luamigrate.migration.options import Options
from luamigrate.migration.routing import Router
from luamigrate.migration.throttle import SECONDS_TO_SLEEP, Throttle
from luamigrate.migration.verbs import Verb
from luamigrate.model.control import Control
from luamigrate.model.errors import Refused, printable
from luamigrate.model.status import KeyOutcome, Reason, Word
from luamigrate.model.summary import Batch
from luamigrate.scripts import replies
from luamigrate.server.errors import Answered

WARNINGS = 10
"""The most warnings of elements that cannot be cut."""


class LargeKeys:
    """Carries out a verb on one large pair after the other, and tells of each chunk."""

    def __init__(self, verb: Verb, options: Options, control: Control, throttle: Throttle, router: Router) -> None:
        self._verb, self._options, self._control = verb, options, control
        self._throttle, self._router = throttle, router
        self._deployment = throttle.deployment
        self._uncut = 0
        """How many sources with an element that cannot be cut have been warned of."""
        self._nonce = secrets.token_hex(8)
        """Makes the names of staging keys such that no other run uses, and this one, starting over, finds its own."""

    def outcome(self, flight: InFlight, kind: str, size: int) -> Generator[Batch, None, KeyOutcome | None]:
        """Take the only pair of a batch in chunks until that succeeds; return None where the work is to end first.

        Raises Replaced where the source has become another type.
        """
        deadline = time.monotonic() + self._options.limits.patience
        while not self._control.stop():
            pair = self._pair(flight, kind, size)
            try:
                return (yield from self._in_chunks(flight, pair))
            except (Refused, Answered) as refusal:
                is_unsettled = self._deployment.is_unsettled(refusal)
                if is_unsettled and time.monotonic() < deadline:
                    self._wait_for_slot()
                elif replies.takes_no_writes(str(refusal)):
                    self._throttle.refused(str(refusal))
                else:
                    hint = "; run again when no slots are being moved" if is_unsettled else ""
                    return pair.outcome(Word.FAILED, f"{refusal}{hint}")
        return None

    def may_be_taken_whole(self, flight: InFlight, outcome: KeyOutcome, size: int) -> bool:
        """Tell whether one script may take a pair that could not be taken in chunks."""
        match outcome.reason:
            case Reason.TOO_BIG:
                fits = size <= self._router.pace(flight.batch.server).whole_key
                return fits or self._options.limits.allow_long_pause
            case Reason.BUSY:
                return self._options.limits.allow_long_pause
            case _:
                return False

    def _in_chunks(self, flight: InFlight, pair: LargePair) -> Generator[Batch, None, KeyOutcome | None]:
        largest, longest = 0, 0.0
        steps = self._verb.large(pair)
        try:
            while True:
                progress = next(steps)
                largest, longest = max(largest, progress.largest), max(longest, progress.seconds)
                yield replace(flight.news, seconds=progress.seconds, large=(pair.source, progress.done))
                self._throttle.wait()
        except StopIteration as end:
            if largest > self._router.pace(flight.batch.server).whole_key and self._uncut < WARNINGS:
                self._uncut += 1
                yield replace(flight.news, warnings=(_uncut(pair.source, largest, longest),))
            outcome: KeyOutcome | None = end.value
            return outcome
        finally:
            steps.close()

    def _pair(self, flight: InFlight, kind: str, size: int) -> LargePair:
        pairs = flight.batch.pairs
        (source,), (target,) = pairs.sources, pairs.targets
        return LargePair(
            source_place=self._router.place(source),
            target_place=self._router.target_place(pairs.rule, target),
            cross_slot=flight.batch.cross_slot,
            source=source,
            target=target,
            kind=kind,
            size=size,
            pause=flight.batch.pause,
            lacking=pairs.lacking[0] if pairs.lacking else None,
            is_recheck=bool(pairs.lacking),
            settle=self._options.settle,
            control=self._control,
            allow_long_pause=self._options.limits.allow_long_pause,
            nonce=self._nonce,
        )

    def _wait_for_slot(self) -> None:
        """Wait a moment, and find out where keys are now: a slot must have come to rest before a key is watched."""
        self._control.tell("waiting for the cluster: the slot of a big key is being moved")
        time.sleep(SECONDS_TO_SLEEP)
        self._deployment.refresh()


def _uncut(source: bytes, largest: int, longest: float) -> str:
    return (
        f"{printable(source)} has an element of {largest:,} bytes, and one element cannot be cut: a chunk of it held "
        f"the server for {longest * 1000:,.0f} ms"
    )
