"""Limits: the load that the user allows, and what one script may take of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from luamigrate.model.errors import UsageError

LARGEST_BATCH = 10_000
LONGEST_PAUSE = 60_000.0
SHORTEST_PAUSE = 0.1
SETTLE_SECONDS = 2.0
LONGEST_SETTLE = 3600
LAG_MS = 0.5
LONGEST_LAG_MS = 60_000

FULL = 0.95
"""Copying waits while more than this share of maxmemory is used."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The load on the server that the user allows. Raises UsageError where a limit makes no sense."""

    batch_size: int = 100
    """The most pairs one script gets."""
    max_pause: float = 5.0
    """The longest time the server may be blocked at once, in milliseconds; calls under way together share it."""
    max_rate: float | None = None
    """Keys per second, at most."""
    max_lag: int | None = None
    """Bytes that a replica may be behind before the work waits for it."""
    max_lag_ms: float = LAG_MS
    """Milliseconds between two rounds of a follow: what changes several times meanwhile is copied once."""
    wait_replicas: int = 0
    """Replicas that must acknowledge each batch before the next one."""
    patience: float = 60.0
    """Seconds for which a server that cannot be reached, or takes no writes, is waited for."""
    allow_long_pause: bool = False
    """Whether keys that cannot go in chunks may block the server for as long as they take."""

    def __post_init__(self) -> None:
        for name, least, most, value in (
            ("the batch size", 1, LARGEST_BATCH, self.batch_size),
            ("the longest pause", SHORTEST_PAUSE, LONGEST_PAUSE, self.max_pause),
            ("the rate", 0.1, None, self.max_rate),
            ("the lag", 1, None, self.max_lag),
            ("the lag in milliseconds", 0, LONGEST_LAG_MS, self.max_lag_ms),
            ("the number of replicas", 0, 1000, self.wait_replicas),
            ("the patience", 0, 86_400, self.patience),
        ):
            if value is not None and not least <= value <= (sys.float_info.max if most is None else most):
                upper = "" if most is None else f" to {most}"
                raise UsageError(f"{name} must be from {least}{upper}, not {value}")


@dataclass(frozen=True, slots=True)
class Pause:
    """What one script may take."""

    microseconds: int
    capacity: int
    """Bytes of the keys' memory."""

    def share(self, share: float) -> Pause:
        """Return a share of it."""
        return Pause(int(self.microseconds * share), int(self.capacity * share))


WHOLE = Pause(2**40, 2**50)
"""No limit: for a key that goes in one script, because the user allows it."""
