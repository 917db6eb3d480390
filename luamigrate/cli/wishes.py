"""What somebody wishes of a follow by control: made by the thread of the socket, granted by the work."""

from __future__ import annotations

import time
from threading import Lock

from luamigrate.model.cutover import Wish
from luamigrate.model.errors import UsageError


class Wished:
    """A wish that was made, and what has come of it."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.why_not = ""
        """Why it was not granted; empty while it is open, and where it was."""
        self.ended: float | None = None
        """When that was known, by the monotonic clock."""

    def end(self, why_not: str) -> None:
        """Note what has come of it."""
        self.why_not, self.ended = why_not, time.monotonic()


class Wishes:
    """Keeps one wish at a time until the work has granted it, or ends."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._current: Wished | None = None
        self._over = ""
        """Why nothing can be wished for any more."""

    @property
    def current(self) -> Wish | None:
        """What is wished for."""
        wished = self._current
        return wished.wish if wished else None

    def make(self, wish: Wish) -> Wished:
        """Wish for something. Raises UsageError while something else is under way, and once the work is over."""
        with self._lock:
            if self._over:
                raise UsageError(self._over)
            if self._current:
                raise UsageError(f"'{self._current.wish}' is under way: '{wish}' can be asked for once that has ended")
            self._current = Wished(wish)
            return self._current

    def granted(self, wish: Wish, why_not: str) -> None:
        """Take that a wish was granted, or why not."""
        with self._lock:
            if self._current and self._current.wish is wish:
                self._current.end(why_not)
                self._current = None

    def close(self, why: str) -> None:
        """End what is wished for, and take nothing more: the work is over."""
        with self._lock:
            self._over = self._over or f"the follow has ended: {why}"
            if self._current:
                self._current.end(self._over)
                self._current = None
