"""The options of the commands, each declared once: names, environment variable, help, default, commands."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from enum import StrEnum
from inspect import Parameter
from pathlib import Path
from typing import Annotated, TypeVar, get_type_hints

import typer

from luamigrate.cli import access_options as access
from luamigrate.cli import cutover_options as cut_over
from luamigrate.cli.control_options import ControlPath
from luamigrate.model.cutover import ATTEMPTS, FREEZE_MS, QUIET_SECONDS, WATCH_SECONDS, Kill
from luamigrate.model.limits import (
    LARGEST_BATCH,
    LONGEST_LAG_MS,
    LONGEST_PAUSE,
    LONGEST_SETTLE,
    SETTLE_SECONDS,
    SHORTEST_PAUSE,
    Limits,
)
from luamigrate.model.rules import TYPES
from luamigrate.model.status import CHECKS, Command


class OnExisting(StrEnum):
    """What to do where a target lacks parts of its source."""

    SKIP = "skip"
    FILL = "fill"


class Group(StrEnum):
    """Headings of the options, in their order."""

    WHERE = "Where"
    WHAT = "What"
    CUT_OVER = "Cut-over"
    GENTLY = "How gently"
    OUTPUT = "Output"


PairsFile = Annotated[
    Path | None,
    typer.Option(
        "--pairs",
        metavar="FILE",
        help="Names by a table: source, tab, target on each line, escaped as they are printed.",
    ),
]
Cover = Annotated[
    list[str] | None,
    typer.Option(
        "--cover",
        metavar="PATTERN",
        help="Count and name the keys under it that no rule takes, e.g. 'job*'. Repeatable.",
    ),
]
Excepts = Annotated[
    list[str] | None,
    typer.Option(
        "--except", metavar="PATTERN", help="Names that are no sources, of whatever rule, e.g. 'job:old:*'. Repeatable."
    ),
]
FirstMatch = Annotated[
    bool,
    typer.Option(
        "--first-match/--no-first-match",
        envvar="LUAMIGRATE_FIRST_MATCH",
        help="Sources may overlap: the first rule that matches takes the key.",
    ),
]
ToDatabase = Annotated[
    int | None,
    typer.Option(
        envvar="LUAMIGRATE_TO_DATABASE",
        metavar="N",
        min=0,
        help="The targets live in this database of the same server; source and target may then have one name.",
        show_default="the URL's",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run/--no-dry-run", envvar="DRY_RUN", help="Say what would happen; write nothing.")
]
BatchSize = Annotated[
    int,
    typer.Option(envvar="BATCH_SIZE", metavar="N", min=1, max=LARGEST_BATCH, help="The most pairs one script gets."),
]
Validate = Annotated[
    bool,
    typer.Option("--validate/--no-validate", envvar="VALIDATE_COPIES", help="Compare each copy with its source."),
]
Maps = Annotated[
    list[str] | None, typer.Option("--map", metavar="SRC=DST", help="A rule, e.g. 'rq:job:*=q:job:*'. Repeatable.")
]
Kind = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="TYPE",
        autocompletion=lambda: TYPES,
        help=f"The type of the keys of --map or --pairs: {', '.join(TYPES)}. [default: any]",
    ),
]
PlanFile = Annotated[
    Path | None,
    typer.Option(
        "--plan",
        envvar="LUAMIGRATE_PLAN",
        metavar="FILE",
        help="Rules from a TOML file. A --map comes before the file that the variable names.",
    ),
]
Existing = Annotated[
    OnExisting,
    typer.Option(
        "--on-existing",
        envvar="ON_EXISTING",
        help="Where a target lacks parts of its source: leave it, or add them (hashes and sets).",
    ),
]
FillQueues = Annotated[
    bool,
    typer.Option(
        "--fill-queues/--no-fill-queues",
        envvar="FILL_QUEUES",
        help="Fill sorted sets too: members that consumers took meanwhile would come back.",
    ),
]
Settle = Annotated[
    float,
    typer.Option(
        envvar="SETTLE",
        metavar="SECONDS",
        min=0,
        max=LONGEST_SETTLE,
        help="Look a second time, after this long, at what is not clean; 0: one look.",
    ),
]
IgnoreExpiry = Annotated[
    bool,
    typer.Option(
        "--ignore-expiry/--no-ignore-expiry",
        envvar="IGNORE_EXPIRY",
        help="Call equal values the same even if they expire at other times.",
    ),
]
AllowEmpty = Annotated[
    bool,
    typer.Option(
        "--allow-empty/--no-allow-empty", envvar="ALLOW_EMPTY", help="Exit 0 even if no key matches any rule."
    ),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace/--no-replace",
        envvar="LUAMIGRATE_REPLACE",
        help="Make targets that are there what their sources are, whatever they hold.",
    ),
]
AllowGroups = Annotated[
    bool,
    typer.Option(
        "--allow-groups/--no-allow-groups",
        envvar="LUAMIGRATE_ALLOW_GROUPS",
        help="Follow streams that have groups, though nobody is told of changes to these.",
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(envvar="LUAMIGRATE_SAMPLE", metavar="N", min=1, help="Look at the first N keys of each rule only."),
]
Extra = Annotated[
    bool,
    typer.Option("--extra/--no-extra", envvar="LUAMIGRATE_EXTRA", help="Also look for targets that have no source."),
]
Follow = Annotated[
    bool,
    typer.Option(
        "--follow/--no-follow",
        envvar="LUAMIGRATE_FOLLOW",
        help="Go on until Ctrl-C: compare again what changes, once it has been quiet for as long as --settle says.",
    ),
]
Yes = Annotated[
    bool,
    typer.Option(
        "--yes",
        help="Do not ask before deleting; needed where there is no terminal. For follow: names that were left at a "
        "cut-over may be overwritten and deleted though nobody followed for a while.",
    ),
]
MaxPause = Annotated[
    float,
    typer.Option(
        envvar="MAX_PAUSE",
        metavar="MS",
        min=SHORTEST_PAUSE,
        max=LONGEST_PAUSE,
        help="The longest the server may be held at once, in milliseconds.",
    ),
]
MaxRate = Annotated[
    float | None, typer.Option(envvar="MAX_RATE", metavar="N", min=0.1, help="Keys per second, at most.")
]
MaxLag = Annotated[
    int | None,
    typer.Option(envvar="MAX_LAG", metavar="BYTES", min=1, help="Wait while any replica is further behind than this."),
]
MaxLagMs = Annotated[
    float,
    typer.Option(
        envvar="MAX_LAG_MS",
        metavar="MS",
        min=0,
        max=LONGEST_LAG_MS,
        help="Wait this long between two rounds of copying: a key that changes several times meanwhile is copied "
        "once. More spares the server, and leaves the targets further behind.",
    ),
]
WaitReplicas = Annotated[
    int,
    typer.Option(
        envvar="WAIT_REPLICAS", metavar="N", min=0, max=1000, help="Wait until N replicas have acknowledged each batch."
    ),
]
Patience = Annotated[
    float,
    typer.Option(
        envvar="PATIENCE",
        metavar="SECONDS",
        min=0,
        max=86_400,
        help="Wait this long for a server that is lost, loading, failing over, or takes no writes; for one that is not "
        "there to begin with 5 seconds, if this is not given.",
    ),
]
AllowLongPause = Annotated[
    bool,
    typer.Option(
        "--allow-long-pause/--no-allow-long-pause",
        envvar="ALLOW_LONG_PAUSE",
        help="Take keys whole that cannot go in chunks, for as long as that blocks the server.",
    ),
]
IgnoreCheck = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore-check",
        metavar="NAME",
        autocompletion=lambda: CHECKS,
        help=f"Go on although this check or guard says no: {', '.join(CHECKS)}. Repeatable.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document; human lines go to stderr.")]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="FILE",
        help="Write a JSON line per key that is not clean to FILE; one that is there is replaced.",
    ),
]
ReportAll = Annotated[bool, typer.Option("--report-all", help="Write a line per key to the report.")]
ShowValues = Annotated[
    bool,
    typer.Option(
        "--show-values",
        help="Write the first differing values to the report, not only names; each is cut after 200 bytes.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only the summary.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Print a line per key.")]

_DEFAULTS = Limits()
_RUN, _VERIFY, _ROLLBACK, _CHECK, _FOLLOW = Command
_FINITE = (_RUN, _VERIFY, _ROLLBACK, _CHECK)
_WHERE, _WHAT, _CUT_OVER, _GENTLY, _OUTPUT = Group

_Value = TypeVar("_Value")


def _of(group: Group, *commands: Command, default: _Value) -> _Value:
    """Declare the heading and the default of an option, and which commands take it."""
    value: _Value = field(default=default, metadata={"group": group, "commands": commands})
    return value


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set, in the order of --help; where a command does not take an option, it has its default."""

    url: access.Url = _of(_WHERE, *Command, default="redis://localhost:6379")
    password_file: access.PasswordFile = _of(_WHERE, *Command, default=None)
    tls_ca: access.TlsCa = _of(_WHERE, *Command, default=None)
    tls_cert: access.TlsCert = _of(_WHERE, *Command, default=None)
    tls_key: access.TlsKey = _of(_WHERE, *Command, default=None)
    tls_insecure: access.TlsInsecure = _of(_WHERE, *Command, default=False)
    maps: Maps = _of(_WHAT, *Command, default=None)
    kind: Kind = _of(_WHAT, *Command, default=None)
    plan_file: PlanFile = _of(_WHAT, *Command, default=None)
    pairs_file: PairsFile = _of(_WHAT, *Command, default=None)
    excepts: Excepts = _of(_WHAT, *Command, default=None)
    first_match: FirstMatch = _of(_WHAT, *Command, default=False)
    dry_run: DryRun = _of(_WHAT, _RUN, _ROLLBACK, _FOLLOW, default=False)
    to_database: ToDatabase = _of(_WHAT, *Command, default=None)
    validate: Validate = _of(_WHAT, _RUN, default=True)
    on_existing: Existing = _of(_WHAT, _RUN, _CHECK, default=OnExisting.SKIP)
    fill_queues: FillQueues = _of(_WHAT, _RUN, default=False)
    sample: Sample = _of(_WHAT, _VERIFY, default=None)
    extra: Extra = _of(_WHAT, _VERIFY, _ROLLBACK, default=False)
    follow: Follow = _of(_WHAT, _VERIFY, default=False)
    settle: Settle = _of(_WHAT, _RUN, _VERIFY, _ROLLBACK, _FOLLOW, default=SETTLE_SECONDS)
    cover: Cover = _of(_WHAT, _VERIFY, _CHECK, default=None)
    ignore_expiry: IgnoreExpiry = _of(_WHAT, _RUN, _VERIFY, default=False)
    replace: Replace = _of(_WHAT, _FOLLOW, default=False)
    allow_groups: AllowGroups = _of(_WHAT, _FOLLOW, default=False)
    allow_empty: AllowEmpty = _of(_WHAT, *_FINITE, default=False)
    yes: Yes = _of(_WHAT, _ROLLBACK, _FOLLOW, default=False)
    flip: cut_over.Flip = _of(_CUT_OVER, _FOLLOW, default=None)
    cutover: cut_over.Cutover = _of(_CUT_OVER, _FOLLOW, default=False)
    watch: cut_over.Watch = _of(_CUT_OVER, _FOLLOW, default=WATCH_SECONDS)
    freeze: cut_over.Freeze = _of(_CUT_OVER, _FOLLOW, default=FREEZE_MS)
    no_freeze: cut_over.NoFreeze = _of(_CUT_OVER, _FOLLOW, default=False)
    quiet_for: cut_over.QuietFor = _of(_CUT_OVER, _FOLLOW, default=QUIET_SECONDS)
    attempts: cut_over.Attempts = _of(_CUT_OVER, _FOLLOW, default=ATTEMPTS)
    prove: cut_over.Prove = _of(_CUT_OVER, _FOLLOW, default=False)
    kill: cut_over.KillWhom = _of(_CUT_OVER, _FOLLOW, default=Kill.ALL)
    kill_user: cut_over.KillUser = _of(_CUT_OVER, _FOLLOW, default=None)
    on_cutover: cut_over.OnCutover = _of(_CUT_OVER, _FOLLOW, default=None)
    on_flip: cut_over.OnFlip = _of(_CUT_OVER, _FOLLOW, default=None)
    on_straggler: cut_over.OnStraggler = _of(_CUT_OVER, _FOLLOW, default=None)
    batch_size: BatchSize = _of(_GENTLY, _RUN, _VERIFY, _ROLLBACK, _FOLLOW, default=_DEFAULTS.batch_size)
    max_pause: MaxPause = _of(_GENTLY, _RUN, _VERIFY, _ROLLBACK, _FOLLOW, default=_DEFAULTS.max_pause)
    max_rate: MaxRate = _of(_GENTLY, _RUN, _VERIFY, _ROLLBACK, _FOLLOW, default=_DEFAULTS.max_rate)
    max_lag: MaxLag = _of(_GENTLY, _RUN, _ROLLBACK, _FOLLOW, default=_DEFAULTS.max_lag)
    max_lag_ms: MaxLagMs = _of(_GENTLY, _FOLLOW, default=_DEFAULTS.max_lag_ms)
    wait_replicas: WaitReplicas = _of(_GENTLY, _RUN, _ROLLBACK, _FOLLOW, default=_DEFAULTS.wait_replicas)
    allow_long_pause: AllowLongPause = _of(_GENTLY, _RUN, _VERIFY, _ROLLBACK, default=_DEFAULTS.allow_long_pause)
    patience: Patience = _of(_GENTLY, *Command, default=_DEFAULTS.patience)
    ignore_check: IgnoreCheck = _of(_GENTLY, *Command, default=None)
    control_path: ControlPath = _of(_OUTPUT, _RUN, _FOLLOW, default=None)
    json: Json = _of(_OUTPUT, *Command, default=False)
    report_file: Report = _of(_OUTPUT, _RUN, _VERIFY, _ROLLBACK, _FOLLOW, default=None)
    report_all: ReportAll = _of(_OUTPUT, _RUN, _VERIFY, _ROLLBACK, default=False)
    show_values: ShowValues = _of(_OUTPUT, _RUN, _VERIFY, _ROLLBACK, default=False)
    quiet: Quiet = _of(_OUTPUT, *Command, default=False)
    verbose: Verbose = _of(_OUTPUT, _RUN, _VERIFY, _ROLLBACK, default=False)


_ANNOTATIONS = get_type_hints(Options, include_extras=True)
for _field in fields(Options):
    _ANNOTATIONS[_field.name].__metadata__[0].rich_help_panel = _field.metadata["group"]


def parameters(command: Command) -> list[Parameter]:
    """Return what a command takes, as Typer reads it from the parameters of a function."""
    return [
        Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=_ANNOTATIONS[each.name])
        for each in fields(Options)
        if command in each.metadata["commands"]
    ]


VARIABLES = frozenset(hint.__metadata__[0].envvar for hint in _ANNOTATIONS.values()) - {None} | {
    *("REDIS_PASSWORD", "SENTINEL_PASSWORD")  # an option would put them into the process list
}
"""Every variable of the environment that sets something."""


def environment(**settings: str) -> dict[str, str]:
    """Return the environment with these of our settings and no others."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES} | settings
