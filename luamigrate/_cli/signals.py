"""Stopping in good order: Ctrl-C, SIGTERM and SIGHUP. Holding and going on: SIGUSR1."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Self

from luamigrate import report
from luamigrate.start import STOPPING

HOLDING = getattr(signal, "SIGUSR1", None)


class Interruption:
    """Whether somebody asked to stop: call it.

    While `patient`, the first signal only asks, so that the batches under way can be finished;
    the second one, or any before that, raises KeyboardInterrupt. Once the work is `over`, whoever
    has asked before is heard no more: what is left is telling about it.
    """

    def __init__(self) -> None:
        self.patient = False
        self.over = False
        self.held = False
        """Whether somebody wants the work to wait."""
        self.status: Callable[[], str] = lambda: ""
        """How the work stands, in a line."""
        self._asked = False
        self._former = {number: signal.getsignal(number) for number in (*STOPPING, HOLDING) if number}

    def __call__(self) -> bool:
        """Tell whether somebody asked to stop."""
        return self._asked

    def __enter__(self) -> Self:
        for number, former in self._former.items():
            # What runs under nohup is not to be stopped by SIGHUP.
            if former is not signal.SIG_IGN:
                signal.signal(number, self._hold if number is HOLDING else self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            # A signal too many must not lose the exit code on the last metre.
            signal.signal(number, signal.SIG_IGN if self._asked else former)

    def _hold(self, _number: int, _frame: FrameType | None) -> None:
        self.held = not self.held and not self.over
        now = "held (SIGUSR1 again goes on)" if self.held else "going on"
        report.notice(f"{now}: {self.status()}")

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked and self.over:
            return
        if self._asked or self.over or not self.patient:
            self._asked = True
            raise KeyboardInterrupt
        self._asked = True
        report.notice("stopping: the batches under way are being finished (once more: stop at once)")
