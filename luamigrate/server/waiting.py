"""Waiting for a first connection while the server is loading, being replaced, or not there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from luamigrate.model.control import NOBODY, Control
from luamigrate.server.connection import FIRST_DELAY, LONGEST_DELAY
from luamigrate.server.errors import NotReady, Unreachable, Unsettled

SECONDS_FOR_NOBODY = 5.0
"""Default for an address where nobody answers: mostly its port is wrong."""

_Reached = TypeVar("_Reached")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How long to wait for a first connection."""

    patience: float = 0.0
    """Seconds for a server that is loading, or whose place another one is about to take."""
    for_nobody: float = 0.0
    """Seconds for an address where nobody answers."""
    control: Control = NOBODY
    """Ends the waiting, and is told of it."""


AT_ONCE = Waiting()
"""Try once, and do not wait."""


def reach(connect: Callable[[], _Reached], waiting: Waiting) -> _Reached:
    """Try to connect until it succeeds or the time is over. Raises what the last try did."""
    began, delay = time.monotonic(), FIRST_DELAY
    nobody_since: float | None = None
    while True:
        try:
            return connect()
        except (NotReady, Unsettled, Unreachable) as problem:
            now = time.monotonic()
            if isinstance(problem, Unreachable):
                nobody_since = now if nobody_since is None else nobody_since
                left = nobody_since + waiting.for_nobody - now
            else:
                nobody_since, left = None, began + waiting.patience - now
            if left <= 0 or waiting.control.stop():
                raise
            waiting.control.tell(f"waiting for the server: {problem}; {left:.0f} s left")
        time.sleep(min(delay, left))
        delay = min(2 * delay, LONGEST_DELAY)
