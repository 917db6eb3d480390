"""What each word at the control socket does, and what is answered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from luamigrate.cli import console
from luamigrate.cli.control_options import WORDS
from luamigrate.cli.progress import Progress
from luamigrate.cli.signals import Interruption
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


@dataclass
class Words:
    """Carries out the words for one command. Each does one thing that another thread may do at any time."""

    command: Command
    interruption: Interruption
    progress: Progress
    limits: Limits

    def answer(self, line: bytes) -> dict[str, Any]:
        """Do what a line says, and return the answer."""
        try:
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
                raise UsageError(f"'{_shown(line)}' is no word; there are {', '.join(WORDS)}")
        return True

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
