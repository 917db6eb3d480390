"""What people see while a command works: lines, progress and the summary.

It goes to standard output, or to standard error where the JSON document has the former.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from luamigrate.cli import messages, summary_messages
from luamigrate.cli.console import console_on
from luamigrate.cli.follow_display import FollowDisplay
from luamigrate.model.rules import Rule
from luamigrate.model.status import Finding, KeyOutcome, Stage, Verdict
from luamigrate.model.summary import Batch, Summary, Tally
from luamigrate.server.deployment import Deployment
from luamigrate.server.info import read_key_count

if TYPE_CHECKING:
    from rich.progress import Progress

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_FRAMES = 0.1
UNCLEAN_KEYS_SHOWN = 10


class ConsoleReporter:
    """Prints what happens, as it happens; the counts are those of the summary."""

    def __init__(self, summary: Summary, *, to_stderr: bool, quiet: bool, verbose: bool) -> None:
        self._console = console_on(sys.stderr if to_stderr else sys.stdout)
        self._summary, self._quiet, self._verbose = summary, quiet, verbose
        self._numbers = {rule: number for number, rule in enumerate(summary.plan, 1)}
        self._section: _Section | None = None
        self._rechecked = Tally()
        self._period = self._shown = self._hidden = 0
        self._database_size: int | None = None
        self._waited_for, self._told_waiting = "", -math.inf
        self._following: FollowDisplay | None = None

    def begin(self, settings: Sequence[tuple[str, str, str]]) -> None:
        """Print the heading and the configuration: name, value and origin of each setting."""
        if self._quiet:
            return
        width = max(len(value) for _, value, _ in settings)
        lines = [f"  {name:<14} {value:<{width}}  ({origin})" for name, value, origin in settings]
        if self._summary.asks:
            lines += ["", "First a dry run: nothing is deleted before you agree."]
        self._print(f"luamigrate {self._summary.command}", "", *lines, "")

    def connected(self, server: Deployment) -> None:
        """Print which server answered."""
        who = server.identity
        self._database_size = read_key_count(server.primaries)
        if not self._quiet:
            self._print(f"Connected to {who.product} {who.version} ({who.mode}) at {server.whereabouts}")

    def findings(self, findings: Sequence[Finding]) -> None:
        """Print the findings of the checks; with --quiet only warnings and refusals."""
        shown = [finding for finding in findings if finding.verdict is not Verdict.OK or not self._quiet]
        self._print("", *(f"  {messages.finding_line(finding)}" for finding in shown), "")
        if all(finding.verdict is not Verdict.REFUSED for finding in findings):
            self._print(messages.verdict(findings))

    def waiting(self, reason: str) -> None:
        """Print what is waited for: at once when it begins, and then every few seconds."""
        what, now = reason.partition(":")[0], time.monotonic()
        if what == self._waited_for and now - self._told_waiting < SECONDS_BETWEEN_LINES:
            return
        self._waited_for, self._told_waiting = what, now
        self._print(f"  {reason}")

    def warn(self, warnings: Sequence[str]) -> None:
        """Print warnings, with --quiet too."""
        self._print(*(f"Warning: {text}" for text in warnings))

    def batch(self, batch: Batch) -> None:
        """Print news of a batch that has been counted; the first batch of a rule opens its section."""
        self._waited_for = ""
        self.warn(batch.warnings)
        if batch.restarted:
            self.warn(self._summary.warnings[-1:])
        if self._quiet:
            return
        if batch.followed or self._following or (batch.drift and batch.drift.is_complete):
            self._tell_following(batch)
            return
        if batch.coverage:
            self.close_section()
            return
        if batch.stage is not Stage.RECHECK:
            self._enter_section(batch.rule, batch.stage)
        else:
            self._recheck(batch)
        self._tell_keys(batch.keys)
        if batch.large:
            self._tell_large(*batch.large)
        elif self._section and batch.stage is not Stage.RECHECK:
            self._section.progress(batch.scanned, self._database_size)

    def _tell_following(self, batch: Batch) -> None:
        if not self._following:
            self.close_section()
            self._print("")
            self._following = FollowDisplay(self._console)
        self._tell_keys(batch.keys)
        if figures := batch.followed or batch.drift:
            self._print(*(f"  {step}" for step in self._following.new_steps(figures)))
            self._following.show(figures)
        if batch.large:
            self._tell_large(*batch.large)

    def _tell_large(self, source: bytes, done: float) -> None:
        self._tell_now_and_then(messages.large_line(source, done))

    def _tell_now_and_then(self, line: str) -> None:
        now = time.monotonic()
        if now - self._told_waiting >= SECONDS_BETWEEN_LINES:
            self._told_waiting = now
            self._print(f"  {line}")

    def _recheck(self, batch: Batch) -> None:
        """Announce the rechecks when the scan is over, and remember what they find."""
        if batch.scanned and self._section:
            self.close_section()
            self._print("", messages.recheck_line(self._summary.totals.waiting))
        if not self._section:
            self._rechecked.add(batch.tally)

    def _enter_section(self, rule: Rule, stage: Stage) -> None:
        if self._section and self._section.rule is rule and self._section.stage is stage:
            return
        self.close_section()
        title = f"[{self._numbers[rule]}/{len(self._numbers)}] {messages.section_title(rule, stage)}"
        if len(self._numbers) > summary_messages.MOST_RULES:
            self._tell_now_and_then(title)
            return
        self._print("", title)
        self._section = _Section(rule, stage, self._summary, self._console)

    def _tell_keys(self, keys: Sequence[KeyOutcome]) -> None:
        for key in keys:
            if self._verbose or (key.is_news and self._may_be_shown(key)):
                self._print(f"  {messages.key_line(key)}")

    def _may_be_shown(self, key: KeyOutcome) -> bool:
        """Tell whether there is room for a key: for the first few; where a comparison goes on, for a few at a time."""
        period = int((key.moment or 0) / 1000 // SECONDS_BETWEEN_LINES)
        if period != self._period:
            self._period, self._shown = period, 0
        self._shown += 1
        is_shown = self._shown <= UNCLEAN_KEYS_SHOWN
        self._hidden += not is_shown
        return is_shown

    def close_section(self) -> None:
        """Print the line that ends a rule's section or the rechecks, and remove the progress bar."""
        if self._following:
            self._following.close()
        if self._section:
            self._section.close()
        elif self._rechecked.words:
            self._print(f"  {messages.recheck_result(self._rechecked)}")
            self._rechecked = Tally()
        self._section = None

    def end(self, databases: dict[str, int] | None, report: str | None) -> None:
        """Print the summary, what it means, and where the report is."""
        closing = summary_messages.closing_lines(self._summary, databases, report, quiet=self._quiet)
        self._print("", *summary_messages.summary_lines(self._summary), "", *closing)
        if self._hidden and not self._quiet:
            self._print(f"{self._hidden:,} more such keys are not shown above.")

    def _print(self, *lines: str) -> None:
        for line in lines:
            self._console.print(line)


