"""What a second client feels: a process of its own that sends a small GET again and again, and clocks each.

As a program, `python -m bench.feel HOST PORT` goes on until its standard input ends, and then prints
how long each took.
"""

from __future__ import annotations

import json
import math
import select
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

PAUSE_SECONDS = 0.0002
"""Between an answer and the next request."""

KEY, VALUE = b"second-client", b"12345678"
_SET = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(KEY), KEY, len(VALUE), VALUE)
_GET = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(KEY), KEY)
_DEL = b"*2\r\n$3\r\nDEL\r\n$%d\r\n%b\r\n" % (len(KEY), KEY)
_ANSWER = b"$%d\r\n%b\r\n" % (len(VALUE), VALUE)


Result = TypeVar("Result")


@dataclass(frozen=True)
class Felt:
    """How long the requests of a second client took, in milliseconds, sorted."""

    waits: list[float]

    def percentile(self, percent: float) -> float:
        """Return what so many percent of the requests did not exceed."""
        return self.waits[max(0, math.ceil(percent / 100 * len(self.waits)) - 1)]


def felt_during(url: str, work: Callable[[], Result]) -> tuple[Result, Felt]:
    """Do the work and return its result, and what a second client felt, from a moment before to a moment after."""
    address = urlsplit(url)
    process = subprocess.Popen(
        (sys.executable, "-m", "bench.feel", str(address.hostname), str(address.port)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        result = work()
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return result, Felt(sorted(json.loads(out)))


def _ask(connection: socket.socket, request: bytes, answer: bytes) -> None:
    connection.sendall(request)
    received = b""
    while len(received) < len(answer):
        chunk = connection.recv(4096)
        assert chunk, "the server has gone"
        received += chunk
    assert received == answer, received


def _wait_until_told_to_end(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def _main(host: str, port: str) -> None:
    waits = array("d")
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _ask(connection, _SET, b"+OK\r\n")
        print("ready", flush=True)
        while not _wait_until_told_to_end(PAUSE_SECONDS):
            began = time.perf_counter()
            _ask(connection, _GET, _ANSWER)
            waits.append((time.perf_counter() - began) * 1000)
        _ask(connection, _DEL, b":1\r\n")
    json.dump(waits.tolist(), sys.stdout)


if __name__ == "__main__":
    _main(*sys.argv[1:])
