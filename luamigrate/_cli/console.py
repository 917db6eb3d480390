"""Saying it: human lines, progress, the JSON document, the report file.

The only module that prints. Human lines go to standard output, or to standard error where the JSON
document has it.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from luamigrate.cluster import Deployment
from luamigrate.errors import Error, UsageError, printable
from luamigrate.info import read_key_count
from luamigrate.outcome import Batch, Finding, KeyOutcome, Stage, Summary, Tally, Verdict
from luamigrate.rules import Rule
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from luamigrate import documents, wording

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_FRAMES = 0.1
UNCLEAN_KEYS_SHOWN = 10


class _Steady:
    """A stream that goes quiet when nobody reads it any more: printing must never stop the copying."""

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
        """Flush. Raises OSError where something was lost, unless nobody was there to read it."""
        self.flush()
        if self.problem and not isinstance(self.problem, BrokenPipeError):
            raise self.problem

    def _abandon(self, error: OSError) -> None:
        self.problem = error
        # The interpreter flushes once more when it ends; that too must have somewhere to go.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _console(stream: TextIO) -> Console:
    return Console(file=_Steady(stream), markup=False, highlight=False, emoji=False, soft_wrap=True)  # type: ignore[arg-type]


def prepare_streams() -> None:
    """Make the standard streams fit for whatever is printed, and be it nowhere."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        # A replaced character beats a traceback where the terminal cannot show a key's name.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _open_closed_streams() -> None:
    # Lead to nowhere what was closed, or a connection would get its number.
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", closefd=False))


def say(text: str) -> None:
    """Print a text on standard output."""
    _console(sys.stdout).print(text)


def fail(error: Error | str) -> None:
    """Print why the command ends, on standard error."""
    _console(sys.stderr).print(f"luamigrate: {error}")


def confirm(question: str) -> bool:
    """Ask on the terminal; anything but yes is no, Ctrl-C included."""
    console = _console(sys.stderr)
    try:
        console.print(f"\n{question} [y/N] ", end="")
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        answer = ""
    if not answer.endswith("\n"):
        console.print()  # nobody has ended the question's line
    return answer.strip().lower() in ("y", "yes")


def can_ask() -> bool:
    """Tell whether somebody is there to be asked."""
    return sys.stdin.isatty()


