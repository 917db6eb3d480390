"""A command that is sent to a server, what is put under WATCH before it, and its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from luamigrate.model.errors import Error, printable
from luamigrate.server.errors import explain


@dataclass
class Watch:
    """Keys of any slots that are put under WATCH one by one, on one connection, and end with it."""

    keys: Sequence[bytes]
    refusal: Error | None = None
    """Why one of them is not under WATCH; told with the answer to the command that they were sent with."""
    refused: set[bytes] = field(default_factory=set)
    """Those that are not."""

    def refuse(self, key: bytes, problem: Error) -> None:
        """Note that a key is not under WATCH, and why."""
        self.refused.add(key)
        self.refusal = problem

    @property
    def packed(self) -> bytes:
        """The commands: packed by hand in a third of the time, because there is one for each key."""
        return b"".join([b"*2\r\n$5\r\nWATCH\r\n$%d\r\n%b\r\n" % (len(key), key) for key in self.keys])


class Call:
    """A command that is sent, or will be; its answer is read when it is asked for."""

    def __init__(self, read_next: Callable[[], None], packed: bytes, *, once: bool, watch: Watch | None = None) -> None:
        self._read_next = read_next
        """Reads the answer to the oldest call under way."""
        self.watch = watch
        """What is put under WATCH right before it."""
        self.packed = packed
        self.once = once
        """Whether it must not be sent again, because it makes sense on this connection only."""
        self.sent: float | None = None
        """When it was last sent; None before that."""
        self.repeated = False
        """Whether it was sent again, because the connection was lost before its answer came."""
        self.waited = False
        """Whether we waited for its answer: if it had come before, `seconds` include our own time."""
        self.alone = False
        """Whether no other call was under way when its answer came."""
        self._reply: Any = None
        self.seconds: float | None = None
        """Time from when the server could begin with it to its answer; None while it is under way."""

    @property
    def is_answered(self) -> bool:
        """Whether its answer has come."""
        return self.seconds is not None

    @property
    def name(self) -> str:
        """The command's first word."""
        return printable(self.packed.split(b"\r\n", 3)[2])

    def answer(self) -> Any:
        """Wait for the answer and return it. Raises Error."""
        while self.seconds is None:
            self._read_next()
        if isinstance(self._reply, Error):
            raise self._reply
        if isinstance(self._reply, Exception):
            raise explain(self._reply) from None
        return self._reply

    def complete(self, reply: Any, began: float, *, alone: bool = False, waited: bool = False) -> float:
        """Take the reply; the server could begin with the command at `began`. Return the time now."""
        now = time.perf_counter()
        sent = now if self.sent is None else self.sent
        self._reply, self.waited, self.alone = reply, waited, alone and began < sent
        self.seconds = now - max(began, sent)
        return now
