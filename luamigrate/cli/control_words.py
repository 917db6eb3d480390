"""What each word at the control socket does, and what is answered."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from luamigrate.cli import console
from luamigrate.cli.control_options import ALL_WORDS, WISHES, WORDS
from luamigrate.cli.control_socket import Answer
from luamigrate.cli.progress import Progress
from luamigrate.cli.signals import Interruption
from luamigrate.cli.wishes import Wished
from luamigrate.model.cutover import Wish
from luamigrate.model.errors import UsageError, as_typed
from luamigrate.model.limits import Limits
from luamigrate.model.status import Command

SETTABLE = {
    Command.RUN: ("max_pause", "max_rate"),
    Command.FOLLOW: ("max_pause", "max_rate", "max_lag_ms"),
}
"""Limits that may change while a command works."""
NO_LIMIT = {"max_rate"}
"""Limits that may be `none`."""
LONGEST_SHOWN = 40
"""Bytes of what somebody has sent, in an answer."""
SECONDS_TO_NOTE = 2.0
"""For which the answer to a wish waits for figures that are newer than what it answers."""


@dataclass
class Words:
    """Carries out the words for one command. Each does one thing that another thread may do at any time."""

    command: Command
    interruption: Interruption
    progress: Progress
    limits: Limits
    cuts_over: bool = False
    """Whether it is a follow that has a flag."""

    def answer(self, line: bytes) -> Answer:
        """Do what a line says, and return the answer; of a wish, what gives it once that is known."""
        try:
            if (word := line.strip().decode(errors="replace")) in WISHES:
                wished = self._wish(Wish(word))
                return lambda: self._come_of(wished)
            done = self._carry_out(line)
        except UsageError as problem:
            return {"error": str(problem)}
        return self._status() | ({"done": True} if done else {})

    def _carry_out(self, line: bytes) -> bool:
        """Do what a line says; tell whether that changed anything. Raises UsageError."""
        match line.split():
            case [b"status"]:
                return False
            case [b"pause"]:
                self._pause()
            case [b"resume"]:
                self._resume()
            case [b"stop"]:
                self._stop()
            case [b"set", setting]:
                self._set(setting)
            case [b"set", *_]:
                raise UsageError("set needs NAME=VALUE, as in set max-rate=1000")
            case _:
                words = ALL_WORDS if self.command is Command.FOLLOW else WORDS
                raise UsageError(f"'{_shown(line)}' is no word; there are {', '.join(words)}")
        return True

    def _wish(self, wish: Wish) -> Wished:
        """Hand a wish over to the work. Raises UsageError where it can never be granted."""
        if self.command is not Command.FOLLOW:
            raise UsageError(f"'{wish}' is for a follow, and this is a {self.command}")
        if not self.cuts_over:
            raise UsageError(f"this follow has no --flip KEY=VALUE: it does not know '{wish}'")
        if self.interruption.asked:
            raise UsageError(f"this follow is stopping: it takes no '{wish}' any more")
        wished = self.interruption.wishes.make(wish)
        console.notice(f"by control: {wish}")
        return wished

    def _come_of(self, wished: Wished) -> dict[str, Any] | None:
        """Return the answer to a wish; None while it is under way."""
        if wished.ended is None:
            return None
        if wished.why_not:
            return {"error": wished.why_not}
        is_late = self.interruption.over or time.monotonic() - wished.ended > SECONDS_TO_NOTE
        return self._status() | {"done": True} if is_late or self.progress.noted > wished.ended else None

    def _pause(self) -> None:
        if not self.interruption.paused:
            self.interruption.pause()
            console.notice("paused by control (resume, or SIGUSR1, goes on)")

    def _resume(self) -> None:
        if self.interruption.paused:
            self.interruption.resume()
            self.progress.waiting(None)
            console.notice("going on, by control")

    def _stop(self) -> None:
        if not self.interruption.asked:
            self.interruption.ask()
            console.notice("stopping, by control: the batches under way are being finished (a signal: stop at once)")

    def _set(self, setting: bytes) -> None:
        name, _, text = setting.partition(b"=")
        names = {limit.replace("_", "-"): limit for limit in SETTABLE[self.command]}
        limit = names.get(name.decode(errors="replace"))
        if not limit:
            raise UsageError(f"'{_shown(name)}' cannot be set; what can is {', '.join(names)}")
        changed: dict[str, Any] = {limit: _value(limit, text)}
        limits = replace(self.limits, **changed)
        if limits != self.limits:
            self.limits = self.interruption.limits = limits
            console.notice(f"by control: {_shown(setting)}")

    def _status(self) -> dict[str, Any]:
        return {
            "command": self.command,
            **self.progress.document(),
            **({"wish": self.interruption.wishes.current} if self.command is Command.FOLLOW else {}),
            "paused": self.interruption.paused,
            "stopping": self.interruption.asked,
            "limits": {limit: getattr(self.limits, limit) for limit in SETTABLE[self.command]},
        }


def _value(limit: str, text: bytes) -> float | None:
    if text == b"none" and limit in NO_LIMIT:
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"'{_shown(text)}' is no number") from None


def _shown(text: bytes) -> str:
    return as_typed(text[:LONGEST_SHOWN]) + ("…" if len(text) > LONGEST_SHOWN else "")
