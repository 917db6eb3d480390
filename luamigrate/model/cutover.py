"""What is known of a cut-over: which side the application writes, how it is to go, and the record it leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

FREEZE_MS = 500
"""The longest that all writes may be held, unless somebody says otherwise."""
ATTEMPTS = 5
"""As many as there are, unless somebody says otherwise."""
QUIET_SECONDS = 2.0
"""For which nobody may write before a flip without a freeze, unless somebody says otherwise."""
WATCH_SECONDS = 60.0
"""For which a cut-over of a script watches for stragglers, unless somebody says otherwise."""
HOOK_SECONDS = 30.0
"""After which a hook is ended, and has failed."""


class Side(StrEnum):
    """The names that the application writes; the others are mirrored from them."""

    SOURCES = "sources"
    """The old names: before a cut-over, and after the way back."""
    TARGETS = "targets"
    """The new names."""


class Wish(StrEnum):
    """What somebody may wish of a follow, besides that it stops."""

    CUTOVER = "cutover"
    """That the application writes the new names from now on."""
    BACK = "back"
    """That it writes the old ones again."""
    FINISH = "finish"
    """That the old names are left as they are, and the follow ends."""


class Kill(StrEnum):
    """Whose connections are closed at a flip, so that commands that are held are never carried out."""

    ALL = "all"
    """Those of all clients of the plan's databases."""
    HELD = "held"
    """Those of clients whose commands are held, or who wait for something."""
    NONE = "none"
    """Nobody's: whoever has read the flag before it was flipped writes the names that were left."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Commands that are run at moments of a cut-over, as words without a shell; None where there is none."""

    on_cutover: tuple[str, ...] | None = None
    """Before writes are held: where it fails, nothing is flipped."""
    on_flip: tuple[str, ...] | None = None
    """After the flip, once writes go on."""
    on_straggler: tuple[str, ...] | None = None
    """Where names that had been left were written."""
    seconds: float = HOOK_SECONDS
    """For which each may run."""
    without: frozenset[str] = frozenset()
    """Variables of the environment that they do not get, because these may hold passwords."""


@dataclass(frozen=True, kw_only=True)
class CutoverOptions:
    """How a follow cuts over."""

    flag: bytes
    """The key that the application reads before each write."""
    value: bytes
    """What it has once the new names are the ones to write."""
    freeze_ms: int = FREEZE_MS
    """The longest that all writes may be held in one attempt."""
    attempts: int = ATTEMPTS
    kill: Kill = Kill.ALL
    kill_user: str | None = None
    """Of whom alone connections are closed; None for everybody's."""
    prove: bool = False
    """Whether every pair is compared once more before it."""
    freezes: bool = True
    """Whether writes are held. Otherwise nobody may write for `quiet_seconds`."""
    quiet_seconds: float = QUIET_SECONDS
    at_once: bool = False
    """Whether it cuts over by itself as soon as it is in step, watches, and finishes."""
    watch_seconds: float = WATCH_SECONDS
    """For which it watches then."""
    confirmed: bool = False
    """Whether old names may be overwritten and deleted where nobody followed for a while after a cut-over."""
    hooks: Hooks = field(default_factory=Hooks)


@dataclass(frozen=True, kw_only=True, slots=True)
class CutoverProgress:
    """How far a follow is with a cut-over."""

    attempts: int = 0
    """Of the cut-over that is under way, or was the last one."""
    freeze_ms: float | None = None
    """Milliseconds for which the last flip held writes; None before one."""
    steps: tuple[str, ...] = ()
    """What was done, and why: a line for each step, the last ones."""
    steps_told: int = 0
    """How many steps there have been."""
    waiting_for: str = ""
    """What is waited for; empty where that is nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CutoverRecord:
    """What a flip leaves beside the flag until the way back, or until it is finished."""

    flag: bytes
    value: bytes
    former: bytes | None
    """What the flag had before; None where there was none."""
    moment: int
    """When it was flipped, by the server's clock: milliseconds since 1970."""
