"""The options of a cut-over."""

from __future__ import annotations

from typing import Annotated

import typer

from luamigrate.model.cutover import Kill

SHORTEST_FREEZE, LONGEST_FREEZE = 20, 10_000
"""Milliseconds."""
LONGEST_QUIET = 3600.0
LONGEST_WATCH = 86_400.0

Flip = Annotated[
    str | None,
    typer.Option(
        envvar="LUAMIGRATE_FLIP",
        metavar="KEY=VALUE",
        help="The flag that the application reads before each write: a cut-over sets KEY to VALUE. With it, "
        "'luamigrate control' takes cutover, back and finish.",
    ),
]
Cutover = Annotated[
    bool,
    typer.Option(
        "--cutover/--no-cutover",
        envvar="LUAMIGRATE_CUTOVER",
        help="Cut over as soon as it is in step, watch for as long as --watch says, finish, and end.",
    ),
]
Watch = Annotated[
    float,
    typer.Option(
        envvar="LUAMIGRATE_WATCH",
        metavar="SECONDS",
        min=0,
        max=LONGEST_WATCH,
        help="After --cutover, mirror back and watch for stragglers this long; then finish, and give up the way back.",
    ),
]
Freeze = Annotated[
    int,
    typer.Option(
        envvar="LUAMIGRATE_FREEZE",
        metavar="MS",
        min=SHORTEST_FREEZE,
        max=LONGEST_FREEZE,
        help="The longest that all writes are frozen in one attempt, in milliseconds.",
    ),
]
NoFreeze = Annotated[
    bool,
    typer.Option(
        "--no-freeze",
        envvar="LUAMIGRATE_NO_FREEZE",
        help="Freeze no writes: wait until nobody has written for as long as --quiet-for says. For an application that "
        "can stop writing by itself.",
    ),
]
QuietFor = Annotated[
    float,
    typer.Option(
        envvar="LUAMIGRATE_QUIET_FOR",
        metavar="SECONDS",
        min=0.1,
        max=LONGEST_QUIET,
        help="With --no-freeze: for how long nobody may have written.",
    ),
]
Attempts = Annotated[
    int,
    typer.Option(
        envvar="LUAMIGRATE_ATTEMPTS",
        metavar="N",
        min=1,
        max=1000,
        help="Attempts of one cut-over, before it is refused.",
    ),
]
Prove = Annotated[
    bool,
    typer.Option(
        "--prove/--no-prove",
        envvar="LUAMIGRATE_PROVE",
        help="Compare every pair once more before a cut-over.",
    ),
]
KillWhom = Annotated[
    Kill,
    typer.Option(
        envvar="LUAMIGRATE_KILL",
        help="Whose connections are closed at a flip: those of all clients of these databases, of those whose commands "
        "are frozen or who wait for something, or none. A client that read the flag before the flip, and keeps its "
        "connection, may still write a name that was left.",
    ),
]
KillUser = Annotated[
    str | None,
    typer.Option(envvar="LUAMIGRATE_KILL_USER", metavar="NAME", help="Close only connections of this user."),
]
OnCutover = Annotated[
    str | None,
    typer.Option(
        envvar="LUAMIGRATE_ON_CUTOVER",
        metavar="COMMAND",
        help="Run it before a cut-over, or the way back, without a shell; where it fails, nothing is flipped.",
    ),
]
OnFlip = Annotated[
    str | None,
    typer.Option(envvar="LUAMIGRATE_ON_FLIP", metavar="COMMAND", help="Run it after a flip, once writes go on."),
]
OnStraggler = Annotated[
    str | None,
    typer.Option(
        envvar="LUAMIGRATE_ON_STRAGGLER",
        metavar="COMMAND",
        help="Run it when names were written that had been left; LUAMIGRATE_NAMES has them, one a line.",
    ),
]
