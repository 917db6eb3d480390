"""The options of a cut-over: what the work gets of them, and what makes no sense."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
import typer.main

from luamigrate.cli.commands import app
from luamigrate.cli.options import VARIABLES
from luamigrate.cli.settings import Settings
from luamigrate.model.cutover import CutoverOptions, Hooks, Kill
from tests.conftest import luamigrate
from tests.instances import Instance

NOBODY = "unix:///tmp/luamigrate-nobody.sock"
"""Where no server is: a usage error comes before anybody asks for one."""
FLIP = ("--flip", "app:names=new")


def settings(*arguments: str) -> Settings:
    """Return what a follow is told by these arguments and the environment."""
    group: Any = typer.main.get_command(app)
    with group.commands["follow"].make_context("follow", list(arguments)) as context:
        return Settings.from_context(context)


def cutover(*arguments: str) -> CutoverOptions | None:
    """Return how a follow with these arguments cuts over."""
    return settings(*arguments).cutover


@pytest.fixture(autouse=True)
def _without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_without_a_flag_it_never_cuts_over() -> None:
    """With one it goes by what the model says of each option."""
    assert cutover() is None
    given = cutover(*FLIP)
    assert given
    without = given.hooks.without
    assert given == CutoverOptions(flag=b"app:names", value=b"new", hooks=Hooks(without=without))
    assert without >= VARIABLES


def test_each_option_reaches_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag ends at the first =, and its bytes are those of the shell; a variable does what an option does."""
    options = {
        "--cutover": None,
        "--watch": "7.5",
        "--freeze": "250",
        "--attempts": "3",
        "--prove": None,
        "--kill": "held",
        "--kill-user": "app",
        "--yes": None,
        "--on-cutover": "true 'a b'",
        "--on-flip": "true x",
        "--on-straggler": sys.executable,
    }
    flip = os.fsdecode(b"fl\xffag=a=b")
    given = cutover("--flip", flip, *(word for pair in options.items() for word in pair if word))
    assert given
    assert given == CutoverOptions(
        flag=b"fl\xffag",
        value=b"a=b",
        at_once=True,
        watch_seconds=7.5,
        freeze_ms=250,
        attempts=3,
        prove=True,
        kill=Kill.HELD,
        kill_user="app",
        confirmed=True,
        hooks=Hooks(
            on_cutover=("true", "a b"),
            on_flip=("true", "x"),
            on_straggler=(sys.executable,),
            without=given.hooks.without,
        ),
    )
    for name, text in ({"--flip": flip} | options).items():
        if name != "--yes":
            monkeypatch.setenv(f"LUAMIGRATE_{name[2:].upper().replace('-', '_')}", text or "true")
    assert cutover("--yes") == given


