"""Clients beside a follow, each a process of its own: one that writes, and one that is told and does nothing with it.

As a program, `python -m bench.traffic write HOST PORT PIPELINE NAMES KEYS` prints how many writes it has made, and in
how many seconds; NAMES is a pattern for numbers below KEYS. `python -m bench.traffic listen HOST PORT PREFIX...` prints
a line once it is registered, and goes on until it is ended.
"""

from __future__ import annotations

import random
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from urllib.parse import urlsplit

CONNECTIONS = 8
SECONDS = 2.0
PREPARED = 4000
"""Packets that are made before the clock runs."""
RECEIVED_AT_ONCE = 1 << 18


def write(url: str, pipeline: int, names: str, keys: int) -> tuple[int, float]:
    """Have so many writes sent at a time on each connection; return how many were made, and in how many seconds."""
    count, seconds = subprocess.check_output(_command("write", url, str(pipeline), names, str(keys))).split()
    return int(count), float(seconds)


@contextmanager
def listening(url: str, prefixes: Sequence[str]) -> Iterator[None]:
    """Have somebody be told of all changes under these prefixes."""
    process = subprocess.Popen(_command("listen", url, *prefixes), stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.kill()
        process.communicate()


def _command(what: str, url: str, *arguments: str) -> tuple[str, ...]:
    address = urlsplit(url)
    return sys.executable, "-m", "bench.traffic", what, str(address.hostname), str(address.port), *arguments


def _connect(host: str, port: str) -> socket.socket:
    connection = socket.create_connection((host, int(port)))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _pack(*command: str) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(each), each.encode()) for each in command)


def _write(host: str, port: str, pipeline: int, names: str, keys: int) -> None:
    chance = random.Random(1)
    made = [
        b"".join(_pack("HSET", names.format(chance.randrange(keys)), "status", f"{number:07}") for _ in range(pipeline))
        for number in range(PREPARED)
    ]
    packets = cycle(made)
    sockets = [_connect(host, port) for _ in range(CONNECTIONS)]
    # Each answer is an integer of one digit.
    missing = dict.fromkeys(sockets, 4 * pipeline)
    answered, began = 0, time.perf_counter()
    for each in sockets:
        each.sendall(next(packets))
    while time.perf_counter() < began + SECONDS:
        for each in select.select(sockets, [], [])[0]:
            missing[each] -= len(each.recv(RECEIVED_AT_ONCE))
            if not missing[each]:
                answered += pipeline
                missing[each] = 4 * pipeline
                each.sendall(next(packets))
    print(answered, time.perf_counter() - began)


def _listen(host: str, port: str, *prefixes: str) -> None:
    with _connect(host, port) as connection:
        named = [part for each in prefixes for part in ("PREFIX", each)]
        connection.sendall(_pack("HELLO", "3") + _pack("CLIENT", "TRACKING", "ON", "BCAST", *named))
        received = b""
        while not received.endswith(b"+OK\r\n"):
            received += connection.recv(RECEIVED_AT_ONCE)
            assert b"-" not in received[:1], received
        print("ready", flush=True)
        while connection.recv(RECEIVED_AT_ONCE):
            pass


if __name__ == "__main__":
    _, what, host, port, *rest = sys.argv
    if what == "listen":
        _listen(host, port, *rest)
    else:
        _write(host, port, int(rest[0]), rest[1], int(rest[2]))
