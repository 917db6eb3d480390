"""Ctrl-C while Python imports, before the command line has begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import luamigrate
from luamigrate.cli.importing import STOPPING
from luamigrate.cli.options import environment

CONSOLE_SCRIPT = Path(sys.executable).with_name("luamigrate")
WAYS_IN = [(sys.executable, "-m", "luamigrate"), (sys.executable, str(CONSOLE_SCRIPT))]
SLOW_MODULES = ["redis", "typer", "rich"]
"""What takes the time; a module of the test's own stands in for one of them, and waits."""
WAITING = "import sys\nprint('importing', flush=True)\nsys.stdin.readline()\nsys.exit(7)\n"


@contextmanager
def importing(
    way_in: tuple[str, ...], module: str, folder: Path, handlers: dict[signal.Signals, int]
) -> Iterator[subprocess.Popen[str]]:
    """Start the command line and yield it once it is in the middle of importing a module, with signals set so."""
    (folder / f"{module}.py").write_text(WAITING)
    script = "import os, signal, sys\n"
    script += "".join(f"signal.signal({number.value}, signal.Handlers({way}))\n" for number, way in handlers.items())
    script += "os.execv(sys.argv[1], sys.argv[1:])\n"
    process = subprocess.Popen(
        (sys.executable, "-c", script, *way_in, "check"),
        env=environment()
        | {"PYTHONPATH": os.pathsep.join((str(folder), str(Path(luamigrate.__file__).parent.parent)))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "importing\n", process.communicate()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("way_in", WAYS_IN, ids=["module", "script"])
@pytest.mark.parametrize("module", SLOW_MODULES)
@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_while_python_imports_ends_it_in_silence(
    way_in: tuple[str, ...], module: str, number: signal.Signals, tmp_path: Path
) -> None:
    """Exit 130, no traceback."""
    with importing(way_in, module, tmp_path, dict.fromkeys(STOPPING, signal.SIG_DFL.value)) as process:
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == 130


@pytest.mark.parametrize("way_in", WAYS_IN, ids=["module", "script"])
@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_that_is_ignored_when_it_starts_stays_ignored(
    way_in: tuple[str, ...], number: signal.Signals, tmp_path: Path
) -> None:
    """As under nohup, and in the background of a script."""
    with importing(way_in, "typer", tmp_path, dict.fromkeys(STOPPING, signal.SIG_IGN.value)) as process:
        process.send_signal(number)
        process.communicate("go on\n", timeout=20)
        assert process.returncode == 7


def test_signals_are_put_back_once_everything_is_imported(tmp_path: Path) -> None:
    """What has a handler then is the command line's own business: here nothing, for it only says its version."""
    script = (
        "import atexit, signal, sys\nfrom luamigrate import start\nfrom luamigrate.cli.importing import STOPPING\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "atexit.register(lambda: print([signal.getsignal(number) for number in STOPPING]))\n"
        "before = [signal.getsignal(number) for number in STOPPING]\nprint(before)\n"
        "sys.argv = ['luamigrate', '--version']\nstart.main()\n"
    )
    result = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=False)
    before, version, after = result.stdout.splitlines()
    assert (result.returncode, result.stderr) == (0, "")
    assert version == f"luamigrate {luamigrate.__version__}"
    assert before == after


def test_what_comes_first_imports_next_to_nothing() -> None:
    """Until the signals are seen to, there is nothing to wait for."""
    script = (
        "import sys, luamigrate.start\nprint(*sorted(name for name in sys.modules if name.startswith('luamigrate')))"
    )
    script += "\nprint(*{'redis', 'typer', 'rich', 'hiredis', 'ssl', 're', 'typing'} & set(sys.modules))\n"
    result = subprocess.run((sys.executable, "-I", "-c", script), capture_output=True, text=True, check=False)
    assert result.stdout == "luamigrate luamigrate.cli luamigrate.cli.importing luamigrate.start\n\n"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]], ids=" ".join)
def test_help_needs_no_client(arguments: list[str]) -> None:
    """What a command needs is imported when it runs."""
    script = (
        "import atexit, sys\nfrom luamigrate import start\n"
        "atexit.register(lambda: print(*{'redis', 'luamigrate.cli.work', 'rich.progress'} & set(sys.modules)))\n"
        f"sys.argv = ['luamigrate', *{arguments}]\nstart.main()\n"
    )
    result = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == ""
