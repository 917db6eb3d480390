"""The command line: its commands, and what ends them all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from inspect import Parameter, Signature
from typing import Annotated

import typer

from luamigrate import __version__
from luamigrate.cli import console, control_options, options
from luamigrate.cli.importing import Importing
from luamigrate.cli.strict import StrictCommand
from luamigrate.model.errors import Error, Exit
from luamigrate.model.status import Command

app = typer.Typer(
    name="luamigrate",
    help="Give Redis keys new names by copying them inside the server. Sources are kept, nothing is overwritten.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

HELP = {
    Command.RUN: """Copy keys to new names, and compare each copy with its source.

    \b
    luamigrate run --map 'job:*=step:*' --dry-run   say what would be copied
    luamigrate run --map 'job:*=step:*'             copy it

    Sources are kept, and nothing is overwritten. The server is localhost:6379, or what --url or REDIS_URL says.
    Without --map or --plan, the rules are the built-in plan: 'job:*' to 'step:*', and jobs:active,
    jobs:completed, jobs:failed and jobs:pending to their steps: names.
    """,
    Command.VERIFY: """Compare every source with its target; write nothing.

    \b
    luamigrate verify --map 'job:*=step:*'
    luamigrate verify --map 'job:*=step:*' --extra --report FILE
    luamigrate verify --map 'job:*=step:*' --follow   go on, and report pairs that drift apart

    A replica will do. --follow is for an application that writes to both names. The rules are those of run.
    """,
    Command.ROLLBACK: """Delete the targets that equal their source.

    \b
    luamigrate rollback --map 'job:*=step:*' --dry-run   say what would be deleted
    luamigrate rollback --map 'job:*=step:*'             ask, then delete

    It does not matter who made them: what equals its source, and whose source lives as long, is not lost with it. All
    others are kept and reported. The rules are those of run. With its sides exchanged (--map 'step:*=job:*') a rule
    deletes the old names that have an equal copy, which completes a move.
    """,
    Command.CHECK: """Look whether run could work here; write nothing.

    \b
    luamigrate check --map 'job:*=step:*'

    Server, permissions, memory, saves, clients that wait, targets that are there. Exit code 4 where run would refuse,
    with the name to give to --ignore-check; 3 where no key matches any rule. The rules are those of run.
    """,
    Command.FOLLOW: """Copy keys to new names, and keep the copies in step with every change.

    \b
    luamigrate follow --map 'job:*=step:*' --dry-run   say how it would begin
    luamigrate follow --map 'job:*=step:*'             copy, and follow until Ctrl-C
    luamigrate follow --map 'job:*=step:*' --flip app:names=new --control follow.sock

    The targets belong to it: it starts only where each is absent or equal to its source, unless --replace is given,
    and makes them what their sources are, deletions and expiries included. With --flip it can cut over: 'luamigrate
    control follow.sock cutover' sets the flag that the application reads. The rules are those of run.
    """,
}

CONTROL_HELP = """Speak to a run or a follow that is under way.

    \b
    luamigrate run --control run.sock                     listen for that
    luamigrate control run.sock status                    how far is it? --json for programs
    luamigrate control run.sock pause                     then resume; or stop, as Ctrl-C does
    luamigrate control run.sock set max-rate=1000         none lifts it
    luamigrate control run.sock set max-pause=2           and of a follow max-lag-ms
    luamigrate control follow.sock cutover                of a follow that has a flag: the new names are written
    luamigrate control follow.sock back                   the old names are written again
    luamigrate control follow.sock finish                 the old names are given up, and the follow ends

    The answer to cutover, back and finish comes when that is done. Exit code 0 it is done, 1 nobody answers, 4 the
    answer is an error.
    """


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
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        console.say(f"luamigrate {__version__}")
        raise typer.Exit(Exit.OK)
    if ctx.invoked_subcommand is None:
        console.say(ctx.get_help())
        raise typer.Exit(Exit.USAGE)


def _taking_options(command: Command) -> Callable[..., int]:
    """Return what carries out a command, with a parameter for each of its options: from these Typer makes them."""

    def carry_out(ctx: typer.Context, **_: object) -> int:
        with Importing():
            from luamigrate.cli import work  # noqa: PLC0415  # it takes a while, and help needs none of it
            from luamigrate.cli.settings import Settings  # noqa: PLC0415  # likewise
        return work.carry_out(Settings.from_context(ctx))

    context = Parameter("ctx", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    carry_out.__signature__ = Signature([context, *options.parameters(command)])  # type: ignore[attr-defined]
    return carry_out


for _command, _help in HELP.items():
    app.command(_command, cls=StrictCommand, help=_help)(_taking_options(_command))


@app.command("control", help=CONTROL_HELP)
def control(
    socket: control_options.Socket,
    word: control_options.ControlWord,
    arguments: control_options.Arguments = None,
    *,
    json: control_options.ControlJson = False,
) -> int:
    """Send a word, and print the answer."""
    with Importing():
        from luamigrate.cli import control_client  # noqa: PLC0415  # as above
    return control_client.speak(socket, word, arguments or (), as_json=json)


@app.command("demo")
def run_demo(
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server up until Ctrl-C, and print its URL.")] = False,
) -> int:
    """Show it on a throwaway server.

    Starts one, fills it with sample jobs, and goes through run, verify and rollback.
    """
    with Importing():
        from luamigrate.cli import demo  # noqa: PLC0415  # as above
    return demo.show(keep=keep)
