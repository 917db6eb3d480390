"""Signals: Ctrl-C, SIGTERM and SIGHUP stop in good order; SIGUSR1 pauses, and then resumes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Self

from luamigrate.cli import console
from luamigrate.cli.importing import STOPPING
from luamigrate.cli.wishes import Wishes
from luamigrate.model.control import Control
from luamigrate.model.limits import Limits

PAUSING = getattr(signal, "SIGUSR1", None)


class Interruption:
    """Takes the signals while work is done, and gives the Control by which the work obeys them, and control.

    While `patient`, the first signal only asks, so that the batches under way can be finished; the second one, or any
    before that, raises KeyboardInterrupt. Once the work is `over`, a further signal is ignored: only the result is
    still to be printed.
    """

    def __init__(self) -> None:
        self.patient = False
        self.over = False
        self.asked = False
        """Whether somebody asked to stop."""
        self.status: Callable[[], str] = lambda: ""
        """Gives a line on how far the work is."""
        self.paused = False
        self.limits: Limits | None = None
        """The limits that somebody has set since it began."""
        self.wishes = Wishes()
        """What somebody wishes of a follow."""
        self._former = {number: signal.getsignal(number) for number in (*STOPPING, PAUSING) if number}

    def control(self, tell: Callable[[str], None], also_stop: Callable[[], bool]) -> Control:
        """Return a Control that follows the signals; the work stops too where `also_stop` says so."""
        return Control(
            stop=lambda: self.asked or also_stop(),
            paused=lambda: self.paused,
            limits=lambda: self.limits,
            tell=tell,
            wish=lambda: self.wishes.current,
            granted=self.wishes.granted,
        )

    def pause(self) -> None:
        """Have the work wait, unless it is over."""
        self.paused = not self.over

    def resume(self) -> None:
        """Have the work go on."""
        self.paused = False

    def ask(self) -> None:
        """Ask to stop, as the first signal does."""
        self.asked = True

    def __enter__(self) -> Self:
        for number, former in self._former.items():
            # What runs under nohup is not to be stopped by SIGHUP.
            if former is not signal.SIG_IGN:
                signal.signal(number, self._pause if number is PAUSING else self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            # A signal too many must not lose the exit code at the very end.
            signal.signal(number, signal.SIG_IGN if self.asked else former)

    def _pause(self, _number: int, _frame: FrameType | None) -> None:
        if self.paused:
            self.resume()
        else:
            self.pause()
        now = "paused (SIGUSR1 again goes on)" if self.paused else "going on"
        console.notice(f"{now}: {self.status()}")

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked and self.over:
            return
        at_once = self.asked or self.over or not self.patient
        self.ask()
        if at_once:
            raise KeyboardInterrupt
        console.notice("stopping: the batches under way are being finished (once more: stop at once)")
