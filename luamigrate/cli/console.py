"""The standard streams: printing to them, also where nobody reads any more."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from luamigrate.model.errors import Error

if TYPE_CHECKING:
    from rich.console import Console


class _Steady:
    """A stream that is silent once nobody reads it any more: printing must never stop the copying."""

    def __init__(self, stream: TextIO) -> None:
        self.problem: OSError | None = None
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._abandon(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._abandon(error)

    def finish(self) -> None:
        """Flush. Raises OSError where something was lost, unless there was no reader."""
        self.flush()
        if self.problem and not isinstance(self.problem, BrokenPipeError):
            raise self.problem

    def _abandon(self, error: OSError) -> None:
        self.problem = error
        # The interpreter flushes again at its end: that must not fail either.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def console_on(stream: TextIO) -> Console:
    """Return a console that prints lines on a stream unchanged."""
    from rich.console import Console  # noqa: PLC0415  # it takes a while, and help needs none of it

    return Console(file=_Steady(stream), markup=False, highlight=False, emoji=False, soft_wrap=True)  # type: ignore[arg-type]


def prepare_streams() -> None:
    """Make stdout and stderr accept any text, and survive being closed."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A replaced character beats a traceback where the terminal cannot show a key's name.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _open_closed_streams() -> None:
    # Open the null device in place of a closed stream, or a connection would get its number.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", closefd=False))


def say(text: str) -> None:
    """Print a text on standard output."""
    console_on(sys.stdout).print(text)


_PASSWORD_IN_URL = re.compile(r"(:/+[^\s:@/']*:)(?!\*\*\*@)[^\s@']*@")


def fail(error: Error | str) -> None:
    """Print on standard error why the command ends, hiding the password of a URL in the wrong place."""
    shown = _PASSWORD_IN_URL.sub(r"\1***@", str(error))
    console_on(sys.stderr).print(f"luamigrate: {shown}")


def confirm(question: str) -> bool:
    """Ask on the terminal; anything but yes means no, Ctrl-C too."""
    console = console_on(sys.stderr)
    try:
        console.print(f"\n{question} [y/N] ", end="")
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        answer = ""
    if not answer.endswith("\n"):
        console.print()  # end the line of the question
    return answer.strip().lower() in ("y", "yes")


def can_ask() -> bool:
    """Tell whether a user at a terminal can be asked."""
    return sys.stdin.isatty()


def notice(text: str) -> None:
    """Print a line on standard error from within a signal handler."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"\nluamigrate: {text}\n".encode())


def print_document(content: dict[str, Any]) -> None:
    """Print the JSON document on standard output. Raises OSError where it is lost, though there is a reader."""
    stream = _Steady(sys.stdout)
    stream.write(json.dumps(content, indent=2) + "\n")
    stream.finish()


def flush() -> None:
    """Flush standard output. Raises OSError where something is lost, though there is a reader."""
    _Steady(sys.stdout).finish()
