"""The command line: parse, call, print, exit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Annotated

import typer

from luamigrate import __version__
from luamigrate.cli import console, demo, json_output, messages, options, settings
from luamigrate.cli.options import OnExisting
from luamigrate.cli.settings import StrictCommand
from luamigrate.cli.signals import Interruption
from luamigrate.migration.verbs import SETTLE_SECONDS, Operator, migrate, rollback, verify
from luamigrate.model.control import Control
from luamigrate.model.errors import Error, Exit, Refused, UsageError
from luamigrate.model.limits import Limits
from luamigrate.model.status import Command, Verdict, Word
from luamigrate.model.summary import Batch, Summary
from luamigrate.preflight import checks
from luamigrate.server.cluster import Deployment
from luamigrate.server.connection import ReconnectPolicy
from luamigrate.server.info import read_database_sizes

DEFAULT_URL = "redis://localhost:6379"
DEFAULTS = Limits()

app = typer.Typer(
    name="luamigrate",
    help="Give Redis keys new names by copying them inside the server. Sources are kept, nothing is overwritten.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line and exit with its code."""
    console.prepare_streams()
    try:
        code = app(standalone_mode=False)
        console.flush()
    except typer.TyperException as error:
        console.fail(error.format_message())
        code = error.exit_code
    except Error as error:
        console.fail(error)
        code = error.exit_code
    except OSError as error:  # help or version onto a full disk
        console.fail(f"cannot write: {error.strerror}")
        code = Exit.FAILED
        with suppress(OSError):
            console.flush()
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _start(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        console.say(f"luamigrate {__version__}")
        raise typer.Exit(Exit.OK)
    if ctx.invoked_subcommand is None:
        console.say(ctx.get_help())
        raise typer.Exit(Exit.USAGE)


@app.command(cls=StrictCommand)
def run(
    ctx: typer.Context,
    url: options.Url = DEFAULT_URL,
    password_file: options.PasswordFile = None,
    tls_ca: options.TlsCa = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_insecure: options.TlsInsecure = False,
    dry_run: options.DryRun = False,
    validate: options.Validate = True,
    maps: options.Maps = None,
    kind: options.Kind = None,
    plan_file: options.PlanFile = None,
    on_existing: options.Existing = OnExisting.SKIP,
    fill_queues: options.FillQueues = False,
    settle: options.Settle = SETTLE_SECONDS,
    ignore_expiry: options.IgnoreExpiry = False,
    allow_empty: options.AllowEmpty = False,
    batch_size: options.BatchSize = DEFAULTS.batch_size,
    max_pause: options.MaxPause = DEFAULTS.max_pause,
    max_rate: options.MaxRate = None,
    max_lag: options.MaxLag = None,
    wait_replicas: options.WaitReplicas = DEFAULTS.wait_replicas,
    allow_long_pause: options.AllowLongPause = DEFAULTS.allow_long_pause,
    patience: options.Patience = DEFAULTS.patience,
    ignore_check: options.IgnoreCheck = None,
    json: options.Json = False,
    report_file: options.Report = None,
    report_all: options.ReportAll = False,
    show_values: options.ShowValues = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Copy, compare and sum up.

    Without --map or --plan, the built-in plan: job:* to step:*, and jobs:active, jobs:completed, jobs:failed and
    jobs:pending to their steps: names.
    """
    fills = on_existing is OnExisting.FILL
    if fills and not validate:
        named = settings.origin(ctx, "validate").replace("--validate", "--no-validate")
        raise UsageError(f"--on-existing fill always compares: it excludes {named}")
    if fill_queues and not fills:
        raise UsageError("--fill-queues belongs to --on-existing fill")
    summary = Summary(
        settings.plan(ctx), Command.RUN, dry_run=dry_run, validated=validate, allow_empty=allow_empty, fills=fills
    )
    if fills and not settle:
        summary.warnings.append(messages.FILLS_AT_ONCE)
    work = partial(
        migrate,
        dry_run=dry_run,
        validate=validate,
        on_existing="fill" if fills else "skip",
        fill_queues=fill_queues,
        settle=settle,
        ignore_expiry=ignore_expiry,
    )
    return _carry_out(ctx, summary, work, _open_report(ctx))


@app.command("verify", cls=StrictCommand)
def run_verify(
    ctx: typer.Context,
    url: options.Url = DEFAULT_URL,
    password_file: options.PasswordFile = None,
    tls_ca: options.TlsCa = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_insecure: options.TlsInsecure = False,
    maps: options.Maps = None,
    kind: options.Kind = None,
    plan_file: options.PlanFile = None,
    sample: options.Sample = None,
    extra: options.Extra = False,
    settle: options.Settle = SETTLE_SECONDS,
    ignore_expiry: options.IgnoreExpiry = False,
    allow_empty: options.AllowEmpty = False,
    batch_size: options.BatchSize = DEFAULTS.batch_size,
    max_pause: options.MaxPause = DEFAULTS.max_pause,
    max_rate: options.MaxRate = None,
    allow_long_pause: options.AllowLongPause = DEFAULTS.allow_long_pause,
    patience: options.Patience = DEFAULTS.patience,
    ignore_check: options.IgnoreCheck = None,
    json: options.Json = False,
    report_file: options.Report = None,
    report_all: options.ReportAll = False,
    show_values: options.ShowValues = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Compare every source with its target; write nothing.

    A replica will do. The rules are those of run.
    """
    summary = Summary(settings.plan(ctx), Command.VERIFY, allow_empty=allow_empty, sample=sample, extra_sought=extra)
    work = partial(verify, settle=settle, ignore_expiry=ignore_expiry, sample=sample, extra=extra)
    return _carry_out(ctx, summary, work, _open_report(ctx))


@app.command("rollback", cls=StrictCommand)
def run_rollback(
    ctx: typer.Context,
    url: options.Url = DEFAULT_URL,
    password_file: options.PasswordFile = None,
    tls_ca: options.TlsCa = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_insecure: options.TlsInsecure = False,
    dry_run: options.DryRun = False,
    maps: options.Maps = None,
    kind: options.Kind = None,
    plan_file: options.PlanFile = None,
    extra: options.Extra = False,
    settle: options.Settle = SETTLE_SECONDS,
    allow_empty: options.AllowEmpty = False,
    yes: options.Yes = False,
    batch_size: options.BatchSize = DEFAULTS.batch_size,
    max_pause: options.MaxPause = DEFAULTS.max_pause,
    max_rate: options.MaxRate = None,
    max_lag: options.MaxLag = None,
    wait_replicas: options.WaitReplicas = DEFAULTS.wait_replicas,
    allow_long_pause: options.AllowLongPause = DEFAULTS.allow_long_pause,
    patience: options.Patience = DEFAULTS.patience,
    ignore_check: options.IgnoreCheck = None,
    json: options.Json = False,
    report_file: options.Report = None,
    report_all: options.ReportAll = False,
    show_values: options.ShowValues = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> int:
    """Delete the targets that equal their source.

    Whoever made them: what equals its source, and whose source lives as long, is not lost with it. All others are kept
    and reported. The rules are those of run. With its sides exchanged (--map 'step:*=job:*') a rule deletes the old
    names that have an equal copy, which completes a move.
    """
    if not (yes or dry_run or console.can_ask()):
        raise UsageError(
            "rollback deletes keys and asks before it does: without a terminal it needs --yes (or --dry-run)"
        )
    plan, key_report = settings.plan(ctx), _open_report(ctx)
    work = partial(rollback, settle=settle, extra=extra)
    if not (yes or dry_run):
        first = Summary(plan, Command.ROLLBACK, dry_run=True, asks=True, allow_empty=allow_empty, extra_sought=extra)
        with Interruption() as interruption:
            rewritable = key_report if key_report and key_report.can_start_again else None
            server = _perform(ctx, first, partial(work, dry_run=True), rewritable, interruption)
        if not _agreed(first, server):
            return _conclude(ctx, first, server, key_report)
        if key_report:
            key_report.start_again()
    summary = Summary(plan, Command.ROLLBACK, dry_run=dry_run, allow_empty=allow_empty, extra_sought=extra)
    return _carry_out(ctx, summary, partial(work, dry_run=dry_run), key_report, introduce=yes or dry_run)


def _agreed(first: Summary, server: Deployment | None) -> bool:
    """Ask whether to delete what a first look found; there must be something."""
    if first.interrupted or first.error or not first.totals.counts[Word.SAME]:
        return False
    with Interruption():  # at the prompt every signal means no
        first.interrupted = not console.confirm(messages.question(first, server))
    if first.interrupted:
        console.fail("nothing was deleted")
    return not first.interrupted


def _open_report(ctx: typer.Context) -> console.KeyReport | None:
    """Open the report file before anything is done, so that what cannot be written is known by then."""
    path, every_key = ctx.params["report_file"], ctx.params["report_all"]
    settings.refuse_nonsense(ctx)
    if ctx.params["quiet"] and ctx.params["verbose"]:
        raise UsageError("--quiet and --verbose contradict each other")
    for name in ("report_all", "show_values"):
        if ctx.params[name] and not path:
            raise UsageError(f"--{name.replace('_', '-')} needs --report FILE")
    return console.KeyReport(path, every_key=every_key) if path else None


def _carry_out(
    ctx: typer.Context,
    summary: Summary,
    work: Callable[..., Iterator[Batch]],
    key_report: console.KeyReport | None,
    *,
    introduce: bool = True,
) -> Exit:
    """Do the work, tell about it as the options say, and return the exit code."""
    with Interruption() as interruption:
        server = _perform(ctx, summary, work, key_report, interruption, introduce=introduce)
        return _conclude(ctx, summary, server, key_report)


def _conclude(
    ctx: typer.Context, summary: Summary, server: Deployment | None, key_report: console.KeyReport | None
) -> Exit:
    if key_report:
        key_report.close()
    if ctx.params["json"]:
        console.print_document(json_output.document(summary, server))
    return summary.exit_code


def _perform(
    ctx: typer.Context,
    summary: Summary,
    work: Callable[..., Iterator[Batch]],
    key_report: console.KeyReport | None,
    interruption: Interruption,
    *,
    introduce: bool = True,
) -> Deployment | None:
    """Do the work into `summary` and tell about it; return the server, if it answered."""
    chosen = ctx.params
    narrator = console.Narrator(summary, to_stderr=chosen["json"], quiet=chosen["quiet"], verbose=chosen["verbose"])
    if introduce:
        narrator.begin(settings.configuration(ctx, summary.plan))
    interruption.status = partial(messages.status, summary)
    work = partial(
        work,
        limits=settings.limits(ctx),
        ignored_checks=settings.ignored_checks(ctx),
        show_values=chosen["show_values"],
        every_key=chosen["verbose"] or chosen["report_all"],
    )
    summary.warnings += settings.warnings(ctx)
    access = partial(settings.access(ctx), waiting=settings.waiting(ctx, narrator.waiting))
    return _work(access, summary, work, narrator, key_report, interruption)


def _work(
    access: Callable[[], Deployment],
    summary: Summary,
    work: Callable[..., Iterator[Batch]],
    narrator: console.Narrator,
    key_report: console.KeyReport | None,
    interruption: Interruption,
) -> Deployment | None:
    """Do the work into `summary`, errors and interruptions included, and tell about it."""
    server: Deployment | None = None
    databases: dict[str, int] | None = None
    began = time.monotonic()

    def stop() -> bool:
        return interruption() or bool(key_report and key_report.problem)

    operator = Operator(stop=stop, held=lambda: interruption.held, tell=narrator.waiting)
    try:
        narrator.warn(summary.warnings)
        with access() as server:
            narrator.connected(server)
            interruption.patient = True
            for batch in work(server, summary.plan, operator=operator):
                summary.add(batch)
                narrator.batch(batch)
                if key_report:
                    key_report.add(batch)
            if not summary.totals.found:
                databases = read_database_sizes(server.primaries)
    except Error as error:
        summary.error = error
    except KeyboardInterrupt:
        summary.interrupted = True
    interruption.over = True
    summary.interrupted |= interruption()
    summary.seconds = time.monotonic() - began
    narrator.close_section()
    late = messages.late_warnings(summary)
    summary.warnings += late
    narrator.warn(late)
    if key_report:
        summary.error = summary.error or key_report.problem
    if summary.error:
        console.fail(summary.error)
    if summary.began or not summary.error:
        narrator.end(databases, key_report.name if key_report and not key_report.problem else None)
    return server


@app.command("check", cls=StrictCommand)
def run_check(
    ctx: typer.Context,
    url: options.Url = DEFAULT_URL,
    password_file: options.PasswordFile = None,
    tls_ca: options.TlsCa = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_insecure: options.TlsInsecure = False,
    maps: options.Maps = None,
    kind: options.Kind = None,
    plan_file: options.PlanFile = None,
    on_existing: options.Existing = OnExisting.SKIP,
    allow_empty: options.AllowEmpty = False,
    patience: options.Patience = DEFAULTS.patience,
    ignore_check: options.IgnoreCheck = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Look whether run could work here; write nothing.

    Server, permissions, memory, saves, clients that wait, targets that are there. Exit code 4 where run would refuse,
    with the name to give to --ignore-check; 3 where no key matches any rule. The rules are those of run.
    """
    access, ignored, fills = settings.access(ctx), settings.ignored_checks(ctx), on_existing is OnExisting.FILL
    summary = Summary(settings.plan(ctx), Command.CHECK, warnings=settings.warnings(ctx))
    narrator = console.Narrator(summary, to_stderr=json, quiet=quiet, verbose=False)
    narrator.begin(settings.configuration(ctx, summary.plan))
    narrator.warn(summary.warnings)
    server: Deployment | None = None
    with Interruption():
        try:
            with access(waiting=settings.waiting(ctx, narrator.waiting)) as server:
                server.reconnect_by(ReconnectPolicy(patience=patience, control=Control(tell=narrator.waiting)))
                narrator.connected(server)
                summary.findings = checks.run_checks(
                    server,
                    summary.plan,
                    Command.RUN,
                    fills=fills,
                    ignored=ignored,
                    warns_of_nothing=not allow_empty,
                )
                narrator.findings(summary.findings)
                if any(finding.verdict is Verdict.REFUSED for finding in summary.findings):
                    raise Refused(messages.refused(summary.findings))
        except Error as error:
            summary.error = error
            console.fail(error)
        except KeyboardInterrupt:
            summary.interrupted = True
    return _conclude(ctx, summary, server, None)


@app.command("demo")
def run_demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server up until Ctrl-C, and print its URL.")] = False,
) -> int:
    """Show it on a throwaway server.

    Starts one, fills it with sample jobs, and goes through run, verify and rollback.
    """
    return demo.show(keep=keep)
