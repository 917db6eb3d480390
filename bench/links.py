"""A slow link: a proxy that delivers everything a little later, however much it is.

As a program, `python -m bench.links HOST PORT MICROSECONDS` listens on a loopback port, prints it, and
goes on until its standard input ends.
"""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

RECEIVED_AT_ONCE = 1 << 18


@contextmanager
def slow_link(url: str, round_trip_seconds: float) -> Iterator[str]:
    """Yield the URL of a link to the server with this round trip, half of it in each direction."""
    address = urlsplit(url)
    one_way = str(round(round_trip_seconds / 2 * 1e6))
    process = subprocess.Popen(
        (sys.executable, "-m", "bench.links", str(address.hostname), str(address.port), one_way),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout
        port = int(process.stdout.readline())
        yield f"redis://127.0.0.1:{port}{address.path}"
    finally:
        process.terminate()
        process.communicate()


class _Link:
    """Connections from clients to the server, and what is on its way in both directions."""

    def __init__(self, server: tuple[str, int], delay: float) -> None:
        self._server, self._delay = server, delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._other_end: dict[socket.socket, socket.socket] = {}
        self._on_its_way: deque[tuple[float, socket.socket, bytes]] = deque()
        self.port: int = self._listener.getsockname()[1]

    def go_on(self) -> bool:
        """Wait for bytes to come or to be due, and move them; False once standard input has ended."""
        wait = max(0.0, self._on_its_way[0][0] - time.perf_counter()) if self._on_its_way else None
        # Its time-outs are in microseconds; those of epoll are in milliseconds, which is too coarse.
        ready, _, _ = select.select([sys.stdin, self._listener, *self._other_end], [], [], wait)
        for end in ready:
            if end is sys.stdin:
                return False
            if end is self._listener:
                self._accept()
            elif end in self._other_end:
                self._receive(end)
        self._deliver()
        return True

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._server)
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._other_end[one] = other

    def _receive(self, end: socket.socket) -> None:
        try:
            received = end.recv(RECEIVED_AT_ONCE)
        except ConnectionError:
            received = b""
        self._on_its_way.append((time.perf_counter() + self._delay, self._other_end[end], received))
        if not received:
            del self._other_end[end]

    def _deliver(self) -> None:
        while self._on_its_way and self._on_its_way[0][0] <= time.perf_counter():
            _, end, sent = self._on_its_way.popleft()
            try:
                if sent:
                    end.sendall(sent)
                else:
                    end.shutdown(socket.SHUT_WR)
            except OSError:
                self._other_end.pop(end, None)


def _main(host: str, port: str, microseconds: str) -> None:
    link = _Link((host, int(port)), int(microseconds) / 1e6)
    print(link.port, flush=True)
    while link.go_on():
        pass


if __name__ == "__main__":
    _main(*sys.argv[1:])
