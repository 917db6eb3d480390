"""Leave no process behind: what is kept here ends when we do, also where we are killed and can see to nothing."""

from __future__ import annotations

import atexit
import os
import subprocess
from contextlib import suppress
from threading import Lock
from typing import AnyStr

# Each line names all processes that are up. Reading ends when the writer does, however that came about.
# Ctrl-C and a closed terminal are not meant for the keeper: what they are meant for may go on for a while.
_SHELL = """
trap '' INT TERM HUP
while read -r line; do up=$line; done
[ -z "$up" ] || kill -9 $up
"""


class _Keeper:
    """A shell that outlives this process for a moment, and then kills what is still up."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: list[subprocess.Popen[bytes] | subprocess.Popen[str]] = []
        self._shell: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        """The end of the pipe on which the shell is told the processes; nobody else has it."""

    def add(self, process: subprocess.Popen[AnyStr]) -> None:
        """Have a process killed when this one ends."""
        with self._lock:
            if not self._shell:
                self._start()
            self._kept.append(process)
            self._tell()

    def end(self) -> None:
        """Have what is still up killed, and wait for that."""
        with self._lock:
            if self._shell:
                self._tell()
                os.close(self._pipe)
                self._shell.wait()
                self._shell = None

    def _start(self) -> None:
        end, self._pipe = os.pipe()
        nowhere = subprocess.DEVNULL  # whoever reads what we print would wait for the shell's end too
        command = ("/bin/sh", "-c", _SHELL)
        self._shell = subprocess.Popen(command, stdin=end, stdout=nowhere, stderr=nowhere, start_new_session=True)
        os.close(end)
        atexit.register(self.end)

    def _tell(self) -> None:
        # The number of a process that has ended may soon be somebody else's.
        self._kept = [process for process in self._kept if process.poll() is None]
        with suppress(BrokenPipeError):  # somebody has killed the shell: what is up ends as it always did
            os.write(self._pipe, " ".join(str(process.pid) for process in self._kept).encode() + b"\n")


_keeper = _Keeper()


def keep(process: subprocess.Popen[AnyStr]) -> subprocess.Popen[AnyStr]:
    """Have a process killed when this one ends, whatever ends it; return it."""
    _keeper.add(process)
    return process
