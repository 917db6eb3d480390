"""Shell completion: a real bash reads the script and is asked what could come next."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from luamigrate.cli.options import OnExisting, environment
from luamigrate.model.rules import TYPES
from luamigrate.model.status import CHECKS, Command

CONSOLE_SCRIPT = Path(sys.executable).with_name("luamigrate")
ASK = """
eval "$(luamigrate --show-completion)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_luamigrate_completion luamigrate
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words: str, **settings: str) -> list[str]:
    """Return what bash would offer for the last of some words."""
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("bash is not installed here")
    path = f"{CONSOLE_SCRIPT.parent}:/usr/bin:/bin"
    result = subprocess.run(
        (bash, "--norc", "--noprofile", "-c", ASK, "bash", "luamigrate", *words),
        env=environment(**settings) | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.split()


def test_commands_are_completed() -> None:
    """All of them, and those that begin so."""
    assert {*Command, "demo"} <= set(completed(""))
    assert completed("ver") == ["verify"]


def test_names_of_options_are_completed() -> None:
    """Those of the command, both sides of a switch, and no others."""
    assert completed("run", "--no-v") == ["--no-validate"]
    assert completed("run", "--max-") == ["--max-pause", "--max-rate", "--max-lag"]
    assert completed("check", "--max-") == []


@pytest.mark.parametrize(
    ("option", "values"),
    [("--type", TYPES), ("--on-existing", tuple(OnExisting)), ("--ignore-check", CHECKS)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_are_completed(option: str, values: tuple[str, ...]) -> None:
    """All of them where nothing is typed yet, else those that begin so."""
    assert completed("run", option, "") == list(values)
    first = values[0]
    assert completed("run", option, first[:2]) == [value for value in values if value.startswith(first[:2])]


def test_a_setting_that_would_be_refused_does_not_disturb_completion() -> None:
    """A blank variable is said when the command is run, not in the middle of typing it."""
    assert completed("run", "--qui", DRY_RUN=" ") == ["--quiet"]
