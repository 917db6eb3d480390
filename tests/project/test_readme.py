"""The README and the pages for users are true: their sessions, words, exit codes, plans and Python."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from luamigrate import BUILT_IN, Exit, Reason, Word, plan_from_file
from luamigrate.cli import demo_jobs
from luamigrate.cli.commands import app
from luamigrate.cli.options import VARIABLES
from tests.conftest import luamigrate
from tests.instances import Instance

ROOT = Path(__file__).parents[2]
README, TUTORIAL, REFERENCE, PYTHON = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("README.md", "docs/tutorial.md", "docs/reference.md", "docs/python.md")
)
LONGEST = 250
"""Lines of a README that a newcomer reads to its end."""
URL = "redis://127.0.0.1:6379/0"
LONG_ENOUGH = "0.4"
"""Seconds to settle: second looks must come after the scan, as they do on the pages."""


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    """A newcomer decides within two minutes."""
    assert len(README.splitlines()) <= LONGEST
    assert re.findall(r"^\$ (\w+ \w+)", README, re.MULTILINE)[:2] == ["make demo", "make test"]


def replay(session: str, server: Instance) -> str:
    """Run the commands of a session and return it with what they print."""
    lines = []
    for line in session.splitlines():
        if line.startswith("$ "):
            lines += [line, *perform(line.removeprefix("$ "), server).splitlines()]
    return "\n".join(lines) + "\n"


def perform(command: str, server: Instance) -> str:
    """Run one command; a few that are not ours by other means."""
    match shlex.split(command):
        case ["luamigrate", *arguments]:
            result = luamigrate(*arguments, url=server.url, env={"SETTLE": LONG_ENOUGH})
            assert result.err == "", result.err
            return result.out
        case ["cat", name]:
            return Path(name).read_text(encoding="utf-8")
        case ["redis-cli", "-u", "$REDIS_URL", *words]:
            return f"(integer) {server.client.execute_command(*words)}"
        case ["export", *_]:
            return ""
        case _:
            raise AssertionError(f"a session has a command that is not tested: {command}")


def normalised(text: str, url: str = URL) -> str:
    """Leave out what differs from run to run."""
    text = text.replace(url, URL)
    text = re.sub(r"Connected to \S+ \S+", "Connected to valkey 9.1.2", text)
    text = re.sub(r"^(  url +\S+) +", r"\1  ", text, flags=re.MULTILINE)
    text = text.replace(f"{LONG_ENOUGH} ", "2.0 ").replace("(SETTLE)", "(default)")
    text = re.sub(r"^(  [a-z ]{14} \S+( rules)?) +\(", r"\1  (", text, flags=re.MULTILINE)
    text = re.sub(r"Duration +[\d.]+ s", "Duration 0.05 s", text)
    text = re.sub(r"Longest script +[\d.]+ ms", "Longest script 0.5 ms", text)
    # A sample depends on the server's order.
    text = re.sub(r"about [\d.]+ MB, by a sample", "about 1.2 MB, by a sample", text)
    text = re.sub(r"\d of 10\d sources sampled", "0 of 104 sources sampled", text)
    text = re.sub(r"version( +)\S+ \S+", r"version\1valkey 9.1.2", text)
    # Lines about keys come in the order of the server's table.
    about_keys = re.compile(r"(?:^(?:  \w+ +\S+ -> |\{\"source\").*\n)+", re.MULTILINE)
    return about_keys.sub(lambda lines: "".join(sorted(lines[0].splitlines(keepends=True))), text)


def sessions(page: str) -> list[str]:
    """Return the sessions that can be replayed: all but the one that sets up."""
    return [block for block in blocks(page, "console") if "make test" not in block]


@pytest.mark.single_server("it is a session with one server")
@pytest.mark.parametrize("page", [README, TUTORIAL], ids=["README.md", "tutorial.md"])
def test_the_session_is_what_really_happens(
    page: str, any_server: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of the page with its output, against the sample jobs of the demo."""
    monkeypatch.chdir(tmp_path)
    demo_jobs.fill(any_server.client)
    assert sessions(page)
    for session in sessions(page):
        assert normalised(replay(session, any_server), any_server.url) == normalised(session)


