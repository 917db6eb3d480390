"""The lease of a follow: whoever holds it owns the targets of its plan, and no other process does."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from luamigrate.model.control import Control
from luamigrate.model.cutover import Side
from luamigrate.model.errors import Error, Refused, printable
from luamigrate.model.following import LEASES, TAG, LeaseNote, digest_of, entry_of, lease_of, notes_of, record_of
from luamigrate.model.plans import Plan
from luamigrate.preflight.following import refuse_others
from luamigrate.scripts import follow_calls
from luamigrate.scripts.follow_calls import LeaseReply
from luamigrate.scripts.replies import takes_no_writes
from luamigrate.server.asking import ask_about_key
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered
from luamigrate.server.info import read_time_ms

SECONDS = 30.0
"""For which a lease lives that nobody renews."""
FOR_EVER = -1
"""What the server says of a key that does not expire."""
SECONDS_TO_RENEW = 5.0
SECONDS_OF_DOUBT = 1.0
"""By which it is thought to expire sooner than it does."""
SECONDS_TO_LOOK = 0.5
"""Between two looks at somebody else's lease."""
RECORD_SECONDS = 7 * 86_400.0
"""For which the next follow of the plan knows its targets again."""
SLACK_SECONDS = 2
"""By which the server's idle times are off: it counts them in seconds, by a clock that it reads now and then."""

_Answer = TypeVar("_Answer")


class NotWritten(Error):
    """The server takes no writes at present, not even that of a lease."""


