"""The Unix socket of --control: a word a line, and for each a line with a JSON document.

A thread of its own serves it, so that it answers also while the work waits for a server, and the work never looks at
it. The thread only hands over wishes and reads what was noted. It takes one line of each client a turn and then
sleeps, so that clients that ask without end leave the interpreter to the work. An answer that takes a while is asked
for each turn, and its client waits; the others do not.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from luamigrate.model.errors import UsageError, as_typed

LONGEST_PATH = 100
"""Bytes; the system's own limit is little above it."""
LONGEST_LINE = 1000
"""Bytes."""
MOST_CLIENTS = 16
"""When another one comes, the one that has been silent for longest has to go."""
SECONDS_BETWEEN_TURNS = 0.01
SECONDS_BETWEEN_QUESTIONS = 0.02
"""While somebody waits for an answer that takes a while."""
SECONDS_TO_PROBE = 1.0
FOR_OTHERS = 0o177
"""What nobody else may do: the umask."""

Later = Callable[[], dict[str, Any] | None]
"""Gives a document once there is one."""
Answer = dict[str, Any] | Later
Answering = Callable[[bytes], Answer]
"""Gives the document for a line, or what gives it later."""


def check(path: Path) -> bool:
    """Tell whether a dead process of our own user has left a socket at a path. Raises UsageError if it is not free."""
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise UsageError(f"--control: the path of a socket has {LONGEST_PATH} bytes at most")
    shown = as_typed(os.fsencode(path))
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _impossible(path, error) from None
    if not stat.S_ISSOCK(there.st_mode) or there.st_uid != os.geteuid():
        raise UsageError(f"--control: {shown} is there, and is no socket of this user")
    if _is_alive(path):
        raise UsageError(f"--control: somebody listens at {shown} already")
    return True


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(SECONDS_TO_PROBE)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # it has more clients than it takes at once, say
        return True


def _impossible(path: Path, error: OSError) -> UsageError:
    return UsageError(f"--control: cannot listen at {as_typed(os.fsencode(path))}: {error.strerror}")


@contextmanager
def listening(path: Path, answer: Answering) -> Iterator[None]:
    """Answer at a path, and leave nothing there at the end. Raises UsageError if the path is not free."""
    with socket.socket(socket.AF_UNIX) as listener:
        mine: tuple[int, int] | None = None
        try:
            mine = _bind(listener, path)
            server = _Server(listener, answer)
            server.start()
            try:
                yield
            finally:
                server.end()
        finally:
            _remove(path, mine)


def _bind(listener: socket.socket, path: Path) -> tuple[int, int]:
    """Listen at a path, for our own user alone; return by what the socket is known again."""
    is_stale = check(path)
    former = os.umask(FOR_OTHERS)
    try:
        if is_stale:
            path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))
        listener.listen()
        return _identity(path)
    except OSError as error:
        raise _impossible(path, error) from None
    finally:
        os.umask(former)


def _identity(path: Path) -> tuple[int, int]:
    there = path.lstat()
    return there.st_dev, there.st_ino


def _remove(path: Path, mine: tuple[int, int] | None) -> None:
    with suppress(OSError):
        if mine == _identity(path):
            path.unlink()


class _Client:
    """Somebody who speaks to us."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.heard = b""
        self.later: Later | None = None
        """What gives the answer for which it waits."""
        self.is_gone = False
        """Whether it says nothing any more. It may still read."""
        connection.settimeout(0)

    @property
    def has_line(self) -> bool:
        return b"\n" in self.heard

    @property
    def is_next(self) -> bool:
        """Whether it has a line that can be answered now."""
        return self.has_line and self.later is None

    def hear(self) -> bool:
        """Read what there is, unless a line waits already; tell whether there may be more to come."""
        if self.has_line:
            return True
        try:
            text = self.connection.recv(LONGEST_LINE - len(self.heard))
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.heard += text
        # Half a line is no word: who has sent it may have died in the middle of a number.
        return bool(text)

    @property
    def is_endless(self) -> bool:
        return len(self.heard) >= LONGEST_LINE and not self.has_line and self.later is None

    def tell(self, document: dict[str, Any]) -> bool:
        """Send a document; tell whether it was taken at once, as by everybody who reads."""
        text = json.dumps(document).encode() + b"\n"
        try:
            return self.connection.send(text) == len(text)
        except OSError:
            return False


class _Server(threading.Thread):
    """Serves the clients of one socket."""

    def __init__(self, listener: socket.socket, answer: Answering) -> None:
        super().__init__(name="control", daemon=True)
        self._listener, self._answer = listener, answer
        self._clients: list[_Client] = []
        """All clients that are connected; the one that has spoken last is the last."""
        self._selector = selectors.DefaultSelector()
        self._ending, self._end = socket.socketpair()
        listener.settimeout(0)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._ending, selectors.EVENT_READ)

    def end(self) -> None:
        """Stop serving."""
        self._end.send(b".")
        self.join()
        for each in (self._end, self._ending, self._selector):
            each.close()

    def run(self) -> None:
        """Serve until that."""
        # Signals are for the thread that works, and interrupt what it waits for.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while self._turn():
            time.sleep(SECONDS_BETWEEN_TURNS)
        for client in tuple(self._clients):
            self._answer_late(client)
        for client in tuple(self._clients):
            self._drop(client)

    def _turn(self) -> bool:
        """Hear and answer each client once; tell whether there is another turn."""
        for key, _ in self._selector.select(self._patience):
            if key.fileobj is self._ending:
                return False
            if key.fileobj is self._listener:
                self._accept()
            elif not key.data.hear():
                self._lose(key.data)
        for client in tuple(self._clients):
            if client.later:
                self._answer_late(client)
            elif client.has_line:
                self._reply(client)
            elif client.is_endless:
                client.tell({"error": f"a line has {LONGEST_LINE:,} bytes at most"})
                self._drop(client)
        return True

    @property
    def _patience(self) -> float | None:
        """How long to wait for something to hear; None for without end."""
        if any(client.is_next for client in self._clients):
            return 0
        return SECONDS_BETWEEN_QUESTIONS if any(client.later for client in self._clients) else None

    def _accept(self) -> None:
        with suppress(OSError):
            client = _Client(self._listener.accept()[0])
            self._clients.append(client)
            self._selector.register(client.connection, selectors.EVENT_READ, client)
            if len(self._clients) > MOST_CLIENTS:
                self._drop(next((each for each in self._clients if not each.later), self._clients[0]))

    def _reply(self, client: _Client) -> None:
        line, _, client.heard = client.heard.partition(b"\n")
        self._clients.remove(client)
        self._clients.append(client)
        answer = self._answer(line)
        if callable(answer):
            client.later = answer
        elif not client.tell(answer):
            self._drop(client)

    def _answer_late(self, client: _Client) -> None:
        """Answer a client that waits, if what it waits for is known."""
        document = client.later() if client.later else None
        if document is None:
            return
        client.later = None
        if not client.tell(document) or client.is_gone:
            self._drop(client)

    def _lose(self, client: _Client) -> None:
        """Hear no more of a client. One that waits for an answer may have closed one direction only."""
        if client.later:
            client.is_gone = True
            self._selector.unregister(client.connection)
        else:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        self._clients.remove(client)
        if not client.is_gone:
            self._selector.unregister(client.connection)
        client.connection.close()
