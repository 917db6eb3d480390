"""Settings of the user: typed, checked before anything is printed, each with its origin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum, auto
from pathlib import Path
from typing import Any, Self

import typer
from redis.connection import ConnectionPool

from luamigrate.cli import console, messages
from luamigrate.cli.cutover_settings import COMMANDS, OF_CUT_OVER, cutover_of, program_of
from luamigrate.cli.options import VARIABLES, OnExisting, Options
from luamigrate.cli.strict import refuse_blank
from luamigrate.model.comparison import Comparison, Filling
from luamigrate.model.control import Control
from luamigrate.model.cutover import CutoverOptions
from luamigrate.model.errors import UsageError, as_typed
from luamigrate.model.limits import Limits
from luamigrate.model.patterns import Pattern
from luamigrate.model.plan_files import plan_from_file, plan_from_maps, plan_from_pairs
from luamigrate.model.plans import BUILT_IN, Plan, plan_of
from luamigrate.model.rules import ANY
from luamigrate.model.status import CHECKS, Command
from luamigrate.server.connect import connect_by, pool_for
from luamigrate.server.deployment import Deployment
from luamigrate.server.tls import Tls, unreadable
from luamigrate.server.url import ServerUrl
from luamigrate.server.waiting import SECONDS_FOR_NOBODY, Waiting


class Source(Enum):
    """The places that a setting's value can come from."""

    DEFAULT = auto()
    ENVIRONMENT = auto()
    OPTION = auto()


@dataclass(frozen=True)
class Origin:
    """The place that a value came from, and the name of the option or variable."""

    source: Source
    name: str

    def __str__(self) -> str:
        return self.name

    @classmethod
    def of(cls, ctx: Any, option: Any) -> Self:
        """Return the origin of an option's value."""
        source = ctx.get_parameter_source(option.name)
        match source.name if source else "":
            case "ENVIRONMENT":
                return cls(Source.ENVIRONMENT, str(option.envvar))
            case "COMMANDLINE":
                return cls(Source.OPTION, option.opts[0])
            case _:
                return cls(Source.DEFAULT, "default")


Origins = Mapping[str, Origin]
"""Origins by the names of the values."""


_OF_TLS = ("tls_ca", "tls_cert", "tls_key", "tls_insecure")


@dataclass(frozen=True, kw_only=True)
class Access:
    """How to reach the server, and how long to try."""

    url: ServerUrl
    pool: ConnectionPool = field(repr=False)
    tls: Tls
    ignored: tuple[str, ...]
    """Variables about TLS that a URL without TLS does not use: perhaps they are meant for another program."""
    patience: float
    """Seconds for a server that is loading or being replaced."""
    for_nobody: float
    """Seconds for an address where nobody answers."""

    @classmethod
    def of(cls, options: Options, origins: Origins) -> Self:
        """Read the URL, and the password: once, because it may come through a pipe. Raises UsageError."""
        url = ServerUrl.parse(options.url)
        values: dict[str, Any] = {name: getattr(options, name) for name in _OF_TLS}
        unused = [
            name
            for name, value in values.items()
            if value and origins[name].source is Source.ENVIRONMENT and not url.takes_tls
        ]
        is_patience_given = origins["patience"].source is not Source.DEFAULT
        tls = Tls(**{name.removeprefix("tls_"): value for name, value in values.items() if name not in unused})
        password, sentinel_password = _password(options.password_file), _secret("SENTINEL_PASSWORD")
        return cls(
            url=url,
            pool=pool_for(url, tls=tls, password=password, sentinel_password=sentinel_password),
            tls=tls,
            ignored=tuple(str(origins[name]) for name in unused),
            patience=options.patience,
            for_nobody=options.patience if is_patience_given else min(options.patience, SECONDS_FOR_NOBODY),
        )

    def connect(self, control: Control) -> Deployment:
        """Connect to the server, waiting as the user allows. Raises what `connect` does."""
        waiting = Waiting(patience=self.patience, for_nobody=self.for_nobody, control=control)
        return connect_by(self.pool, self.url, waiting)


def _password(file: Path | None) -> str | None:
    secret = _secret("REDIS_PASSWORD")
    if not file:
        return secret
    password = _first_line(file)
    if secret not in (None, password):
        raise UsageError("REDIS_PASSWORD and --password-file (REDIS_PASSWORD_FILE) give two passwords: only one can be")
    return password


