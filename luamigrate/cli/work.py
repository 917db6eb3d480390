"""What each command does: connect, go through the plan, tell about it, and end with an exit code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from luamigrate.cli import console, control_socket, cover_messages, json_output, messages, summary_messages
from luamigrate.cli.control_words import Words
from luamigrate.cli.key_report import KeyReport
from luamigrate.cli.progress import Progress
from luamigrate.cli.reporter import ConsoleReporter
from luamigrate.cli.settings import Settings
from luamigrate.cli.signals import Interruption
from luamigrate.migration.cover import search
from luamigrate.migration.drift_watcher import watch
from luamigrate.migration.execute import execute
from luamigrate.migration.follow import follow_plan
from luamigrate.migration.options import FollowOptions, Options
from luamigrate.migration.verbs import Compare, Remove, Verb, copying
from luamigrate.model.control import Control
from luamigrate.model.errors import Error, Exit, Refused
from luamigrate.model.status import Command, Finding, Verdict, Word
from luamigrate.model.summary import Batch, Summary
from luamigrate.preflight import checks
from luamigrate.server.connection import ReconnectPolicy
from luamigrate.server.deployment import Deployment
from luamigrate.server.info import read_database_sizes


def carry_out(settings: Settings) -> Exit:
    """Do what a command is for, and return its exit code.

    Raises UsageError where the report cannot be opened, or nobody can listen at the path for control.
    """
    if settings.command is Command.CHECK:
        return _check(settings)
    if settings.control_path:
        # A second follow, started by mistake, is not to empty the report of the first one.
        control_socket.check(settings.control_path)
    # Opened before anything is done, so that what cannot be written is known by then.
    output = settings.output
    key_report = KeyReport(output.report_file, every_key=output.report_all) if output.report_file else None
    has_asked = settings.asks
    if has_asked:
        code = _ask(settings, key_report)
        if code is not None:
            return code
        settings = replace(settings, asks=False)
    summary = _summary(settings)
    with Interruption() as interruption, _controlled(settings, interruption) as progress:
        server = _perform(settings, summary, key_report, interruption, introduce=not has_asked, progress=progress)
        return _conclude(settings, summary, server, key_report)


@contextmanager
def _controlled(settings: Settings, interruption: Interruption) -> Iterator[Progress | None]:
    """Let others control the work, if the user wants that; yield what is to be told how far it is."""
    if not settings.control_path:
        yield None
        return
    progress = Progress(settings.command)
    words = Words(settings.command, interruption, progress, settings.limits, cuts_over=settings.cutover is not None)
    with control_socket.listening(settings.control_path, words.answer):
        try:
            yield progress
        finally:
            interruption.wishes.close("it could not go on")


def _ask(settings: Settings, key_report: KeyReport | None) -> Exit | None:
    """Find out first what would be deleted, and ask; return the exit code where that is all."""
    first_check = replace(settings, dry_run=True)
    first = _summary(first_check)
    with Interruption() as interruption:
        rewritable = key_report if key_report and key_report.can_start_again else None
        server = _perform(first_check, first, rewritable, interruption, introduce=True)
    if not _agreed(first, server):
        return _conclude(settings, first, server, key_report)
    if key_report:
        key_report.start_again()
    return None


def _agreed(first: Summary, server: Deployment | None) -> bool:
    """Ask whether to delete what a first check found; there must be something."""
    if first.interrupted or first.error or not first.totals.counts[Word.SAME]:
        return False
    with Interruption():  # at the prompt every signal means no
        first.interrupted = not console.confirm(messages.question(first, server))
    if first.interrupted:
        console.fail("nothing was deleted")
    return not first.interrupted


def _conclude(
    settings: Settings, summary: Summary, server: Deployment | None, key_report: KeyReport | None = None
) -> Exit:
    """Finish what programs read, and return the exit code."""
    if key_report:
        key_report.close()
    if settings.output.json:
        console.print_document(json_output.document(summary, server))
    return summary.exit_code


def _summary(settings: Settings) -> Summary:
    return Summary(
        settings.plan,
        settings.command,
        dry_run=settings.dry_run,
        validated=settings.comparison.validate,
        allow_empty=settings.allow_empty,
        fills=bool(settings.comparison.filling),
        sample=settings.sample,
        asks=settings.asks,
        extra_sought=settings.extra,
        warnings=list(settings.warnings),
    )


def _reporter(settings: Settings, summary: Summary) -> ConsoleReporter:
    output = settings.output
    return ConsoleReporter(summary, to_stderr=output.json, quiet=output.quiet, verbose=output.verbose)


def _perform(
    settings: Settings,
    summary: Summary,
    key_report: KeyReport | None,
    interruption: Interruption,
    *,
    introduce: bool,
    progress: Progress | None = None,
) -> Deployment | None:
    """Do the work into `summary`, errors and interruptions included; return the server, if it answered."""
    reporter = _reporter(settings, summary)
    if introduce:
        reporter.begin(settings.configuration)
    interruption.status = lambda: messages.status(summary)
    tell = _to_both(reporter.waiting, progress.waiting) if progress else reporter.waiting
    control = interruption.control(tell, lambda: bool(key_report and key_report.problem))
    server: Deployment | None = None
    databases: dict[str, int] | None = None
    began = time.monotonic()
    try:
        reporter.warn(summary.warnings)
        with settings.access.connect(control) as server:
            reporter.connected(server)
            interruption.patient = True
            for batch in _batches(settings, server, control):
                summary.add(batch)
                reporter.batch(batch)
                if progress:
                    progress.note(batch)
                if key_report:
                    key_report.add(batch)
            if not summary.totals.found and settings.command is not Command.FOLLOW:
                databases = read_database_sizes(server.primaries)
    except Error as error:
        summary.error = error
    except KeyboardInterrupt:
        summary.interrupted = True
    interruption.over = True
    why = "it was stopped" if interruption.asked or summary.interrupted else "its work is done"
    interruption.wishes.close(str(summary.error or why))
    # What goes on has no other end.
    summary.interrupted |= interruption.asked and not settings.goes_on
    summary.seconds = time.monotonic() - began
    _tell_end(summary, reporter, key_report, databases)
    return server


def _to_both(one: Callable[[str], None], other: Callable[[str], None]) -> Callable[[str], None]:
    def tell(reason: str) -> None:
        one(reason)
        other(reason)

    return tell


def _tell_end(
    summary: Summary, reporter: ConsoleReporter, key_report: KeyReport | None, databases: dict[str, int] | None
) -> None:
    """Tell what has come of it, now that all is counted."""
    reporter.close_section()
    late = summary_messages.late_warnings(summary)
    summary.warnings += late
    reporter.warn(late)
    if key_report:
        summary.error = summary.error or key_report.problem
    if summary.error:
        console.fail(summary.error)
    if summary.began or not summary.error:
        reporter.end(databases, key_report.name if key_report and not key_report.problem else None)


def _batches(settings: Settings, server: Deployment, control: Control) -> Iterator[Batch]:
    """Carry a command out."""
    if settings.command is Command.FOLLOW:
        return follow_plan(server, settings.plan, _follow_options(settings), control)
    verb = _verb(settings)
    if settings.follow and isinstance(verb, Compare):
        return watch(server, settings.plan, verb, _options(settings), control)
    return execute(server, settings.plan, verb, _options(settings), control)


def _follow_options(settings: Settings) -> FollowOptions:
    return FollowOptions(
        limits=settings.limits,
        settle=settings.settle,
        ignored_checks=settings.ignored_checks,
        every_key=False,
        dry_run=settings.dry_run,
        replace=settings.replace,
        allow_groups=settings.allow_groups,
        cutover=settings.cutover,
    )


def _verb(settings: Settings) -> Verb:
    """Return what is done with every pair."""
    match settings.command:
        case Command.VERIFY:
            return Compare(comparison=settings.comparison)
        case Command.ROLLBACK:
            verb: Verb = Remove(comparison=settings.comparison)
        case _:
            verb = copying(settings.comparison)
    return verb.rehearsal() if settings.dry_run else verb


def _options(settings: Settings) -> Options:
    """Return how that is carried out."""
    return Options(
        limits=settings.limits,
        settle=settings.settle,
        ignored_checks=settings.ignored_checks,
        every_key=settings.output.every_key,
        sample=settings.sample,
        extra=settings.extra,
        cover=settings.cover,
    )


def _check(settings: Settings) -> Exit:
    """Carry out the checks of a run, and tell what they find."""
    summary = Summary(settings.plan, Command.CHECK, allow_empty=settings.allow_empty, warnings=list(settings.warnings))
    reporter = _reporter(settings, summary)
    reporter.begin(settings.configuration)
    reporter.warn(summary.warnings)
    control = Control(tell=reporter.waiting)
    server: Deployment | None = None
    with Interruption():
        try:
            with settings.access.connect(control) as server:
                server.reconnect_by(ReconnectPolicy(patience=settings.limits.patience, control=control))
                reporter.connected(server)
                summary.findings = checks.run_checks(
                    server,
                    summary.plan,
                    Command.RUN,
                    fills=bool(settings.comparison.filling),
                    ignored=settings.ignored_checks,
                    warns_of_nothing=not settings.allow_empty,
                )
                summary.findings += _covered(settings, server, summary)
                reporter.findings(summary.findings)
                if any(finding.verdict is Verdict.REFUSED for finding in summary.findings):
                    raise Refused(messages.refused(summary.findings))
        except Error as error:
            summary.error = error
            console.fail(error)
        except KeyboardInterrupt:
            summary.interrupted = True
    return _conclude(settings, summary, server)


def _covered(settings: Settings, server: Deployment, summary: Summary) -> list[Finding]:
    """Search for keys that no rule takes, and return what is found under each pattern."""
    for pattern in settings.cover:
        for coverage in search(server, summary.plan, pattern, settings.limits, lambda: False):
            summary.cover(coverage)
    return cover_messages.findings(summary)
