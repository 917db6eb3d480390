"""What people see of a follow: a block that is redrawn in place on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from rich.console import Console

from luamigrate.cli import messages
from luamigrate.model.following import Followed

if TYPE_CHECKING:
    from rich.live import Live

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_FRAMES = 0.4


class FollowDisplay:
    """Shows how a follow stands, as often as people can read it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = _live(console) if console.is_terminal else None
        self._shown = -math.inf
        self._last = Followed()
        self._has_told_step = False

    def show(self, followed: Followed) -> None:
        """Show it, if it is time for that or it has come into step for the first time."""
        now = time.monotonic()
        since = now - self._shown
        has_news = followed.in_step and not self._has_told_step
        if since < (SECONDS_BETWEEN_FRAMES if self._live else SECONDS_BETWEEN_LINES) and not has_news:
            return
        seconds = since if math.isfinite(since) else 1.0
        told, copied = (followed.told - self._last.told) / seconds, (followed.copies - self._last.copies) / seconds
        self._shown, self._last = now, followed
        self._has_told_step |= followed.in_step
        if self._live:
            self._live.update("\n".join(_block(followed, told, copied)), refresh=True)
        else:
            self._console.print(f"  {messages.follow_line(followed, told, copied)}")

    def close(self) -> None:
        """Leave the terminal as it is for what is printed next."""
        if self._live:
            self._live.stop()


def _block(followed: Followed, told: float, copied: float) -> list[str]:
    lag = followed.lag
    lines = [
        f"  {'state':<14}{messages.follow_state(followed)}",
        f"  {'waiting':<14}{followed.dirty:,} dirty, {followed.in_flight:,} in flight",
        f"  {'lag':<14}{lag.now:,.1f} ms now, p50 {lag.p50:,.1f}, p99 {lag.p99:,.1f}, worst {lag.worst:,.1f}",
        f"  {'a second':<14}{told:,.0f} changes, {copied:,.0f} copies",
        f"  {'scanned again':<14}{messages.follow_rescans(followed).removeprefix('; scanned again ') or 'never'}",
        f"  {'longest pause':<14}{followed.longest_pause_ms:,.1f} ms",
    ]
    return lines + ([f"  {'waits for':<14}{followed.waiting_for}"] if followed.waiting_for else [])


def _live(console: Console) -> Live:
    from rich.live import Live  # noqa: PLC0415  # it takes a while, and most commands go without

    live = Live(console=console, auto_refresh=False)
    live.start()
    return live
