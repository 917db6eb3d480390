"""Help: options under headings, and a first run within the first ten lines."""

from __future__ import annotations

import re
import shlex

import pytest

from luamigrate.cli.options import Group
from luamigrate.model.status import Command
from tests.conftest import luamigrate, run
from tests.instances import Instance


def sections(command: Command) -> dict[str, list[str]]:
    """Return the options that help shows under each heading."""
    _, *parts = re.split(r"^(\S[\w -]*):\n", luamigrate(command, "--help").out, flags=re.MULTILINE)
    return {
        heading: re.findall(r"^  (--[\w-]+)", text, re.MULTILINE)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.mark.parametrize("command", Command)
def test_options_stand_under_the_headings_of_their_groups(command: Command) -> None:
    """In the order of the groups; nothing but the help option itself stands outside."""
    shown = sections(command)
    groups = [group for group in Group if group is not Group.CUT_OVER or command is Command.FOLLOW]
    assert list(shown) == [*groups, "Help"]
    assert shown["Help"] == ["--help"]
    assert all(shown.values())
    assert shown[Group.WHERE][0] == "--url"
    assert shown[Group.WHAT][:3] == ["--map", "--type", "--plan"]
    assert "--patience" in shown[Group.GENTLY]
    assert "--json" in shown[Group.OUTPUT]


def test_the_first_ten_lines_suffice_for_a_first_run(any_server: Instance) -> None:
    """They have the usage, a sentence, how to name the server, and two commands that work as they stand."""
    lines = luamigrate("run", "--help").out.splitlines()[:10]
    assert lines[0].startswith("Usage: luamigrate run ")
    assert "--url or REDIS_URL" in " ".join(lines)
    examples = [line.strip().partition("   ")[0] for line in lines if line.startswith("  luamigrate ")]
    any_server.client.hset("job:1", "a", "1")
    look, copy = (run(any_server, *shlex.split(example)[2:]) for example in examples)
    assert "would copy 1 key" in look.out
    assert (copy.code, any_server.client.hgetall("step:1")) == (0, {b"a": b"1"})


@pytest.mark.parametrize("command", Command)
def test_every_command_shows_an_example_with_options_of_its_own(command: Command) -> None:
    """No example has an option that the command does not take."""
    known = {option for options in sections(command).values() for option in options}
    text = luamigrate(command, "--help").out
    examples = re.findall(rf"^  (luamigrate {command} .*)$", text, re.MULTILINE)
    assert examples
    for example in examples:
        assert set(re.findall(r"--[\w-]+", example)) <= known
