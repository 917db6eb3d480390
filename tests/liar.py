"""A server that lies: it stands before a real one, and answers some commands itself, as it is told to."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from typing import Any, cast


@dataclass(frozen=True, slots=True)
class Lie:
    """What is sent in place of the server's answer."""

    content: bytes
    hangs_up: bool = False
    """Whether the connection ends with it: without, nobody could tell a lie that is cut short from a slow server."""


Liar = Callable[[list[bytes]], Lie | None]
"""Is given a command; returns what to answer to it, or None, where the server is to be asked."""


@contextmanager
def lying(path: str, liar: Liar) -> Iterator[str]:
    """Stand before the server at a socket path, and yield the URL of the liar."""
    with _Listener(path, liar) as listener:
        threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
        host, port = listener.server_address[:2]
        yield f"redis://{host!s}:{port}"
        listener.shutdown()


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, path: str, liar: Liar) -> None:
        self.path, self.liar = path, liar
        super().__init__(("127.0.0.1", 0), _Conversation)


class _Conversation(socketserver.StreamRequestHandler):
    """One connection: a command at a time, so that answers keep their order."""

    rbufsize = 1 << 16
    disable_nagle_algorithm = True

    def handle(self) -> None:
        listener = cast("_Listener", self.server)
        requests = cast("BufferedReader", self.rfile)
        # Either end may go away at any time: that is what is tried here.
        with suppress(OSError, EOFError), socket.socket(socket.AF_UNIX) as inside:
            inside.connect(listener.path)
            with inside.makefile("rb") as replies:
                while request := _read_one(requests):
                    lie = listener.liar(_words(request))
                    if not lie:
                        inside.sendall(request)
                    self.connection.sendall(lie.content if lie else _read_one(replies))
                    if lie and lie.hangs_up:
                        return


def _read_one(stream: BufferedReader) -> bytes:
    """Read one request or reply, which is whole; b"" at the end of the stream."""
    line = stream.readline()
    kind, rest = line[:1], line[1:].strip()
    if kind in (b"$", b"=", b"!") and rest != b"-1":
        return line + stream.read(int(rest) + 2)
    if kind in (b"*", b"~", b">", b"%") and rest != b"-1":
        count = int(rest) * (2 if kind == b"%" else 1)
        return line + b"".join(_read_one(stream) for _ in range(count))
    return line


def _words(request: bytes) -> list[bytes]:
    """Return the arguments of a command."""
    words, rest = [], request.partition(b"\r\n")[2]
    while rest:
        length, _, rest = rest.partition(b"\r\n")
        size = int(length[1:])
        words.append(rest[:size])
        rest = rest[size + 2 :]
    return words


def encoded(value: Any) -> bytes:
    """Write a reply as RESP: bytes, integers, None, booleans, floats, exceptions, lists and dictionaries."""
    match value:
        case None:
            return b"$-1\r\n"
        case bool():
            return b"#t\r\n" if value else b"#f\r\n"
        case int():
            return b":%d\r\n" % value
        case float():
            return f",{value!r}\r\n".encode()
        case bytes():
            return b"$%d\r\n%s\r\n" % (len(value), value)
        case Exception():
            return b"-%s\r\n" % str(value).encode("utf-8", "surrogateescape")
        case list():
            return b"*%d\r\n" % len(value) + b"".join(map(encoded, value))
        case dict():
            return b"%%%d\r\n" % len(value) + b"".join(encoded(part) for pair in value.items() for part in pair)
        case _:
            raise TypeError(value)
