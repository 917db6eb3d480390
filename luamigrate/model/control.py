"""How a caller stops the work, pauses it, changes its limits, and is told what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from luamigrate.model.cutover import Wish
from luamigrate.model.limits import Limits


@dataclass(frozen=True, kw_only=True)
class Control:
    """Functions that the work asks whether to go on, and tells what it waits for."""

    stop: Callable[[], bool] = lambda: False
    """Whether it is to end: the batches under way are finished and yielded, and no more are sent."""
    paused: Callable[[], bool] = lambda: False
    """Whether it is to wait, until this says no."""
    limits: Callable[[], Limits | None] = lambda: None
    """The limits that hold from now on, asked for between two batches; None for those that the work began with."""
    tell: Callable[[str], None] = lambda _: None
    """Is told what is waited for, repeatedly while it lasts."""
    wish: Callable[[], Wish | None] = lambda: None
    """What somebody wishes of a follow; it stays until `granted` is called."""
    granted: Callable[[Wish, str], None] = lambda _, __: None
    """Is told that a wish has been granted, or why not: a text, empty where it was."""


NOBODY = Control()
"""Never stops, pauses or changes the work, and ignores what it is told."""

Operator = Control
"""The former public name of Control."""
