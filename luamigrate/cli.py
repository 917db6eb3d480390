"""The command line: parse, call, print, exit."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from luamigrate import __version__, checks, demo, report, rules, wording
from luamigrate.errors import Error, Exit, UsageError, printable
from luamigrate.migrate import LARGEST_BATCH, migrate
from luamigrate.outcome import Summary
from luamigrate.servers import Server, connect, read_database_sizes, redacted
from luamigrate.signals import Interruption

app = typer.Typer(
    name="luamigrate",
    help="Give Redis keys new names by copying them inside the server. Sources are kept, nothing is overwritten.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class _StrictCommand(TyperCommand):
    """Takes no blank or odd value from the environment for an unset one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        for option in self.params:
            name = option.envvar
            text = os.environ.get(name) if isinstance(name, str) else None
            if text is None or _source(ctx, option.name) == "COMMANDLINE":
                continue
            if not text.strip():
                raise UsageError(f"{name} is set but blank: give it a value or unset it")
            if getattr(option, "is_flag", False) and text.lower() not in ("true", "false"):
                raise UsageError(f"{name} must be true or false, not '{printable(os.fsencode(text))}'")
        return rest


def main() -> None:
    """Run the command line and exit with its code."""
    report.prepare_streams()
    try:
        code = app(standalone_mode=False)
        report.flush()
    except typer.TyperException as error:
        report.fail(error.format_message())
        code = error.exit_code
    except Error as error:
        report.fail(error)
        code = error.exit_code
    except OSError as error:  # help or version onto a full disk
        report.fail(f"cannot write: {error.strerror}")
        code = Exit.FAILED
        with suppress(OSError):
            report.flush()
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    sys.exit(code)


@app.callback(invoke_without_command=True)
def _start(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        report.say(f"luamigrate {__version__}")
        raise typer.Exit(Exit.OK)
    if ctx.invoked_subcommand is None:
        report.say(ctx.get_help())
        raise typer.Exit(Exit.USAGE)


@app.command(cls=_StrictCommand)
def run(
    ctx: typer.Context,
    url: Annotated[
        str,
        typer.Option(
            envvar="REDIS_URL",
            metavar="URL",
            help="The server: redis://[user:password@]host[:port][/database], rediss://, unix://.",
        ),
    ] = "redis://localhost:6379",
    dry_run: Annotated[
        bool, typer.Option("--dry-run/--no-dry-run", envvar="DRY_RUN", help="Say what would happen; write nothing.")
    ] = False,
    batch_size: Annotated[
        int,
        typer.Option(
            envvar="BATCH_SIZE", metavar="N", min=1, max=LARGEST_BATCH, help="The most pairs one script gets."
        ),
    ] = 100,
    validate: Annotated[
        bool,
        typer.Option("--validate/--no-validate", envvar="VALIDATE_COPIES", help="Compare each copy with its source."),
    ] = True,
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="SRC=DST", help="A rule, e.g. 'rq:job:*=q:job:*'. Repeatable."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="The type of the keys of --map: hash, set or zset.")
    ] = None,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", envvar="LUAMIGRATE_PLAN", metavar="FILE", help="Rules from a TOML file.")
    ] = None,
    ignore_expiry: Annotated[
        bool,
        typer.Option(
            "--ignore-expiry/--no-ignore-expiry",
            envvar="IGNORE_EXPIRY",
            help="Call equal values the same even if they expire at other times.",
        ),
    ] = False,
    allow_empty: Annotated[
        bool,
        typer.Option(
            "--allow-empty/--no-allow-empty", envvar="ALLOW_EMPTY", help="Exit 0 even if no key matches any rule."
        ),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document; human lines go to stderr.")] = False,
    report_file: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write a JSON line per key that is not clean to FILE."),
    ] = None,
    report_all: Annotated[bool, typer.Option("--report-all", help="Write a line per key to the report.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the summary.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print a line per key.")] = False,
) -> int:
    """Copy, compare and sum up.

    Without --map or --plan, the built-in plan: job:* to step:*, and jobs:active, jobs:completed, jobs:failed and
    jobs:pending to their steps: names.
    """
    if quiet and verbose:
        raise UsageError("--quiet and --verbose contradict each other")
    if report_all and not report_file:
        raise UsageError("--report-all needs --report FILE")
    plan = _plan(ctx, maps, kind, plan_file)
    key_report = report.KeyReport(report_file, every_key=report_all) if report_file else None
    summary = Summary(plan, dry_run=dry_run, validated=validate, allow_empty=allow_empty)
    narrator = report.Narrator(summary, to_stderr=json, quiet=quiet, verbose=verbose)
    narrator.begin("run", _configuration(ctx, plan))
    options = {
        "dry_run": dry_run,
        "batch_size": batch_size,
        "validate": validate,
        "ignore_expiry": ignore_expiry,
        "every_key": verbose or report_all,
    }
    with Interruption() as interruption:
        server = _migrate(url, summary, narrator, key_report, options, interruption)
        if json:
            report.print_document(wording.document(summary, "run", server))
    return summary.exit_code