class _Section:
    """The progress of one rule, and the line that ends it."""

    def __init__(self, rule: Rule, stage: Stage, summary: Summary, console: Console) -> None:
        self.rule, self.stage = rule, stage
        self._console, self._summary = console, summary
        self._began = self._told = time.monotonic()
        self._found = 0
        self._bar = _progress_bar(console) if console.is_terminal and rule.source.varies else None
        if self._bar:
            self._bar.start()

    def progress(self, scanned: float, database: int | None) -> None:
        now, found = time.monotonic(), self._summary.by_rule[self.rule].found
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
            self._console.print("  " + messages.progress_line(scanned, database, found, rate, left))

    def close(self) -> None:
        if self._bar:
            self._bar.stop()
        self._console.print(f"  {messages.section_line(self.rule, self.stage, self._summary)}")


def _progress_bar(console: Console) -> Progress:
    from rich import progress  # noqa: PLC0415  # it takes a while, and most runs go without a bar

    columns = (
        progress.TextColumn(" "),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TextColumn("{task.fields[found]:,} keys, {task.fields[rate]:,.0f} keys/s, left"),
        progress.TimeRemainingColumn(),
    )
    bar = progress.Progress(*columns, console=console, auto_refresh=False, transient=True)
    bar.add_task("", total=1.0, found=0, rate=0.0)
    return bar