def _first_line(file: Path) -> str:
    option = "--password-file (REDIS_PASSWORD_FILE)"
    try:
        with file.open("rb") as lines:
            password = _without_end(lines.readline().decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError(f"{option} names a file whose first line is not UTF-8") from None
    except (OSError, ValueError) as error:
        raise unreadable(option, error, "the password itself, which is for REDIS_PASSWORD") from None
    if not password:
        raise UsageError(f"{option} names a file whose first line is empty")
    return password


def _secret(name: str) -> str | None:
    text = os.environ.get(name)
    if text is None:
        return None
    refuse_blank(name, text)
    return _without_end(text)


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


@dataclass(frozen=True, kw_only=True)
class Output:
    """What is printed, and where. Raises UsageError for contradictions."""

    json: bool
    quiet: bool
    verbose: bool
    report_file: Path | None
    report_all: bool

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose contradict each other")

    @property
    def every_key(self) -> bool:
        """Whether clean keys are printed or reported too."""
        return self.verbose or self.report_all


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a command; those that it does not take have their defaults."""

    command: Command
    plan: Plan
    access: Access
    limits: Limits
    output: Output
    comparison: Comparison
    dry_run: bool
    settle: float
    follow: bool
    sample: int | None
    extra: bool
    cover: tuple[Pattern, ...]
    allow_empty: bool
    replace: bool
    allow_groups: bool
    cutover: CutoverOptions | None
    """How a follow cuts over; None where it never does."""
    control_path: Path | None
    """The path of the Unix socket by which the command is controlled; None for none."""
    ignored_checks: frozenset[str]
    asks: bool
    """Whether the user is asked first, after a dry run."""
    warnings: tuple[str, ...]
    """Warnings that are printed before a server is asked."""
    configuration: tuple[tuple[str, str, str], ...]
    """Name, value and origin of each setting that decides what is done."""

    @property
    def goes_on(self) -> bool:
        """Whether the first signal is the normal end."""
        return self.follow or self.command is Command.FOLLOW

    @classmethod
    def from_context(cls, ctx: typer.Context) -> Self:
        """Read the command line and the environment. Raises UsageError where they make no sense."""
        command, options = Command(str(ctx.command.name)), Options(**ctx.params)
        origins = {str(option.name): Origin.of(ctx, option) for option in ctx.command.params}
        _refuse_contradictions(command, options, origins)
        access = Access.of(options, origins)
        plan = _plan(options, origins).from_database(access.url.database)
        return cls(
            command=command,
            plan=plan,
            access=access,
            limits=Limits(**{name: getattr(options, name) for name in _LIMITS}),
            ignored_checks=_ignored_checks(options),
            output=Output(**{each.name: getattr(options, each.name) for each in fields(Output)}),
            comparison=Comparison(
                validate=options.validate,
                ignore_expiry=options.ignore_expiry,
                show_values=options.show_values,
                filling=Filling.of(fills=options.on_existing is OnExisting.FILL, queues=options.fill_queues),
            ),
            dry_run=options.dry_run,
            settle=options.settle,
            follow=options.follow,
            sample=options.sample,
            extra=options.extra,
            cover=tuple(Pattern.parse(os.fsencode(text)) for text in options.cover or ()),
            allow_empty=options.allow_empty,
            replace=options.replace,
            allow_groups=options.allow_groups,
            cutover=_cutover(command, options, origins, plan),
            control_path=options.control_path,
            asks=command is Command.ROLLBACK and not (options.yes or options.dry_run),
            warnings=tuple(_warnings(options, access)),
            configuration=tuple(_configuration(options, origins, plan, access)),
        )


def _refuse_contradictions(command: Command, options: Options, origins: Origins) -> None:
    if command is Command.ROLLBACK and not (options.yes or options.dry_run or console.can_ask()):
        raise UsageError(
            "rollback deletes keys and asks before it does: without a terminal it needs --yes (or --dry-run)"
        )
    fills = options.on_existing is OnExisting.FILL
    if fills and not options.validate:
        named = str(origins["validate"]).replace("--validate", "--no-validate")
        raise UsageError(f"--on-existing fill always compares: it excludes {named}")
    if options.fill_queues and not fills:
        raise UsageError("--fill-queues belongs to --on-existing fill")
    if options.follow and options.sample:
        raise UsageError(f"--follow goes on comparing all pairs: it excludes {origins['sample']}")
    for option, is_set in (("--report-all", options.report_all), ("--show-values", options.show_values)):
        if is_set and not options.report_file:
            raise UsageError(f"{option} needs --report FILE")


def _cutover(command: Command, options: Options, origins: Origins, plan: Plan) -> CutoverOptions | None:
    if command is not Command.FOLLOW:
        return None
    given = {name: str(origin) for name, origin in origins.items() if origin.source is not Source.DEFAULT}
    return cutover_of(options, given, plan, _secret_variables(options))


def _secret_variables(options: Options) -> frozenset[str]:
    """Return the variables of the environment that are settings of ours, or hold the URL under another name."""
    return VARIABLES | {name for name, value in os.environ.items() if value == options.url}


def _plan(options: Options, origins: Origins) -> Plan:
    maps, kind, plan_file = options.maps, options.kind, options.plan_file
    if maps and plan_file and origins["plan_file"].source is Source.OPTION:
        raise UsageError("--map and --plan exclude each other")
    if kind and len(kind) > 1:
        raise UsageError("--type is given twice: it holds for all --map; rules of several types need --plan")
    if kind and not (maps or options.pairs_file):
        raise UsageError("--type belongs to --map or --pairs; a plan file gives each rule its own type")
    if options.pairs_file:
        _refuse_beside_pairs(options, origins)
        return plan_from_pairs(options.pairs_file, kind[0] if kind else ANY, database=options.to_database)
    excepts, first_match, database = options.excepts or (), options.first_match, options.to_database
    if maps:
        only = kind[0] if kind else ANY
        return plan_from_maps(maps, only, excepts=excepts, first_match=first_match, database=database)
    if plan_file:
        return plan_from_file(plan_file, excepts=excepts, first_match=first_match, database=database)
    return plan_of(BUILT_IN, excepts=excepts, first_match=first_match, database=database)


def _refuse_beside_pairs(options: Options, origins: Origins) -> None:
    others = {"--map": "maps", "--plan": "plan_file", "--except": "excepts", "--first-match": "first_match"}
    for option, name in others.items():
        if getattr(options, name) and origins[name].source is Source.OPTION:
            raise UsageError(f"--pairs and {option} exclude each other: the file names each source and its target")


def _ignored_checks(options: Options) -> frozenset[str]:
    names = frozenset(options.ignore_check or ())
    for name in options.ignore_check or ():
        if name not in CHECKS:
            shown = as_typed(os.fsencode(name))
            raise UsageError(f"--ignore-check '{shown}': there is no such check; there are {', '.join(CHECKS)}")
    return names


def _warnings(options: Options, access: Access) -> list[str]:
    at_once = [messages.FILLS_AT_ONCE] if options.on_existing is OnExisting.FILL and not options.settle else []
    ignored = [messages.tls_ignored(access.ignored)] if access.ignored else []
    return at_once + ignored + ([messages.INSECURE] if access.tls.insecure else [])


_LIMITS = tuple(each.name for each in fields(Limits))
_LOGIN = ("password_file", *_OF_TLS)
_OF_PLAN = ("excepts", "first_match", "to_database", "cover")
_RARE = frozenset(
    (
        *(*_LOGIN, *_OF_PLAN, "max_rate", "max_lag", "wait_replicas", "allow_long_pause", "allow_empty"),
        *("ignore_check", "allow_groups", "control_path", "follow"),
        *OF_CUT_OVER,
    )
)
"""Shown only where they are set."""

_DECISIVE = (
    *_LOGIN,
    *_OF_PLAN,
    *("dry_run", "validate", "on_existing", "fill_queues", "follow", "sample", "extra", "settle", "ignore_expiry"),
    *("replace", "allow_groups", *OF_CUT_OVER, "control_path"),
    *(*_LIMITS, "allow_empty", "ignore_check"),
)


def _configuration(options: Options, origins: Origins, plan: Plan, access: Access) -> list[tuple[str, str, str]]:
    of_plan = next(
        (origins[name].name for name in ("pairs_file", "maps", "plan_file") if getattr(options, name)), "built in"
    )
    rows = [("url", access.url.redacted, str(origins["url"]))]
    if "REDIS_PASSWORD" in os.environ:
        rows.append(("password", "***", "REDIS_PASSWORD"))
    rows.append(("plan", f"{len(plan)} rules" if len(plan) > 1 else str(plan[0]), of_plan))
    for name in _DECISIVE:
        origin = origins.get(name)
        if origin and origin.name not in access.ignored and not (name in _RARE and origin.source is Source.DEFAULT):
            value = getattr(options, name)
            shown = program_of(value) if name in COMMANDS else _shown(value)
            rows.append((name.replace("_", " "), shown, str(origin)))
    return rows


def _shown(value: Any) -> str:
    match value:
        case list():
            return ", ".join(as_typed(os.fsencode(each)) for each in value)
        case Path():
            return as_typed(os.fsencode(value))
        case str():
            return as_typed(os.fsencode(value))
        case _:
            return str(value).lower()