def _migrate(
    url: str,
    summary: Summary,
    narrator: report.Narrator,
    key_report: report.KeyReport | None,
    options: dict[str, Any],
    interruption: Interruption,
) -> Server | None:
    """Run the migration into `summary`, errors and interruptions included, and tell about it."""
    server: Server | None = None
    databases: dict[str, int] | None = None
    began = time.monotonic()
    try:
        with connect(url) as server:
            narrator.connected(server)
            summary.warnings += checks.warnings(server)
            narrator.warn(summary.warnings)
            interruption.patient = True
            for batch in migrate(server, summary.plan, stop=interruption, **options):
                summary.add(batch)
                narrator.batch(batch)
                if key_report:
                    key_report.add(batch.keys)
            if not summary.totals.found:
                databases = read_database_sizes(server)
    except Error as error:
        summary.error = error
    except KeyboardInterrupt:
        summary.interrupted = True
    interruption.over = True
    summary.interrupted |= interruption()
    summary.seconds = time.monotonic() - began
    narrator.close_section()
    if key_report:
        key_report.close()
    if summary.error:
        report.fail(summary.error)
    if summary.began or not summary.error:
        narrator.end(databases)
    return server


def _plan(ctx: typer.Context, maps: list[str] | None, kind: str | None, plan_file: Path | None) -> rules.Plan:
    if maps and plan_file and _source(ctx, "plan_file") == "COMMANDLINE":
        raise UsageError("--map and --plan exclude each other")
    if kind and not maps:
        raise UsageError("--type belongs to --map; a plan file gives each rule its own type")
    if maps:
        if not kind:
            raise UsageError(f"--map needs --type: {', '.join(rules.TYPES)}")
        return rules.plan_from_maps(maps, kind)
    return rules.plan_from_file(plan_file) if plan_file else rules.BUILT_IN


def _configuration(ctx: typer.Context, plan: rules.Plan) -> list[tuple[str, str, str]]:
    """Return name, value and origin of each setting that decides what is done."""
    of_plan = next(name for name in ("maps", "plan_file", "") if not name or ctx.params[name])
    rows = [("url", redacted(ctx.params["url"]), _origin(ctx, "url"))]
    rows.append(("plan", f"{len(plan)} rules" if len(plan) > 1 else str(plan[0]), _origin(ctx, of_plan)))
    names = ("dry_run", "batch_size", "validate", "ignore_expiry", "allow_empty")
    rows += [(name.replace("_", " "), str(ctx.params[name]).lower(), _origin(ctx, name)) for name in names]
    return rows


def _origin(ctx: typer.Context, name: str) -> str:
    """Say where a parameter's value came from, in the user's terms."""
    option = next((option for option in ctx.command.params if option.name == name), None)
    match _source(ctx, name):
        case "ENVIRONMENT" if option:
            return str(option.envvar)
        case "COMMANDLINE" if option:
            return option.opts[0]
        case _:
            return "default" if option else "built in"


def _source(ctx: Any, name: str | None) -> str:
    source = ctx.get_parameter_source(name)
    return source.name if source else ""


@app.command("demo")
def run_demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server up until Ctrl-C, and print its URL.")] = False,
) -> int:
    """Show it on a throwaway server.

    Starts one, fills it with sample jobs, and goes through dry run, run, and run again.
    """
    return demo.show(keep=keep)
