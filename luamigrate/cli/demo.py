"""The demo: sample jobs on a throwaway server, and every step shown with the real command."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import redis

from luamigrate.cli import console
from luamigrate.cli.demo_jobs import FLAG, JOBS, NEW, Application, fill
from luamigrate.cli.embedded import embedded_binary, throwaway_server
from luamigrate.cli.options import environment
from luamigrate.cli.signals import Interruption
from luamigrate.model.errors import Exit
from luamigrate.model.following import digest_of, record_of
from luamigrate.model.plans import BUILT_IN

SECONDS_OF_WORK = 0.8
SECONDS_TO_CATCH_UP = 1.0
SECONDS_TO_LOOK = 0.01
_FROZEN = re.compile(r"writes were frozen for (\S+) ms;")
STEPS = (
    ("Could it work here? The checks alone:", ("check",)),
    ("First a dry run, which writes nothing:", ("run", "--dry-run")),
    ("Now copy. Sources stay as they are, and so does what is half-written, job:7's target:", ("run",)),
    (
        "Exit code 3: finished, but job:7's target only holds a part of it. Once more, completing such targets:",
        ("run", "--on-existing", "fill"),
    ),
    ("Is every copy identical?", ("verify",)),
    ("And back: which copies could be deleted without losing anything?", ("rollback", "--dry-run")),
)
CUTOVERS = (
    ("In another terminal, cut over: writes are frozen for some milliseconds, and the flag is flipped:", "cutover"),
    ("What changes is mirrored to the old names now. So there is a way back:", "back"),
    ("And once more, for good:", "cutover"),
)
FINISH = ("The new names have proven themselves. The old ones need not be kept up to date any more:", "finish")


def show(*, keep: bool) -> Exit:
    """Show a whole migration on a throwaway server. Raises Error."""
    with Interruption(), throwaway_server(embedded_binary()) as url:
        with redis.Redis.from_url(url) as client:
            fill(client)
        console.say(
            f"A throwaway server is up at {url}. It holds {JOBS:,} jobs and four collections, among them a job that\n"
            "expires, one with binary data, a job: key that is no hash, and a half-written target."
        )
        for text, options in STEPS:
            console.say(f"\n{text}\n\n$ luamigrate {shlex.join(options)}")
            code = _luamigrate(url, *options)
            console.say(f"\n(exit code {code})")
            if code not in (Exit.OK, Exit.UNFINISHED):
                return Exit(code)
        code = follow(url)
        if code != Exit.OK:
            return Exit(code)
        if keep:
            _keep(url)
    console.say("\nThe server is stopped, and nothing is left behind.")
    return Exit.OK


def _luamigrate(url: str, *arguments: str) -> int:
    command = (sys.executable, "-m", "luamigrate", *arguments)
    return subprocess.run(command, env=environment(REDIS_URL=url), check=False).returncode


def follow(url: str) -> int:
    """Show a cut-over and the way back beside an application that goes on writing, and that nothing is lost."""
    console.say(
        f"\nNow the application goes on working. Before each write it reads the key {FLAG}, which says which names to\n"
        "write; while it is not there, these are the old ones. Every change is followed:"
    )
    application, frozen_ms = Application(url), list[str]()
    with tempfile.TemporaryDirectory(prefix="luamigrate-") as folder:
        path = str(Path(folder) / "control")
        with _following(url, frozen_ms, "--flip", f"{FLAG}={NEW}", "--control", path) as process:
            code = _wait_for(url, process) or cut_over(url, path, application)
            if code:
                process.terminate()
    code = code or process.returncode
    console.say(f"\n(exit code {code}, of follow)")
    if code:
        return code
    console.say("\nIs every copy still identical?\n\n$ luamigrate verify --extra")
    code = _luamigrate(url, "verify", "--extra")
    console.say(f"\n(exit code {code})")
    return code or account(application, frozen_ms)


def cut_over(url: str, path: str, application: Application) -> int:
    """Cut over, go back, cut over once more and finish, with the application at work until the end."""
    with application:
        for text, word in CUTOVERS:
            time.sleep(SECONDS_OF_WORK)
            code = _control(url, path, text, word)
            if code:
                return code
        time.sleep(SECONDS_OF_WORK)
    time.sleep(SECONDS_TO_CATCH_UP)
    return _control(url, path, *FINISH)


def account(application: Application, frozen_ms: Sequence[str]) -> int:
    """Say what became of the application's work; return the exit code."""
    counted = application.counted()
    is_all = counted == application.done
    console.say(
        f"\nThe application has done {application.done:,} steps, and has begun {application.repeated} of them again, "
        f"because of a flip.\nAll writes were frozen for {', '.join(frozen_ms)} ms. "
        f"The server has counted {counted:,} steps: "
        + ("nothing was lost, and nothing was done twice." if is_all else "something was lost, or done twice.")
    )
    return Exit.OK if is_all else Exit.UNFINISHED


def _control(url: str, path: str, text: str, word: str) -> int:
    console.say(f"\n{text}\n\n$ luamigrate control {path} {word}")
    code = _luamigrate(url, "control", path, word)
    console.say(f"\n(exit code {code})")
    return code


@contextmanager
def _following(url: str, frozen_ms: list[str], *options: str) -> Iterator[subprocess.Popen[str]]:
    """Follow, show each line that is printed, and collect for how long writes were frozen.

    On a terminal of its own it would draw over what others print.
    """
    console.say(f"\n$ luamigrate follow {shlex.join(options)}")
    command = (sys.executable, "-u", "-m", "luamigrate", "follow", *options)
    with subprocess.Popen(
        command, env=environment(REDIS_URL=url), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        shown = threading.Thread(target=_show, args=(process.stdout, frozen_ms))
        shown.start()
        try:
            yield process
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
            shown.join()


def _show(lines: Iterable[str], frozen_ms: list[str]) -> None:
    for line in lines:
        frozen_ms += _FROZEN.findall(line)
        console.say(line.rstrip("\n"))


def _wait_for(url: str, process: subprocess.Popen[str]) -> int:
    """Wait until the copies are followed; return the exit code where that has ended instead."""
    # Until then it compares; what is changed before it would refuse to overwrite.
    with redis.Redis.from_url(url) as client:
        while not client.exists(record_of(digest_of(BUILT_IN))):
            if process.poll() is not None:
                return process.returncode or Exit.FAILED
            time.sleep(SECONDS_TO_LOOK)
    return Exit.OK


def _keep(url: str) -> None:
    """Leave the server up with fresh sample jobs, until Ctrl-C or its end."""
    with redis.Redis.from_url(url) as client, suppress(KeyboardInterrupt, redis.ConnectionError):
        client.flushall()
        fill(client)
        program = sys.argv[0] if sys.argv[0].endswith("luamigrate") else "python -m luamigrate"
        console.say(f"\nThe server stays up at {url}, the jobs are as they were at first. Ctrl-C ends it.")
        console.say(f"In another terminal: export REDIS_URL={url}, then {program} run --dry-run")
        while client.ping():
            time.sleep(1)
