"""What people see of what goes on: a block that is redrawn in place on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from rich.console import Console

from luamigrate.cli import drift_messages, follow_messages, messages
from luamigrate.model.drift import Drift
from luamigrate.model.following import Followed

if TYPE_CHECKING:
    from rich.live import Live

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_FRAMES = 0.4


class FollowDisplay:
    """Shows how a follow, or a comparison that goes on, stands, as often as people can read it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = _live(console) if console.is_terminal else None
        self._shown = -math.inf
        self._told = self._done = 0
        self._has_told_goal = False
        self._steps: tuple[str, ...] = ()
        """The steps of cut-overs that were printed last."""

    def new_steps(self, figures: Followed | Drift) -> tuple[str, ...]:
        """Return the steps of cut-overs that have come since this was asked last: only the last ones are told."""
        steps = figures.steps if isinstance(figures, Followed) else ()
        known = next(
            count for count in range(len(steps), -1, -1) if steps[:count] == self._steps[len(self._steps) - count :]
        )
        self._steps = steps or self._steps
        return steps[known:]

    def show(self, figures: Followed | Drift) -> None:
        """Show it, if it is time for that, or it has reached for the first time what it is for."""
        now = time.monotonic()
        since = now - self._shown
        is_there = figures.in_step if isinstance(figures, Followed) else figures.is_complete
        has_news = is_there and not self._has_told_goal
        if since < (SECONDS_BETWEEN_FRAMES if self._live else SECONDS_BETWEEN_LINES) and not has_news:
            return
        seconds = since if math.isfinite(since) else 1.0
        done = figures.copies if isinstance(figures, Followed) else figures.compared
        rates = (figures.told - self._told) / seconds, (done - self._done) / seconds
        self._shown, self._told, self._done = now, figures.told, done
        self._has_told_goal |= is_there
        if self._live:
            self._live.update("\n".join(f"  {name:<14}{text}" for name, text in _block(figures, *rates)), refresh=True)
        else:
            self._console.print(f"  {_line(figures, *rates)}")

    def close(self) -> None:
        """Leave the terminal as it is for what is printed next."""
        if self._live:
            self._live.stop()


def _block(figures: Followed | Drift, told: float, done: float) -> list[tuple[str, str]]:
    if isinstance(figures, Followed):
        return follow_messages.follow_block(figures, told, done)
    return drift_messages.drift_block(figures, told, done)


def _line(figures: Followed | Drift, told: float, done: float) -> str:
    if isinstance(figures, Followed):
        return messages.follow_line(figures, told, done)
    return messages.drift_line(figures, told, done)


def _live(console: Console) -> Live:
    from rich.live import Live  # noqa: PLC0415  # it takes a while, and most commands go without

    live = Live(console=console, auto_refresh=False)
    live.start()
    return live