def test_without_a_freeze_nobody_may_write_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by an option or by a variable."""
    given = cutover(*FLIP, "--no-freeze", "--quiet-for", "5")
    assert given
    assert (given.freezes, given.quiet_seconds) == (False, 5.0)
    monkeypatch.setenv("LUAMIGRATE_NO_FREEZE", "true")
    from_environment = cutover(*FLIP)
    assert from_environment
    assert not from_environment.freezes


WRONG: list[tuple[tuple[str, ...], str]] = [
    *(
        ((option, *value), f"{option} needs --flip KEY=VALUE")
        for option, *value in (
            ("--cutover",),
            ("--watch", "1"),
            ("--freeze", "500"),
            ("--no-freeze",),
            ("--quiet-for", "1"),
            ("--attempts", "5"),
            ("--prove",),
            ("--kill", "all"),
            ("--kill-user", "app"),
            ("--yes",),
            ("--on-cutover", "true"),
            ("--on-flip", "true"),
            ("--on-straggler", "true"),
        )
    ),
    (("--flip", "app:names"), "--flip 'app:names': needs a key, =, and a value"),
    (("--flip", "=new"), "needs a key, =, and a value"),
    (("--flip", "app:names="), "needs a key, =, and a value"),
    (("--flip", ""), "--flip '': needs a key"),
    (("--flip", "\x1b[2J"), r"--flip '\x1b[2J': needs a key"),
    (("--flip", f"{'a' * 100}={'b' * 101}"), "key and value have 200 bytes at most, together"),
    (("--flip", "luamigrate:x=1"), "names under luamigrate: are its own"),
    (("--flip", "job:flag=1"), "this key is a source of the plan itself"),
    (("--flip", "step:flag=1"), "this key is a target of the plan itself"),
    ((*FLIP, "--watch", "1"), "--watch belongs to --cutover"),
    ((*FLIP, "--quiet-for", "1"), "--quiet-for belongs to --no-freeze"),
    ((*FLIP, "--no-freeze", "--freeze", "100"), "--freeze and --no-freeze exclude each other"),
    ((*FLIP, "--kill", "none", "--kill-user", "app"), "--kill none closes no connections: it excludes --kill-user"),
    ((*FLIP, "--kill-user", " "), "--kill-user needs the name of a user"),
    ((*FLIP, "--kill", "some"), "'some' is not one of 'all', 'held', 'none'"),
    ((*FLIP, "--freeze", "19"), "greater than or equal to 20"),
    ((*FLIP, "--freeze", "10001"), "less than or equal to 10000"),
    ((*FLIP, "--attempts", "0"), "'--attempts'"),
    ((*FLIP, "--on-flip", "notify 'x"), "--on-flip is no command: No closing quotation"),
    ((*FLIP, "--on-flip", ""), "--on-flip names no command"),
    ((*FLIP, "--on-flip", "''"), "--on-flip names no command"),
    ((*FLIP, "--on-cutover", "/no/such/program x"), "--on-cutover: there is no program /no/such/program"),
    ((*FLIP, "--on-straggler", "/etc/passwd"), "--on-straggler: there is no program /etc/passwd"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=str)
def test_what_makes_no_sense_is_a_usage_error(arguments: tuple[str, ...], words: str) -> None:
    """One line, before anybody is connected to."""
    result = luamigrate("follow", *arguments, url=NOBODY)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert words in result.err


def test_what_comes_from_the_environment_is_named_by_its_variable() -> None:
    """And one that is turned off is none."""
    result = luamigrate("follow", url=NOBODY, env={"LUAMIGRATE_KILL": "none"})
    assert (result.code, "LUAMIGRATE_KILL needs --flip" in result.err) == (2, True)
    result = luamigrate("follow", *FLIP, url=NOBODY, env={"LUAMIGRATE_ON_FLIP": "/no/such"})
    assert (result.code, "LUAMIGRATE_ON_FLIP: there is no program" in result.err) == (2, True)
    off = {"LUAMIGRATE_CUTOVER": "false", "LUAMIGRATE_PROVE": "false", "LUAMIGRATE_NO_FREEZE": "false"}
    assert luamigrate("follow", url=NOBODY, env=off).code == 1


def test_arguments_of_a_hook_outside_the_quotes_are_not_shown() -> None:
    """They may hold a password of somebody else."""
    result = luamigrate("follow", *FLIP, "--on-flip", "true", "hunter2", url=NOBODY)
    assert (result.code, "hunter2" in result.err) == (2, False)
    assert "cut the value of --on-flip at a space? It goes into quotes together with its arguments" in result.err


def test_other_commands_have_none_of_them() -> None:
    """Nor do they mind what the environment says about a follow."""
    result = luamigrate("run", *FLIP, url=NOBODY)
    assert (result.code, "run has no --flip: it belongs to follow" in result.err) == (2, True)
    assert luamigrate("run", url=NOBODY, env={"LUAMIGRATE_FLIP": "nonsense"}).code == 1


def test_a_flag_may_be_what_an_except_leaves_out_and_a_name_in_another_database() -> None:
    """It is refused only where the plan would copy it, or write it."""
    assert cutover("--map", "*=new:*", "--except", "new:*", "--except", "flag", "--flip", "flag=1")
    assert cutover("--map", "job:*=step:*", "--to-database", "3", "--flip", "step:flag=1")
    assert luamigrate("follow", "--map", "*=new:*", "--except", "new:*", "--flip", "flag=1", url=NOBODY).code == 2


def test_a_variable_that_has_our_url_is_none_for_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called; others of the user are left."""
    url = "redis://user:hunter2@localhost/0"
    monkeypatch.setenv("WHERE_IT_IS", url)
    monkeypatch.setenv("MINE", "other")
    given = cutover(*FLIP, "--url", url)
    assert given
    assert "WHERE_IT_IS" in given.hooks.without
    assert "MINE" not in given.hooks.without


def test_the_configuration_shows_them_and_of_a_command_the_program_only(any_server: Instance) -> None:
    """The words behind it may be a password."""
    hook = ("--on-flip", "true --token hunter2", "--on-straggler", "true")
    result = luamigrate("follow", "--dry-run", *FLIP, "--freeze", "250", *hook, url=any_server.url)
    assert "hunter2" not in result.out + result.err
    rows = [line.split() for line in result.out.splitlines()]
    assert ["flip", "app:names=new", "(--flip)"] in rows
    assert ["freeze", "250", "(--freeze)"] in rows
    assert ["on", "flip", "true", "…", "(--on-flip)"] in rows
    assert ["on", "straggler", "true", "(--on-straggler)"] in rows
    assert not any(row[:1] in (["attempts"], ["prove"]) for row in rows)
