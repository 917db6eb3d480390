"""How whoever has work done ends it, has it wait, and is told what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Control:
    """Whom the work asks whether to go on, and tells what it waits for. `luamigrate.Operator` is the same class."""

    stop: Callable[[], bool] = lambda: False
    """Whether it is to end: the batches under way are finished and yielded, and that is all."""
    held: Callable[[], bool] = lambda: False
    """Whether it is to pause."""
    tell: Callable[[str], None] = lambda _: None
    """Is told what is waited for, again and again while it lasts."""


NOBODY = Control()
"""Never ends or pauses the work, and is told nothing."""

Operator = Control
"""The public name that it had before."""
