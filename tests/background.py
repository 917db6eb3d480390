"""Threads of a test that work until they are told to stop."""

from __future__ import annotations

import threading
from typing import Self


class Background(threading.Thread):
    """Works in the background of a block, which asks `_done` whether to go on, and has ended behind it."""

    seconds_to_end = 20
    """In which it ends once it is asked to."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()

    def ask_to_stop(self) -> None:
        """Ask it to stop."""
        self._done.set()

    def stop(self) -> None:
        """Ask it to stop, and wait for that."""
        self.ask_to_stop()
        self.join(self.seconds_to_end)
        assert not self.is_alive()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
