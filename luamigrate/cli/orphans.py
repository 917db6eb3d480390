"""Leave no process behind: what is registered here ends with this process, even if that is killed."""

from __future__ import annotations

import atexit
import os
import subprocess
from contextlib import suppress
from threading import Lock
from typing import AnyStr

# Each line names all processes that are up. Reading ends when the writer does, for whatever reason.
# The shell ignores Ctrl-C and a closed terminal: the work that they stop may take a while to end.
_SHELL = """
trap '' INT TERM HUP
while read -r line; do up=$line; done
[ -z "$up" ] || kill -9 $up
"""


class _Keeper:
    """A shell that outlives this process for a moment, and kills what is still up."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: list[subprocess.Popen[bytes] | subprocess.Popen[str]] = []
        self._shell: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        """The end of the pipe by which the shell learns the processes; nobody else has it."""

    def add(self, process: subprocess.Popen[AnyStr]) -> None:
        """Have a process killed when this one ends."""
        with self._lock:
            if not self._shell:
                self._start()
            self._kept.append(process)
            self._tell()

    def end(self) -> None:
        """Have everything that is still up killed, and wait for that."""
        with self._lock:
            if self._shell:
                self._tell()
                os.close(self._pipe)
                self._shell.wait()
                self._shell = None

    def _start(self) -> None:
        end, self._pipe = os.pipe()
        nowhere = subprocess.DEVNULL  # a reader of our output would wait for the shell's end too
        command = ("/bin/sh", "-c", _SHELL)
        self._shell = subprocess.Popen(command, stdin=end, stdout=nowhere, stderr=nowhere, start_new_session=True)
        os.close(end)
        atexit.register(self.end)

    def _tell(self) -> None:
        # The id of a process that has ended may soon be another process's.
        self._kept = [process for process in self._kept if process.poll() is None]
        with suppress(BrokenPipeError):  # somebody has killed the shell: processes end as without it
            os.write(self._pipe, " ".join(str(process.pid) for process in self._kept).encode() + b"\n")


_keeper = _Keeper()


def keep(process: subprocess.Popen[AnyStr]) -> subprocess.Popen[AnyStr]:
    """Have a process killed when this one ends, for whatever reason; return it."""
    _keeper.add(process)
    return process