def notice(text: str) -> None:
    """Print a line on standard error from within a signal handler."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"\nluamigrate: {text}\n".encode())


def print_document(content: dict[str, Any]) -> None:
    """Print the JSON document on standard output. Raises OSError where it is lost, though somebody wanted it."""
    stream = _Steady(sys.stdout)
    stream.write(json.dumps(content, indent=2) + "\n")
    stream.finish()


def flush() -> None:
    """Flush standard output. Raises OSError where something is lost, though somebody wanted it."""
    _Steady(sys.stdout).finish()


class KeyReport:
    """The report file: a JSON line per key that is not clean, or per key.

    Raises UsageError where it cannot be opened. What cannot be written later is the `problem`: what has been done by
    then must be counted all the same.
    """

    def __init__(self, path: Path, *, every_key: bool) -> None:
        self.problem: Error | None = None
        self._every_key = every_key
        self.name = printable(os.fsencode(path))
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--report: cannot write {self.name}: {error.strerror}") from None

    def add(self, batch: Batch) -> None:
        """Write the lines of a batch's keys; one that begins again takes back those before it."""
        if batch.began_again:
            self.start_again()
        if self.problem:
            return
        try:
            for key in batch.keys:
                if self._every_key or not key.clean:
                    self._file.write(json.dumps(documents.key_document(key), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            self.problem = Error(f"--report: cannot write {self.name}: {error.strerror}")

    @property
    def can_start_again(self) -> bool:
        """Whether what has been written can be taken back: not where it goes into a pipe."""
        return self._file.seekable()

    def start_again(self) -> None:
        """Forget the lines that have been written."""
        if self.can_start_again:
            self._file.seek(0)
            self._file.truncate()

    def close(self) -> None:
        """Finish the file."""
        with suppress(OSError):
            self._file.close()


class Narrator:
    """Tells people what happens, as it happens; what has been counted so far stands in the summary."""

    def __init__(self, summary: Summary, *, to_stderr: bool, quiet: bool, verbose: bool) -> None:
        self._console = _console(sys.stderr if to_stderr else sys.stdout)
        self._summary, self._quiet, self._verbose = summary, quiet, verbose
        self._section: _Section | None = None
        self._found_again = Tally()
        self._unclean_seen = 0
        self._database_size: int | None = None
        self._waited_for, self._told_waiting = "", -math.inf

    def begin(self, settings: Sequence[tuple[str, str, str]]) -> None:
        """Print the heading and the configuration: name, value, and where that came from."""
        if self._quiet:
            return
        width = max(len(value) for _, value, _ in settings)
        lines = [f"  {name:<14} {value:<{width}}  ({origin})" for name, value, origin in settings]
        if self._summary.asks:
            lines += ["", "First a look: nothing is deleted before you agree."]
        self._print(f"luamigrate {self._summary.command}", "", *lines, "")

    def connected(self, server: Deployment) -> None:
        """Say who answered."""
        who = server.identity
        self._database_size = read_key_count(server.primaries)
        if not self._quiet:
            self._print(f"Connected to {who.product} {who.version} ({who.mode}) at {server.whereabouts}")

    def findings(self, findings: Sequence[Finding]) -> None:
        """Print what the checks have found; with --quiet only what they object to."""
        shown = [finding for finding in findings if finding.verdict is not Verdict.OK or not self._quiet]
        self._print("", *(f"  {wording.finding_line(finding)}" for finding in shown), "")
        if all(finding.verdict is not Verdict.REFUSED for finding in findings):
            self._print(wording.verdict(findings))

    def waiting(self, reason: str) -> None:
        """Say what is waited for: at once when it begins, and every few seconds."""
        what, now = reason.partition(":")[0], time.monotonic()
        if what == self._waited_for and now - self._told_waiting < SECONDS_BETWEEN_LINES:
            return
        self._waited_for, self._told_waiting = what, now
        self._print(f"  {reason}")

    def warn(self, warnings: Sequence[str]) -> None:
        """Print warnings, with --quiet too."""
        self._print(*(f"Warning: {text}" for text in warnings))

    def batch(self, batch: Batch) -> None:
        """Tell about a batch that has been counted; one of another rule than before opens that rule's section."""
        self._waited_for = ""
        self.warn(batch.warnings)
        if batch.began_again:
            self.warn(self._summary.warnings[-1:])
        if self._quiet:
            return
        if batch.stage is not Stage.AGAIN:
            self._enter_section(batch.rule, batch.stage)
        else:
            self._look_again(batch)
        self._tell_keys(batch.keys)
        if batch.big:
            self._tell_big(*batch.big)
        elif self._section and batch.stage is not Stage.AGAIN:
            self._section.progress(batch.scanned, self._database_size)

    def _tell_big(self, source: bytes, part: float) -> None:
        now = time.monotonic()
        if now - self._told_waiting >= SECONDS_BETWEEN_LINES:
            self._told_waiting = now
            self._print(f"  {wording.big_line(source, part)}")

    def _look_again(self, batch: Batch) -> None:
        """Say that there are second looks, once the scan is over, and remember what they find."""
        if batch.scanned and self._section:
            self.close_section()
            self._print("", wording.second_look(self._summary.totals.waiting))
        if not self._section:
            self._found_again.add(batch.tally)

    def _enter_section(self, rule: Rule, stage: Stage) -> None:
        if self._section and self._section.rule is rule and self._section.stage is stage:
            return
        self.close_section()
        plan = self._summary.plan
        self._print("", f"[{plan.index(rule) + 1}/{len(plan)}] {wording.section_title(rule, stage)}")
        self._section = _Section(rule, stage, self._summary, self._console)

    def _tell_keys(self, keys: Sequence[KeyOutcome]) -> None:
        for key in keys:
            self._unclean_seen += not key.clean
            if self._verbose or (not key.clean and self._unclean_seen <= UNCLEAN_KEYS_SHOWN):
                self._print(f"  {wording.key_line(key)}")

    def close_section(self) -> None:
        """Print the line that ends a rule's section or the second looks, and take the progress bar away."""
        if self._section:
            self._section.close()
        elif self._found_again.words:
            self._print(f"  {wording.second_look_result(self._found_again)}")
            self._found_again = Tally()
        self._section = None

    def end(self, databases: dict[str, int] | None, report: str | None) -> None:
        """Print the summary and the lines that say what it means, and where the report is."""
        closing = wording.closing_lines(self._summary, databases, report)
        self._print("", *wording.summary_lines(self._summary), "", *closing)
        hidden = self._unclean_seen - UNCLEAN_KEYS_SHOWN
        if hidden > 0 and not self._verbose and not self._quiet:
            self._print(f"{hidden:,} more such keys are not shown above.")

    def _print(self, *lines: str) -> None:
        for line in lines:
            self._console.print(line)


class _Section:
    """The progress of one rule, and the line that ends it."""

    def __init__(self, rule: Rule, stage: Stage, summary: Summary, console: Console) -> None:
        self.rule, self.stage = rule, stage
        self._console, self._summary, self._tally = console, summary, summary.by_rule[rule]
        self._began = self._told = time.monotonic()
        self._found = 0
        self._bar = _progress_bar(console) if console.is_terminal and rule.source.has_star else None
        if self._bar:
            self._bar.start()

    def progress(self, scanned: float, database: int | None) -> None:
        now, found = time.monotonic(), self._tally.found
        since = now - self._told
        if since < (SECONDS_BETWEEN_FRAMES if self._bar else SECONDS_BETWEEN_LINES):
            return
        rate = (found - self._found) / since
        self._told, self._found = now, found
        seconds = now - self._began
        left = seconds / scanned - seconds if scanned else None
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=scanned, found=found, rate=rate)
            self._bar.refresh()
        else:
            self._console.print("  " + wording.progress_line(scanned, database, found, rate, left))

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
        self._console.print(f"  {wording.section_line(self.rule, self.stage, self._summary)}")


def _progress_bar(console: Console) -> Progress:
    columns = (
        TextColumn(" "),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[found]:,} keys, {task.fields[rate]:,.0f} keys/s, left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, auto_refresh=False, transient=True)
    bar.add_task("", total=1.0, found=0, rate=0.0)
    return bar
