"""Parsing that takes no odd value silently, and shows none that may be a secret."""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import TyperCommand

from luamigrate.model.errors import UsageError, as_typed

_FILE = "is the name of a file, in quotes if it has spaces"
_MAY_BE_SECRET = {
    "--url": "goes into quotes; a space in it is %20",
    **dict.fromkeys(("--password-file", "--tls-ca", "--tls-cert", "--tls-key"), _FILE),
    **dict.fromkeys(("--on-cutover", "--on-flip", "--on-straggler"), "goes into quotes together with its arguments"),
}
"""Options whose value may hold a secret, so that no part of it is shown, and what is right for each."""


class StrictCommand(TyperCommand):
    """A command that takes no blank or odd value from the environment for an unset one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and look at what came from the environment. Raises UsageError."""
        given = {argument.partition("=")[0] for argument in args}
        ctx.allow_extra_args = True  # refused below: the parser would show what may be a part of a secret
        try:
            rest = super().parse_args(ctx, args)
        except typer.TyperException as error:
            _refuse_option_of_others(ctx, getattr(error, "option_name", ""))
            raise
        if ctx.resilient_parsing:  # the shell asks what could come next
            return rest
        _refuse_surplus(rest, given)
        for option in self.params:
            name = option.envvar
            text = os.environ.get(name) if isinstance(name, str) else None
            source = ctx.get_parameter_source(option.name)
            if text is None or (source and source.name == "COMMANDLINE"):
                continue
            refuse_blank(str(name), text)
            if getattr(option, "is_flag", False) and text.lower() not in ("true", "false"):
                raise UsageError(f"{name} must be true or false, not '{as_typed(os.fsencode(text))}'")
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options under the headings of their groups."""
        groups: dict[str, list[Any]] = {}
        for option in self.get_params(ctx):
            heading = getattr(option, "rich_help_panel", None) or "Help"
            groups.setdefault(heading, []).append(option.get_help_record(ctx))
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def refuse_blank(name: str, text: str) -> None:
    """Raise UsageError where a variable is set to nothing."""
    if not text.strip():
        raise UsageError(f"{name} is set but blank: give it a value or unset it")


def _refuse_option_of_others(ctx: Any, option: str) -> None:
    """Raise UsageError where an option is one of other commands: the parser would suggest those with like names."""
    commands = getattr(ctx.parent and ctx.parent.command, "commands", {})
    owners = [
        name
        for name, command in commands.items()
        if any(option in (*param.opts, *param.secondary_opts) for param in command.params)
    ]
    if owners:
        raise UsageError(f"{ctx.info_name} has no {option}: it belongs to {' and '.join(owners)}")


def _refuse_surplus(arguments: list[str], given: set[str]) -> None:
    if not arguments:
        return
    option = next((option for option in _MAY_BE_SECRET if option in given), None)
    if option:
        raise UsageError(
            f"there are more arguments than options take. Has the shell cut the value of {option} at a space? It "
            f"{_MAY_BE_SECRET[option]}"
        )
    if any("://" in argument for argument in arguments):
        raise UsageError("there are more arguments than options take, among them a URL: that belongs behind --url")
    shown = " ".join(as_typed(os.fsencode(argument)) for argument in arguments)
    raise UsageError(f"there are more arguments than options take: {shown}")
