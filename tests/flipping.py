"""What a flip leaves on a server, written as a cut-over leaves it; and what makes a server ready for one."""

from __future__ import annotations

import time
from typing import Any

from luamigrate import Deployment, Plan
from luamigrate.migration.sides import CutoverState
from luamigrate.model.control import NOBODY
from luamigrate.model.cutover import CutoverOptions
from tests.instances import Reachable

FLAG, VALUE = b"app:names", b"step:"


def state_of(deployment: Deployment, plan: Plan, flag: bytes = FLAG, value: bytes = VALUE) -> CutoverState:
    """Return the state of a cut-over that flips a flag to a value."""
    return CutoverState(deployment, plan, CutoverOptions(flag=flag, value=value), NOBODY, 1.0)


def write_record(server: Reachable, state: CutoverState, **fields: bytes) -> None:
    """Write a record as a flip does, but for some of its fields."""
    client: Any = server.client
    wanted = {"flag": state.flag, "value": state.options.value, "moment": b"%d" % (time.time() * 1000), **fields}
    client.hset(state.record, mapping=wanted)


def flip(server: Reachable, state: CutoverState) -> None:
    """Have a cut-over flip: the flag was absent before."""
    state.announce()
    server.client.set(state.flag, state.options.value)
    write_record(server, state)
