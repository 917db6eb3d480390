"""Which side of a cut-over the application is on, as its flag and the record of the last flip say; and who is told."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from luamigrate.model.control import Control
from luamigrate.model.cutover import CUTOVERS, CutoverOptions, CutoverRecord, Side, cutover_record_of
from luamigrate.model.errors import Error, Refused, UsageError, printable
from luamigrate.model.following import cutover_notes_of, digest_of, entry_of
from luamigrate.model.plans import Plan
from luamigrate.model.rules import RESERVED, Rule
from luamigrate.scripts import library
from luamigrate.scripts.calls import in_database
from luamigrate.server.asking import ask_about_key
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered

NO_EXPIRY = -1
NO_KEY = -2
"""What PTTL says."""

_Answer = TypeVar("_Answer")


class Found(NamedTuple):
    """Which side the application is on."""

    side: Side
    record: CutoverRecord | None
    """What the flip to the targets has left; None on the side of the sources."""
    former: bytes | None
    """What the flag has on the side of the sources; None where it is absent then."""


@dataclass
class CutoverState:
    """The flag of a plan's cut-over, the record of its flip, and its entry in the index."""

    deployment: Deployment
    plan: Plan
    options: CutoverOptions
    control: Control
    patience: float
    """Seconds for which a slot that is being moved is waited for."""
    record: bytes = field(init=False)
    """The name of the record: in a cluster it is in the slot of the flag."""

    def __post_init__(self) -> None:
        """Raise UsageError where the flag or its value cannot serve."""
        self._refuse_names()
        digest = digest_of(self.plan)
        self.record = cutover_record_of(digest, self.flag, is_cluster=self.deployment.slots is not None)
        self._entry = entry_of(digest, self.deployment.database)
        self._notes = cutover_notes_of(
            self.plan,
            self.deployment.database,
            f"{socket.gethostname()}, process {os.getpid()}",
            flag=self.flag,
            value=self.options.value,
            record=self.record,
        )

    @property
    def flag(self) -> bytes:
        """The key that the application reads before each write; it is in the database of the sources."""
        return self.options.flag

    def _refuse_names(self) -> None:
        name = printable(self.flag)
        if not self.flag or not self.options.value:
            raise UsageError("cut-over: the flag needs a name and a value, as in --flip 'app:names=new'")
        if self.flag.startswith(RESERVED):
            raise UsageError(
                f"cut-over: the flag '{name}' is under {RESERVED.decode()}, where luamigrate's own keys are"
            )
        if any(_keeps_names(rule) for rule in self.plan):
            raise UsageError(
                "cut-over: names that are the same in two databases cannot be cut over: the server does not tell in "
                "which of them one was written"
            )
        if self.plan.rule_for(self.flag):
            raise UsageError(
                f"cut-over: the flag '{name}' is a source of the plan: another name, or leave it out (--except)"
            )
        if any(self.plan.origin(self.flag, database) for database in (None, self.deployment.database)):
            raise UsageError(f"cut-over: the flag '{name}' is a target of the plan: give it another name")

    def find(self) -> Found:
        """Find out which side the application is on, in one round trip.

        Raises Refused where the flag cannot serve, or flag and record do not agree: then nobody may mirror anything.
        """
        value, reply = self._ask(self._read)
        record = CutoverRecord.read(reply)
        name, wanted = printable(self.flag), printable(self.options.value)
        if not record and reply != []:
            raise Refused(f"cut-over: {printable(self.record)} is no record of a flip: see who wrote it, and delete it")
        if not record and value == self.options.value:
            raise Refused(
                f"cut-over: the flag '{name}' is '{wanted}' already, and no record says that luamigrate flipped it. If "
                "that cut-over is finished, nothing is left to follow; if it was a rehearsal, set the flag to what it "
                "was, or delete it; or give another value"
            )
        if not record:
            return Found(Side.SOURCES, None, value)
        if record.flag == self.flag and record.value == value == self.options.value:
            return Found(Side.TARGETS, record, record.former)
        raise Refused(f"cut-over: {self._contradiction(record, value)}")

    def confirm(self, side: Side) -> None:
        """Raise Refused where the application is not on this side any more, or nobody knows."""
        if self.find().side is not side:
            raise Refused("cut-over: flag and record have changed meanwhile: start again, and it goes on from there")

    def _contradiction(self, record: CutoverRecord, value: bytes | None) -> str:
        flag, recorded = printable(record.flag), printable(record.value)
        if (record.flag, record.value) != (self.flag, self.options.value):
            return f"this plan was cut over by --flip '{flag}={recorded}': give that, not another flag or value"
        now = "is absent" if value is None else f"is '{printable(value)}'"
        return (
            f"the flag '{flag}' {now}, and its record says that it was flipped to '{recorded}': somebody else has "
            f"written it. Find out which names the application writes; if the new ones, set the flag to '{recorded}'; "
            f"if the old ones, delete {printable(self.record)}"
        )

    def _read(self, server: Connection) -> tuple[bytes | None, object]:
        """Return the value of the flag, and what the server has as the record."""
        kind, left, value, record = (
            server.call(*command)
            for command in (("TYPE", self.flag), ("PTTL", self.flag), ("GET", self.flag), ("HGETALL", self.record))
        )
        name = printable(self.flag)
        if kind.answer() not in (b"string", b"none"):
            raise Refused(f"cut-over: the flag '{name}' is a {printable(kind.answer())}, not a string: another name")
        if left.answer() not in (NO_EXPIRY, NO_KEY):
            raise Refused(f"cut-over: the flag '{name}' expires, and would flip back by itself: PERSIST it")
        if not isinstance(value.answer(), bytes | None):
            raise Error("the server does not answer GET as it should")
        try:
            return value.answer(), record.answer()
        except Answered as problem:
            if "WRONGTYPE" not in str(problem):
                raise
            return value.answer(), None

    def announce(self) -> None:
        """Have the indexes point to the record, before anything is flipped. Raises Refused where they cannot."""
        try:
            for database, note in self._notes.items():
                self._write(database, "HSET", CUTOVERS, self._entry, note.written())
        except (Refused, Answered) as problem:
            raise Refused(f"cut-over: the index {printable(CUTOVERS)} cannot be written: {problem}") from None

    def has_record(self) -> bool:
        """Tell whether there is a record of a flip, or something else of its name. Raises Error."""
        return bool(self._ask(lambda server: server.call("EXISTS", self.record).answer()) != 0)

    def withdraw(self) -> None:
        """Take the pointers away again, unless a record says that something was flipped. Raises Error."""
        if self.has_record():
            return
        for database in self._notes:
            self._write(database, "HDEL", CUTOVERS, self._entry)

    def _write(self, database: int, *command: bytes | str) -> None:
        def write(server: Connection) -> None:
            if database == server.database:
                server.call(*command).answer()
                return
            library.register(server, "in_database")
            in_database(server, database, *command, keys=(CUTOVERS,), writes=True).answer()

        ask_about_key(self.deployment, CUTOVERS, write, patience=self.patience, control=self.control)

    def _ask(self, ask: Callable[[Connection], _Answer]) -> _Answer:
        """Ask the server that has the flag and the record."""
        return ask_about_key(self.deployment, self.flag, ask, patience=self.patience, control=self.control)


def _keeps_names(rule: Rule) -> bool:
    """Tell whether a source of a rule has the name of its target, in another database."""
    if rule.source_names is not None:
        return any(rule.target_of(name) == name for name in rule.source_names)
    return rule.source.literals == rule.target.literals
