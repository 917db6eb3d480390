"""Processes that tests start: they end with their test, and hear signals as those of a user do."""

from __future__ import annotations

import signal
from subprocess import Popen
from typing import AnyStr

from luamigrate.cli import orphans
from luamigrate.cli.importing import STOPPING
from luamigrate.cli.signals import PAUSING

_started: list[Popen[bytes] | Popen[str]] = []


def of_this_test(process: Popen[AnyStr]) -> Popen[AnyStr]:
    """Have a process killed when the test ends, whatever ends it; return it."""
    _started.append(process)
    return orphans.keep(process)


def end_all() -> None:
    """Kill what is still up of what the test has started."""
    while _started:
        process = _started.pop()
        process.kill()
        process.wait()


def let_signals_through() -> None:
    """Have processes that are started hear signals that are ignored here.

    They would inherit that, and take it for the wish of a user who has typed nohup. We go on ignoring
    them, but in a function of our own: that is not inherited.
    """
    for number in (*STOPPING, PAUSING):
        if number and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
