"""docs/cli.md is what the program says of itself."""

from __future__ import annotations

import re

import pytest

from luamigrate.model.status import Command
from tests.project.test_readme import options
from tools import cli_page

PAGE = cli_page.PAGE.read_text(encoding="utf-8")


def test_the_page_is_what_the_program_would_generate() -> None:
    """Otherwise `make docs` has been forgotten."""
    assert cli_page.page() == PAGE


@pytest.mark.parametrize("command", Command)
def test_every_option_of_a_command_has_a_row_that_names_the_command(command: Command) -> None:
    """With its environment variable; and the page names no command for an option that does not take it."""
    rows = re.findall(r"^\| `(--[^`]+)` \| (?:`(\w+)`)? ?\| [^|]* \| ([\w, ]+) \|", PAGE, re.MULTILINE)
    told = {
        tuple(re.findall(r"--[\w-]+", names)): variable or None
        for names, variable, commands in rows
        if commands == "all" or command in commands.split(", ")
    }
    assert told == {names: variable for names, variable, _ in options(command)}


def test_what_is_quoted_to_the_letter_is_marked_as_such() -> None:
    """URLs, options, variables and rules; a bar does not end a cell."""
    text = "See --url (redis://host/0, or rediss://), REDIS_URL and 'a:*=b:*'."
    assert cli_page._marked(text) == "See `--url` (`redis://host/0`, or `rediss://`), `REDIS_URL` and `'a:*=b:*'`."
    assert r"`--on-existing skip\|fill`" in PAGE
