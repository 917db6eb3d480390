"""A proxy that stands before a server and cuts connections at a chosen moment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

Cut = Callable[[bytes], int | None]
"""Is given what is to be passed on; returns how many bytes still pass before the connection is cut, or None."""


def never(_: bytes) -> int | None:
    """Cut nothing."""
    return None


@contextmanager
def cutting(path: Callable[[], str] | str, requests: Cut = never, replies: Cut = never) -> Iterator[str]:
    """Stand before the server at a socket path, or at what is the path then, and yield the URL of the proxy."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, path, requests, replies), daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


def _accept(listener: socket.socket, path: Callable[[], str] | str, requests: Cut, replies: Cut) -> None:
    with suppress(OSError):
        while True:
            outside, _ = listener.accept()
            outside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            inside = socket.socket(socket.AF_UNIX)
            try:
                inside.connect(path if isinstance(path, str) else path())
            except OSError:
                outside.close()
                continue
            for one, other, cut in ((outside, inside, requests), (inside, outside, replies)):
                threading.Thread(target=_pass_on, args=(one, other, cut), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket, cut: Cut) -> None:
    with closing(one), closing(other), suppress(OSError):
        try:
            while content := one.recv(65536):
                passing = cut(content)
                other.sendall(content[:passing])
                if passing is not None:
                    return
        finally:
            # Closing alone would not end what the other thread waits for.
            for end in (one, other):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
