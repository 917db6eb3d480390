"""Commands of the user that are run at moments of a cut-over, while the loop goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import StrEnum

from luamigrate.model.cutover import Hooks
from luamigrate.model.errors import printable

OURS = "LUAMIGRATE_"
"""Begins the name of what a hook is told, and of settings of ours."""
SECRETS = frozenset(("REDIS_URL", "REDIS_PASSWORD", "REDIS_PASSWORD_FILE", "SENTINEL_PASSWORD"))
"""Variables that no hook gets, whatever a caller says."""
STDERR = 2
"""Standard output may have a JSON document, which no hook may write into."""
SECONDS_TO_GO = 1.0
"""Between SIGTERM and SIGKILL."""
SECONDS_AT_END = 2.0
"""For which a hook about stragglers may go on after the follow."""
SECONDS_TO_SLEEP = 0.02
MOST_NAMES = 1000
"""As many stragglers are named in one run; all are counted."""
LONGEST_NAMES = 60_000
"""Characters of these names together: a system takes little more than twice that."""


class Event(StrEnum):
    """The moments at which a hook is run."""

    CUTOVER = "cutover"
    """Before writes are frozen."""
    FLIP = "flip"
    """After the flip, once writes go on."""
    STRAGGLER = "straggler"
    """Names were written that had been left."""


class RunningHook:
    """A command that was started, in a session of its own: no signal of a terminal reaches it."""

    def __init__(self, what: str, words: tuple[str, ...], environment: Mapping[str, str], seconds: float) -> None:
        self._what, self._seconds = f"{what} ({printable(os.fsencode(words[0]))})" if words else what, seconds
        self._result: str | None = None
        self._due = time.monotonic() + seconds
        self._kill_due: float | None = None
        self._why = ""
        self._process: subprocess.Popen[bytes] | None = None
        if not words:
            self._result = ""
            return
        try:
            self._process = subprocess.Popen(
                words,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=STDERR,
                stderr=STDERR,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._result = f"{self._what} cannot be started: {getattr(error, 'strerror', None) or error}"

    def poll(self) -> str | None:
        """Return None while it runs; then why it failed, empty where it did not."""
        if not self._process or self._result is not None:
            return self._result
        now = time.monotonic()
        if self._kill_due is not None:
            # Until then its leader is not asked for: while that is not reaped, the number of its group is its own.
            if now >= self._kill_due:
                self._signal(signal.SIGKILL)
                self._process.wait()
                self._result = f"{self._what} {self._why}"
        elif (code := self._process.poll()) is not None:
            how = f"exit code {code}" if code > 0 else f"it was ended by signal {-code}"
            self._result = f"{self._what} failed: {how}" if code else ""
        elif now >= self._due:
            self._terminate(f"took longer than {self._seconds:g} s, and was ended")
        return self._result

    def end(self, why: str) -> None:
        """Ask it to end, with all that it has started; what is left a moment later is killed."""
        if self.poll() is None and self._kill_due is None:
            self._terminate(why)

    def _terminate(self, why: str) -> None:
        self._why, self._kill_due = why, time.monotonic() + SECONDS_TO_GO
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._process:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


class HookRunner:
    """Runs the hooks of one follow. Nothing here waits, but for `close`."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._running: list[RunningHook] = []
        self._straggler: RunningHook | None = None
        self._names: dict[bytes, None] = {}
        """Stragglers of which nobody was told, as far as they are named."""
        self._count = 0
        """All stragglers of which nobody was told."""
        self._facts: Mapping[str, str] = {}

    def begin(self, event: Event, facts: Mapping[str, str]) -> RunningHook:
        """Start the hook of a moment; where there is none, what is returned has ended well.

        It finds each fact in a variable: `side` in LUAMIGRATE_SIDE. What comes from the server is to be escaped.
        """
        command = {
            Event.CUTOVER: self._hooks.on_cutover,
            Event.FLIP: self._hooks.on_flip,
            Event.STRAGGLER: self._hooks.on_straggler,
        }[event]
        hook = RunningHook(f"--on-{event}", command or (), self._environment(event, facts), self._hooks.seconds)
        self._running.append(hook)
        return hook

    def _environment(self, event: Event, facts: Mapping[str, str]) -> dict[str, str]:
        withheld = SECRETS | self._hooks.without
        kept = {name: value for name, value in os.environ.items() if name not in withheld and not name.startswith(OURS)}
        return kept | {f"{OURS}{name.upper()}": text for name, text in ({"event": str(event)} | dict(facts)).items()}

    def straggler(self, names: Iterable[bytes], facts: Mapping[str, str]) -> None:
        """Have somebody told of names that were written after they had been left: in the next run of that hook."""
        if not self._hooks.on_straggler:
            return
        for name in names:
            self._count += 1
            if len(self._names) < MOST_NAMES:
                self._names[name] = None
        self._facts = facts

    def tend(self) -> str:
        """Advance what runs, and start what waits; return why hooks failed that nobody else asks, empty if none did."""
        self._running = [hook for hook in self._running if hook.poll() is None]
        problem = ""
        if self._straggler and (result := self._straggler.poll()) is not None:
            problem, self._straggler = result, None
        if self._count and not self._straggler:
            facts = {**self._facts, "names": "\n".join(self._names_that_fit()), "count": str(self._count)}
            self._straggler = self.begin(Event.STRAGGLER, facts)
            self._names, self._count = {}, 0
        return problem

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, and nobody waits to be told of stragglers."""
        return not (self._running or self._straggler or self._count)

    def _names_that_fit(self) -> Iterable[str]:
        room = LONGEST_NAMES
        for name in self._names:
            # One that has no room is counted only: a name that is cut would be another one.
            shown = printable(name) if len(name) < room else ""
            if shown and len(shown) < room:
                room -= len(shown) + 1
                yield shown

    def close(self) -> str:
        """Tell of the last stragglers, and end what still runs; return why that hook failed, empty if it did not."""
        deadline, problem = time.monotonic() + SECONDS_AT_END, ""
        while (self._straggler or self._count) and time.monotonic() < deadline:
            problem = self.tend() or problem
            time.sleep(SECONDS_TO_SLEEP)
        self._count = 0
        for hook in self._running:
            hook.end("was still running when the follow ended, and was ended")
        while self._running:
            problem = self.tend() or problem
            time.sleep(SECONDS_TO_SLEEP)
        return problem
