"""Asking about one key, wherever it is by now: slots move, and primaries become replicas."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from luamigrate.model.control import NOBODY, Control
from luamigrate.model.errors import Error
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment

SECONDS_BETWEEN = 0.1

_Answer = TypeVar("_Answer")


def ask_about_key(
    deployment: Deployment,
    key: bytes,
    ask: Callable[[Connection], _Answer],
    *,
    patience: float,
    control: Control = NOBODY,
) -> _Answer:
    """Ask the server that has a key. Raises Error: where that is not settled, after so many seconds of `patience`."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return ask(deployment.node_for(key))
        except Error as problem:
            is_replica = "READONLY" in str(problem)
            is_unsettled = is_replica or deployment.is_unsettled(problem)
            if not is_unsettled or time.monotonic() > deadline or control.stop():
                raise
            time.sleep(SECONDS_BETWEEN)
            if is_replica:
                deployment.find_primary(problem)
            else:
                deployment.refresh()
