"""Commands that listen at a control socket, in processes of their own, and clients that speak to them."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from luamigrate.cli.options import environment
from tests.clusters import wait_until
from tests.processes import of_this_test
from tests.schemas import read_answer

RULE = ("--map", "job:*=step:*")
HARDLY = ("--max-rate", "1")
"""As slowly as never to come to an end."""


class Controlled:
    """A command that listens."""

    def __init__(self, url: str, path: Path, *arguments: str) -> None:
        self.path = path
        self.process = of_this_test(
            subprocess.Popen(
                (sys.executable, "-m", "luamigrate", *arguments, *RULE, "--control", str(path)),
                env=environment(REDIS_URL=url, SETTLE="0"),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        wait_until(self._listens)

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        try:
            self.connected().close()
        except OSError:
            return False
        return True

    def connected(self) -> socket.socket:
        """Return a client."""
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        try:
            client.connect(str(self.path))
        except OSError:
            client.close()
            raise
        return client

    def ask(self, words: str) -> Any:
        """Send a line, and return the document that answers it."""
        with self.connected() as client:
            client.sendall(f"{words}\n".encode())
            return answer_to(client)

    def wait_until(self, **wanted: Any) -> Any:
        """Wait for a status in which these fields have these values; return it."""
        found: list[Any] = []

        def has_come() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            found.append(self.ask("status"))
            return bool(found[-1].items() >= wanted.items())

        try:
            wait_until(has_come)
        except AssertionError:
            raise AssertionError(found[-1:]) from None
        return found[-1]

    def end(self) -> tuple[int, str, str]:
        """Wait for its end; return the exit code and what it printed, which has no traceback."""
        out, err = self.process.communicate(timeout=30)
        assert "Traceback" not in out + err
        return self.process.returncode, out, err


def answer_to(client: socket.socket) -> Any:
    """Read one answer."""
    with client.makefile("rb") as lines:
        return read_answer(lines.readline())
