"""While modules are imported: Ctrl-C must end the command line in good order even then, and soon.

So this module imports as little as it can.
"""

from __future__ import annotations

import gc
import os
import signal

INTERRUPTED = 130
"""The exit code, as in errors.Exit."""

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask to stop."""


class Importing:
    """While something is imported, a signal that asks to stop ends the process: at once, and in silence.

    Nothing has been done by then; an exception could be lost or shown in the middle of an import. Nor is there any
    garbage, for which Python would search a twelfth of the time.
    """

    def __enter__(self) -> None:
        gc.disable()
        self._former = {number: signal.getsignal(number) for number in STOPPING}
        for number, handler in self._former.items():
            # What runs under nohup or in the background of a script is not to be stopped by what is ignored there.
            if handler is not signal.SIG_IGN:
                signal.signal(number, _leave)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        gc.freeze()
        gc.enable()


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)
