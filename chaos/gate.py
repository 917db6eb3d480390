"""A gate before a server, with or without TLS: packets pass as they come or in pieces, and somebody may watch."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

AT_ONCE = 65_536
SEED = 7
CUTS = 3
SECONDS_BETWEEN_PIECES = 0.001
FREEZING = b"PAUSE"
"""In each packet by which writes are held or let go."""


class Gate:
    """What happens to the packets that pass."""

    def __init__(self, path: Callable[[], str], own: ssl.SSLContext | None) -> None:
        self.url = ""
        self.splits = 0.0
        """The share of the packets of a freeze that arrive in pieces, some time after each other."""
        self.watch: Callable[[bytes], None] | None = None
        """Is shown each packet before it is passed on."""
        self.after: Callable[[bytes], None] | None = None
        """Is shown each packet once it has been passed on."""
        self._path, self._own = path, own
        self._chance = random.Random(SEED)

    def reset(self) -> None:
        """Let everything pass as it comes."""
        self.splits, self.watch, self.after = 0.0, None, None

    def serve(self, listener: socket.socket) -> None:
        """Accept connections until the listener is closed."""
        with suppress(OSError):
            while True:
                outside, _ = listener.accept()
                threading.Thread(target=self._connect, args=(outside,), daemon=True).start()

    def _connect(self, outside: socket.socket) -> None:
        outside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        inside = socket.socket(socket.AF_UNIX)
        try:
            if self._own:
                outside = self._own.wrap_socket(outside, server_side=True)
            inside.connect(self._path())
        except OSError:
            outside.close()
            inside.close()
            return
        for one, other, passes in ((outside, inside, self._requests), (inside, outside, _as_they_come)):
            threading.Thread(target=_pass_on, args=(one, other, passes), daemon=True).start()

    def _requests(self, other: socket.socket, content: bytes) -> None:
        if watch := self.watch:
            watch(content)
        for piece in self._pieces(content):
            other.sendall(piece)
        if after := self.after:
            after(content)

    def _pieces(self, content: bytes) -> Iterator[bytes]:
        first = 0
        if self._chance.random() < self.splits and FREEZING in content:
            for cut in sorted(self._chance.sample(range(1, len(content)), CUTS)):
                yield content[first:cut]
                time.sleep(SECONDS_BETWEEN_PIECES)
                first = cut
        yield content[first:]


def _as_they_come(other: socket.socket, content: bytes) -> None:
    other.sendall(content)


def _pass_on(one: socket.socket, other: socket.socket, passes: Callable[[socket.socket, bytes], None]) -> None:
    with closing(one), closing(other), suppress(OSError):
        try:
            while content := one.recv(AT_ONCE):
                passes(other, content)
        finally:
            # Closing alone would not end what the other thread waits for.
            for end in (one, other):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


@contextmanager
def before(path: Callable[[], str], own: ssl.SSLContext | None = None) -> Iterator[Gate]:
    """Stand before the server at what is the path of its socket then."""
    gate = Gate(path, own)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gate.url = f"{'rediss' if own else 'redis'}://127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=gate.serve, args=(listener,), daemon=True).start()
        yield gate
