"""Proxies that stand before a server: one cuts connections at a chosen moment, one has packets arrive in pieces."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

SECONDS_BETWEEN = 0.01
"""Between two pieces of a packet: long enough for others to be served."""

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


@contextmanager
def splitting(path: str, before: Callable[[], bytes]) -> Iterator[str]:
    """Stand before the server at a socket path; what begins with these bytes, if any, arrives a moment later."""

    def pass_on(content: bytes, other: socket.socket) -> None:
        mark = before()
        first, *rest = content.split(mark) if mark else [content]
        other.sendall(first)
        for piece in rest:
            time.sleep(SECONDS_BETWEEN)
            other.sendall(mark + piece)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, path, never, never, pass_on), daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


def _send(content: bytes, other: socket.socket) -> None:
    other.sendall(content)


def _accept(
    listener: socket.socket,
    path: Callable[[], str] | str,
    requests: Cut,
    replies: Cut,
    send: Callable[[bytes, socket.socket], None] = _send,
) -> None:
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
            for one, other, cut, pass_on in ((outside, inside, requests, send), (inside, outside, replies, _send)):
                threading.Thread(target=_pass_on, args=(one, other, cut, pass_on), daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket, cut: Cut, send: Callable[[bytes, socket.socket], None]) -> None:
    with closing(one), closing(other), suppress(OSError):
        try:
            while content := one.recv(65536):
                passing = cut(content)
                send(content[:passing], other)
                if passing is not None:
                    return
        finally:
            # Closing alone would not end what the other thread waits for.
            for end in (one, other):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
