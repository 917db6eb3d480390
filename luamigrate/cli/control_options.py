"""What the command line takes about control: the option of the work, and the arguments of who speaks to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from luamigrate.model.cutover import Wish

WORDS = ("status", "pause", "resume", "set", "stop")
"""What a run or a follow obeys."""
WISHES = tuple(map(str, Wish))
"""What a follow obeys besides that cuts over: the answer comes when it is done."""
ALL_WORDS = (*WORDS, *WISHES)

ControlPath = Annotated[
    Path | None,
    typer.Option(
        "--control",
        envvar="LUAMIGRATE_CONTROL",
        metavar="SOCKET",
        help="Listen for 'luamigrate control' at this path while it works.",
    ),
]
Socket = Annotated[Path, typer.Argument(metavar="SOCKET", help="The path that --control has.", show_default=False)]
ControlWord = Annotated[
    str,
    typer.Argument(
        metavar="WORD", autocompletion=lambda: ALL_WORDS, help=f"One of {', '.join(ALL_WORDS)}.", show_default=False
    ),
]
Arguments = Annotated[
    list[str] | None, typer.Argument(metavar="NAME=VALUE", help="The limit to set.", show_default=False)
]
ControlJson = Annotated[bool, typer.Option("--json", help="Print the answer as a JSON document.")]