COMMANDS = ("run", "verify", "rollback", "check")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_every_option(command: str) -> None:
    """With its variable and what it means."""
    help_text = luamigrate(command, "--help").out
    for names, variable, text in options(command):
        assert all(name in help_text for name in names)
        assert text
        assert variable is None or variable in help_text


def options(command: str) -> list[tuple[tuple[str, ...], str | None, str]]:
    """Return names, environment variable and help of each option of a command."""
    group: Any = typer.main.get_command(app)
    return [
        ((*option.opts, *option.secondary_opts), option.envvar, option.help)
        for option in group.commands[command].params
    ]


PASSWORDS = {"REDIS_PASSWORD", "SENTINEL_PASSWORD"}
"""An option would put them into the process list."""


def test_every_setting_that_decides_what_is_done_has_a_variable_and_the_demo_forgets_them() -> None:
    """What only shapes the output has none; rules on the command line have none either, nor has consent."""
    without = {
        "--map",
        "--type",
        "--pairs",
        "--except",
        "--cover",
        "--json",
        "--report",
        "--report-all",
        "--show-values",
        "--quiet",
        "--verbose",
        "--yes",
        "--ignore-check",
    }
    every = [option for command in (*COMMANDS, "follow") for option in options(command)]
    assert {names[0] for names, variable, _ in every if variable is None} == without
    assert {variable for _, variable, _ in every if variable} | PASSWORDS == VARIABLES


def section(page: str, title: str) -> str:
    """Return a section of a page."""
    return page.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]


def test_words_reasons_and_exit_codes_are_all_explained() -> None:
    """A row for each, and none besides."""
    status_words = section(REFERENCE, "Status words")
    assert set(re.findall(r"^\| `([\w-]+)` \|", status_words, re.MULTILINE)) == {*Word, *Reason}
    codes = re.findall(r"^\| (\d+) \|", section(REFERENCE, "Exit codes"), re.MULTILINE)
    assert sorted(codes) == sorted(str(int(code)) for code in Exit)


def test_the_readme_has_each_word_and_exit_code_in_short() -> None:
    """Several words may share a row."""
    table = section(README, "Words and exit codes")
    rows = re.findall(r"^\| ((?:`\w+`,? ?)+) \|", table, re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(rows))) == sorted(Word)
    assert sorted(re.findall(r"^\| (\d+) \|", table, re.MULTILINE)) == sorted(str(int(code)) for code in Exit)


def test_what_has_no_option_is_explained() -> None:
    """The passwords of the environment."""
    assert all(f"`{variable}`" in section(REFERENCE, "The environment") for variable in PASSWORDS)


def test_the_python_runs(any_server: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    """As it stands, but for the address."""
    demo_jobs.fill(any_server.client)
    block = "\n".join(blocks(PYTHON, "python")).replace(URL, any_server.url)
    exec(compile(block, "python.md", "exec"), {})  # noqa: S102
    out = capsys.readouterr().out
    assert "partial job:7 step:7" in out
    assert re.search("^cutover is done\nback is done\nsources [0-9.]+ 0$", out, re.MULTILINE)


def test_the_plan_file_is_the_built_in_plan() -> None:
    """Spelled out, at the top of the repository."""
    assert plan_from_file(ROOT / "job-to-step.toml") == BUILT_IN


@pytest.mark.parametrize("page", [README, TUTORIAL], ids=["README.md", "tutorial.md"])
def test_the_plan_files_on_the_pages_are_plans(page: str, tmp_path: Path) -> None:
    """With the rules that they show."""
    (block,) = blocks(page, "toml")
    file = tmp_path / "plan.toml"
    file.write_text(block, encoding="utf-8")
    assert [str(rule) for rule in plan_from_file(file)] == ["rq:job:* -> q:job:*", "rq:queues -> q:queues"]


def test_the_test_command_is_the_one_of_ci() -> None:
    """CI runs what the README tells a newcomer to type, and then the same on clusters."""
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    last = (ROOT / ".ci" / "run").read_text().splitlines()[-4:]
    assert last[:2] == ["make test", "make test-cluster CLUSTERS=valkey"]
    assert last[2].startswith("make chaos ")
    assert last[3].startswith("make cutovers ")
