"""The time of day, by a server's clock: ours may be wrong."""

from __future__ import annotations

import time

from luamigrate.server.deployment import Deployment
from luamigrate.server.info import read_time_ms


class ServerClock:
    """Tells the time of a server that is asked now and then."""

    def __init__(self, deployment: Deployment) -> None:
        """Ask for the first time. Raises Refused where this user may not."""
        self._deployment = deployment
        self.ask()

    def ask(self) -> None:
        """Ask for the time again."""
        self._told, self._asked = read_time_ms(self._deployment.primaries[0]), time.monotonic()

    def now(self) -> int:
        """Return the time in milliseconds since 1970."""
        return self._told + round((time.monotonic() - self._asked) * 1000)
