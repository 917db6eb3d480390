"""docs/cli.md: the page on all commands and options, made from the program itself by `make docs`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

import typer.main

from luamigrate.cli.commands import app
from luamigrate.cli.options import Group, Options
from luamigrate.model.status import Command

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
PROGRAM: Any = typer.main.get_command(app)

BEGINNING = """\
# The command line

All commands and all options. `make docs` makes this page from the program; `luamigrate COMMAND --help` says the same.

| command | what it does |
|---|---|
"""
ON_OPTIONS = """
## Options

The option comes first, then the environment variable, then the default. A variable that turns something on or off is
`true` or `false`. One that is set to nothing is refused.
"""
ENDING = """
## Passwords

Two variables have no option, because an option would show in the list of processes: `REDIS_PASSWORD` is the password of
the URL's user, and `SENTINEL_PASSWORD` that of the Sentinels. `--password-file` takes the first one from a file.

## Help, version, completion

`luamigrate --help` and `luamigrate COMMAND --help` print help, `luamigrate --version` the version.

Type `luamigrate --install-completion` once: after that the Tab key completes commands, options, types and names of
checks in this shell. `luamigrate --show-completion` prints what it would install.
"""
EXACT = re.compile(r"\b\w+://(?:\S*[^\s,;:.)])?|--[a-z][a-z-]*|'[^']*\*[^']*'|\b[A-Z]+_[A-Z_]+\b|\b[a-z]+:\*")
"""What a help text quotes to the letter."""
DEFAULT_IN_HELP = re.compile(r" \[default: (.*)\]$")


def page() -> str:
    """Return the whole page."""
    return "".join((BEGINNING, *_commands(), ON_OPTIONS, *_options(), ENDING))


def _commands() -> Iterator[str]:
    for name, command in PROGRAM.commands.items():
        yield f"| [`{name}`](#luamigrate-{name}) | {_marked(command.get_short_help_str(200))} |\n"
    for name, command in PROGRAM.commands.items():
        yield f"\n## `luamigrate {name}`\n"
        for paragraph in inspect.cleandoc(command.help).split("\n\n"):
            yield f"\n{_examples(paragraph) or _marked(paragraph)}\n"
        if name not in tuple(Command):  # the options of the others are told together
            yield from (f"\n{_code(_named(option))}: {_marked(option.help)}\n" for option in command.params)


def _named(option: Any) -> str:
    """Return how an option is written; an argument has no name of its own."""
    return str(option.metavar if option.param_type_name == "argument" else option.opts[0])


def _examples(paragraph: str) -> str:
    r"""Return commands that are marked by \b, and what is said of them, as a block; nothing for another paragraph."""
    marker, _, commands = paragraph.partition("\n")
    if marker != "\b":
        return ""
    return "```sh\n" + re.sub(r"(  +)(\S.*)$", r"\1# \2", commands, flags=re.MULTILINE) + "\n```"


def _options() -> Iterator[str]:
    for group in Group:
        yield f"\n### {group}\n\n| option | environment | default | commands | meaning |\n|---|---|---|---|---|\n"
        for each in fields(Options):
            if each.metadata["group"] is group:
                yield f"| {' | '.join(_row(each.name, each.metadata['commands']))} |\n"


def _row(name: str, commands: tuple[Command, ...]) -> Iterator[str]:
    option = next(option for option in PROGRAM.commands[commands[0]].params if option.name == name)
    values = "" if option.is_flag else f" {option.metavar or '|'.join(option.type_descriptor.choices)}"
    yield _code(" / ".join((*option.opts, *option.secondary_opts)) + values)
    yield _code(option.envvar)
    yield _default(option)
    yield "all" if commands == tuple(Command) else ", ".join(commands)
    yield _marked(DEFAULT_IN_HELP.sub("", option.help)) + _range(option)


def _default(option: Any) -> str:
    told = DEFAULT_IN_HELP.search(option.help)
    match option.default:
        case bool(value):
            return ("off", "on")[value]
        case Enum(value=value) | str(value):
            return _code(value)
        case float(value):
            return f"{value:g}"
        case None:
            return _code(told[1]) if told else ""
        case value:
            return str(value)


def _range(option: Any) -> str:
    if option.min is None:
        return ""
    return f" {option.min:,g} to {option.max:,g}." if option.max else f" At least {option.min:,g}."


def _code(text: str | None) -> str:
    return "`" + text.replace("|", "\\|") + "`" if text else ""


def _marked(text: str) -> str:
    """Return a text with what it quotes to the letter marked as such, on one line."""
    return EXACT.sub(lambda quoted: _code(quoted[0]), " ".join(text.split()))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
