"""How far a command is: noted as it works, and read by the thread that answers at the control socket."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock
from typing import Any

from luamigrate.cli.json_output import followed_document, totals_document
from luamigrate.model.following import Followed
from luamigrate.model.rules import Rule
from luamigrate.model.status import Command, Stage
from luamigrate.model.summary import Batch, Tally

SAMPLES_OF_RATE = 5
"""One a second: the rate is that of the last seconds."""


class Progress:
    """Keeps what `status` tells of a command."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._lock = Lock()
        """Held for moments: while a batch is counted, and while the counts are read."""
        self._totals = Tally()
        self._rule: Rule | None = None
        self._scanned = 0.0
        self._followed = Followed()
        self._waiting_for: str | None = None
        """What is waited for, as it was told since the last batch."""
        self._found = 0
        self.noted = time.monotonic()
        """When a batch was noted last."""
        self._samples = deque([(time.monotonic(), 0)], maxlen=SAMPLES_OF_RATE)
        """When how many keys had been found."""

    def waiting(self, reason: str | None) -> None:
        """Note what is waited for; None where that is over."""
        self._waiting_for = reason

    def note(self, batch: Batch) -> None:
        """Note a batch."""
        self._waiting_for = None
        if self._command is Command.FOLLOW:
            self._followed = batch.followed or self._followed
            self.noted = time.monotonic()
            return
        self.noted = time.monotonic()
        with self._lock:
            if batch.restarted:
                self._totals = Tally()
            self._totals.add(batch.tally)
            if batch.stage is Stage.SCAN:
                self._rule, self._scanned = batch.rule, batch.scanned
            self._found += batch.tally.found
        if self.noted - self._samples[-1][0] >= 1:
            self._samples.append((self.noted, self._found))

    def document(self) -> dict[str, Any]:
        """Return how it stands, and how old that is."""
        return self._figures() | {"age_ms": int((time.monotonic() - self.noted) * 1000)}

    def _figures(self) -> dict[str, Any]:
        if self._command is Command.FOLLOW:
            document = followed_document(self._followed)
            return document | {"waiting_for": document["waiting_for"] or self._waiting_for}
        with self._lock:
            totals, rule, scanned = totals_document(self._totals), self._rule, self._scanned
            waiting = self._totals.waiting
        return {
            "rule": {"source": str(rule.source), "target": str(rule.target)} if rule else None,
            "scanned": round(scanned, 4),
            "totals": totals,
            "waiting": waiting,
            "rate": round(self._rate, 1),
            "waiting_for": self._waiting_for,
        }

    @property
    def _rate(self) -> float:
        """Keys found per second."""
        began, found = self._samples[0]
        return max(0, self._found - found) / max(time.monotonic() - began, 0.001)
