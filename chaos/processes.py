"""luamigrate as a process of its own, as an operator has it, and what came of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luamigrate.cli.options import environment

LONGEST = 120.0
"""Seconds in which anything ends: more than twice the patience that it is given."""


LONGEST_START = 5.0
PAUSED_AND_RESUMED = ("luamigrate: paused (SIGUSR1 again goes on): ", "luamigrate: going on: ")
"""What it says to the same signal, in turn."""


@dataclass(frozen=True)
class Ended:
    """What came of a command line."""

    arguments: tuple[str, ...]
    code: int | None
    """None where it had to be killed, because it did not end."""
    out: str
    err: str
    report: dict[str, str]
    """The words of keys that are not clean, and their reasons, by source."""
    began: float
    ended: float

    @property
    def document(self) -> Any:
        """The JSON document; None where there is none."""
        with suppress(json.JSONDecodeError):
            return json.loads(self.out)
        return None

    def __str__(self) -> str:
        return f"luamigrate {' '.join(self.arguments)}: exit code {self.code}\n{self.out[-1500:]}\n{self.err[-2500:]}"


class Tool:
    """A running command line."""

    def __init__(self, folder: Path, url: str, arguments: Sequence[str], name: str = "first") -> None:
        self.arguments = tuple(arguments)
        self._folder, self._url, self._name = folder, url, name
        self._others: list[Tool] = []
        self.complaints: list[str] = []
        """What faults have seen that must not be."""
        self._began = time.monotonic()
        self._output = (folder / f"{name}.out").open("wb")
        with (folder / f"{name}.err").open("wb") as errors:
            self._process = subprocess.Popen(
                (sys.executable, "-m", "luamigrate", *arguments, "--report", str(folder / f"{name}.report")),
                env=environment(REDIS_URL=url),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        cat = (sys.executable, "-c", "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)")
        self._reader = subprocess.Popen(cat, stdin=self._process.stdout, stdout=self._output)
        assert self._process.stdout
        self._process.stdout.close()

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def is_under_way(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def wait_until_begun(self, sign: str = "Connected", seconds: float = LONGEST_START) -> None:
        """Wait until it says that it is connected, or something else, or has ended."""
        deadline = time.monotonic() + seconds
        while self.is_under_way and time.monotonic() < deadline:
            if sign in self.said:
                return
            time.sleep(0.01)

    @property
    def said(self) -> str:
        """What it has said until now."""
        return (self._folder / f"{self._name}.err").read_text(errors="replace")

    @property
    def words(self) -> dict[str, str]:
        """The words that it has reported until now, with their reasons, by source."""
        return reported(self._folder / f"{self._name}.report")

    def ask(self) -> str:
        """Pause it and have it go on; return the line in which it says how it stands."""
        for answer in PAUSED_AND_RESUMED:
            before = self.said.count(answer)
            self.send(signal.SIGUSR1)
            deadline = time.monotonic() + LONGEST_START
            while self.is_under_way and self.said.count(answer) == before and time.monotonic() < deadline:
                time.sleep(0.01)
        return self.said.rpartition(answer)[2].partition("\n")[0].strip()

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def close_output(self) -> None:
        """Have nobody read what it prints any more."""
        self._reader.kill()

    def beside(self, *command: str) -> Tool:
        """Start the same once more, or another command with the same rules."""
        arguments = (*command, *self._rules) if command else self.arguments
        self._others.append(Tool(self._folder, self._url, arguments, f"{self._name}-{len(self._others)}"))
        return self._others[-1]

    @property
    def _rules(self) -> list[str]:
        named = zip(self.arguments, self.arguments[1:], strict=False)
        return [text for name, value in named if name in ("--map", "--except") for text in (name, value)]

    def wait(self) -> list[Ended]:
        """Wait until it and what was started beside it have ended; return what came of them."""
        code: int | None
        try:
            code = self._process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            # Where it is, should be seen.
            self._process.send_signal(signal.SIGABRT)
            self._process.wait()
            code = None
        self._reader.wait()
        self._output.close()
        ended = time.monotonic()
        out, err = [(self._folder / f"{self._name}.{end}").read_text(errors="replace") for end in ("out", "err")]
        words = reported(self._folder / f"{self._name}.report")
        own = Ended(self.arguments, code, out, err, words, self._began, ended)
        return [own, *(each for other in self._others for each in other.wait())]


def reported(file: Path) -> dict[str, str]:
    """Return the words of a report, with their reasons, by source: of what there is, and can be read."""
    if not file.exists():
        return {}
    words = {}
    for line in file.read_text(errors="replace").splitlines():
        with suppress(json.JSONDecodeError):
            content = json.loads(line)
            words[content["source"]] = " ".join((content["word"], content.get("reason", ""))).strip()
    return words


def run(folder: Path, url: str, arguments: Sequence[str], name: str) -> Ended:
    """Run a command line to its end."""
    return Tool(folder, url, arguments, name).wait()[0]
