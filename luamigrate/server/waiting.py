"""Waiting for a server that does not let us in yet: it is loading, or being replaced, or nobody is there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from luamigrate.server.connection import FIRST_DELAY, LONGEST_DELAY
from luamigrate.server.errors import NotReady, Unreachable, Unsettled

SECONDS_FOR_NOBODY = 5.0
"""That an address where nobody answers is waited for, where the user does not say: mostly the port is wrong."""

_Reached = TypeVar("_Reached")


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """How long a first connection is waited for."""

    patience: float = 0.0
    """Seconds for a server that is loading, or whose place another one is about to take."""
    for_nobody: float = 0.0
    """Seconds for an address where nobody answers."""
    stop: Callable[[], bool] = lambda: False
    """Whether somebody wants it to end."""
    tell: Callable[[str], None] = lambda _: None
    """Is told what is waited for, again and again."""


AT_ONCE = Waiting()
"""Not at all."""


def reach(connect: Callable[[], _Reached], waiting: Waiting) -> _Reached:
    """Connect, again and again for as long as that is worth it. Raises what the last try did."""
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
            if left <= 0 or waiting.stop():
                raise
            waiting.tell(f"waiting for the server: {problem}; {left:.0f} s left")
        time.sleep(min(delay, left))
        delay = min(2 * delay, LONGEST_DELAY)