@dataclass
class Lease:
    """The lease of one plan, and the record of what was known of the targets."""

    deployment: Deployment
    plan: Plan
    control: Control
    patience: float
    """Seconds for which a slot that is being moved is waited for."""
    flag: bytes | None = None
    """The key that its cut-over flips; None where there is none."""
    side: Side = Side.SOURCES
    """Which side the application writes: the index tells others of it from the next time on that it is renewed."""
    value: bytes = field(init=False)
    """What the lease has while it is ours: nobody else knows it."""
    is_used: bool = field(init=False, default=False)
    """Whether the targets are ours: from then on they may have been written."""
    _renewed: float = field(init=False, default=0.0)
    _held_until: dict[Connection, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.value = secrets.token_hex(16).encode()
        self._digest = digest_of(self.plan)
        self._entry = entry_of(self._digest, self.deployment.database)
        self._tag = TAG if self.deployment.slots else b""
        who = f"{socket.gethostname()}, process {os.getpid()}"
        self._notes = notes_of(self.plan, self.deployment.database, who)

    @property
    def name(self) -> bytes:
        """The name of the lease."""
        return lease_of(self._digest) + self._tag

    @property
    def proof(self) -> tuple[bytes, bytes]:
        """Its name, and the value that it has while it is ours."""
        return self.name, self.value

    @property
    def _record(self) -> bytes:
        return record_of(self._digest) + self._tag

    def held_until(self, server: Connection) -> int:
        """Return until when the lease is held, by the clock of a node: milliseconds since 1970."""
        if server not in self._held_until:
            left = SECONDS - SECONDS_OF_DOUBT - (time.monotonic() - self._renewed)
            self._held_until[server] = read_time_ms(server) + int(left * 1000)
        return self._held_until[server]

    def take(self) -> None:
        """Take the lease. One that is left of a process that has died is waited for.

        Raises Refused where somebody renews it, and thus is alive.
        """
        left = 0
        while self._call("take") is not LeaseReply.HELD:
            before, left = left, self._left()
            if left == FOR_EVER:
                raise Refused(
                    f"follow: the lease {printable(self.name)} never expires, so no follow wrote it: delete it"
                )
            if before and left > before:
                raise Refused(f"follow: a follow of this plan is under way ({self._holder()}): stop it first")
            seconds = max(0, left) / 1000
            self.control.tell(f"waiting for a lease, of a follow that has ended or is alive: {seconds:.0f} s left")
            if self.control.stop():
                raise Refused("follow: it was stopped before it had the lease")
            time.sleep(SECONDS_TO_LOOK)

    def take_again(self) -> None:
        """Take the lease that has expired, or went with all keys. Raises Refused where somebody has such names now."""
        if self._call("take") is not LeaseReply.HELD:
            raise Refused(
                f"follow: meanwhile another follow has begun ({self._holder()}): this one has lost its targets"
            )
        # Nor may one of another plan, about some of the same names, have seen that there was none.
        self.refuse_others()

    def refuse_others(self) -> None:
        """Ask once more, while it is held. Raises Refused where others have such names, or have cut them over."""
        refuse_others(self.deployment, self.plan, self.flag, self.patience, self.control)

    def use(self) -> None:
        """Note that the targets are owned, before the first of them is written. Raises Refused where it is lost."""
        if not self.renew("owned"):
            self.take_again()
            self.renew("owned")
        self.is_used = True

    def renew_if_due(self, known: str) -> bool:
        """Renew the lease now and then, and note what is known of the targets; return whether it is still held."""
        if time.monotonic() - self._renewed < min(SECONDS_TO_RENEW, SECONDS / 3):
            return True
        return self.renew(known)

    def renew(self, known: str) -> bool:
        """Renew the lease, and note what is known of the targets; return whether it is still held."""
        return self._call("renew", known) is LeaseReply.HELD

    def release(self, known: str) -> None:
        """Give the lease up."""
        self._call("release", known)

    def read_record(self) -> tuple[bool, int | None]:
        """Return whether a follow has owned these targets, and for how many seconds they may have got out of step.

        That is None where it cannot be told.
        """
        seen = self._ask(lambda server: server.call("GET", self._record).answer())
        if not isinstance(seen, bytes):
            return False, None
        if not seen.isdigit():
            raise Error("the server does not tell about the record of a follow as it should")
        now = self._ask(read_time_ms)
        return True, (now - int(seen)) // 1000 + SLACK_SECONDS if int(seen) else None

    def _call(self, verb: str, known: str = "") -> LeaseReply:
        # Read before the lease is renewed: it is held for longer than what comes of them.
        began = time.monotonic()
        times = {server: read_time_ms(server) for server in self.deployment.primaries} if self.deployment.slots else {}
        try:
            reply = self._ask(partial(self._send, verb, known))
        except (Refused, Answered) as problem:
            if self.is_used and (takes_no_writes(str(problem)) or "OOM" in str(problem)):
                raise NotWritten(str(problem)) from None
            raise Refused(f"follow: the lease cannot be taken: {problem}") from None
        if reply is LeaseReply.HELD:
            self._renewed = began
            held_ms = int((SECONDS - SECONDS_OF_DOUBT) * 1000)
            self._held_until = {server: moment + held_ms for server, moment in times.items()}
        return reply

    def _send(self, verb: str, known: str, server: Connection) -> LeaseReply:
        home, databases = server.database, tuple(self._notes)
        return follow_calls.lease(
            server,
            verb,
            (self.name, self._record, *[LEASES] * len(databases)),
            databases=(home, home, *databases) if len(databases) > 1 else (),
            value=self.value,
            plan=self._entry,
            about=[replace(note, side=self.side).written() for note in self._notes.values()],
            lease_ms=int(SECONDS * 1000),
            record_ms=int(RECORD_SECONDS * 1000),
            known=known,
        )

    def _ask(self, ask: Callable[[Connection], _Answer]) -> _Answer:
        """Ask the server that has the lease, wherever that is by now."""
        return ask_about_key(self.deployment, self.name, ask, patience=self.patience, control=self.control)

    def _left(self) -> int:
        left = self._ask(lambda server: server.call("PTTL", self.name).answer())
        return left if isinstance(left, int) else 0

    def _holder(self) -> str:
        entry = self._ask(lambda server: server.call("HGET", LEASES, self._entry).answer())
        note = LeaseNote.read(entry.partition(b" ")[2]) if isinstance(entry, bytes) else None
        return note.who if note else printable(self.name)
