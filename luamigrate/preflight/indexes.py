"""What the indexes say of names that others follow, or have cut over, in each database that a plan is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

from luamigrate.model.control import NOBODY, Control
from luamigrate.model.cutover import CutoverNote
from luamigrate.model.errors import Error
from luamigrate.model.following import LeaseNote, digest_of, entry_of, notes_of
from luamigrate.model.plans import Plan
from luamigrate.model.prefixes import meet
from luamigrate.model.status import Command
from luamigrate.scripts.follow_calls import read_hash
from luamigrate.server.asking import ask_about_key
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment

SECONDS_OF_PATIENCE = 5.0
"""For a slot that is just being moved."""

Entries = dict[int, list[tuple[bytes, bytes]]]
"""By database: what an index has, by plan."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Inquiry:
    """What is about to begin, and what others have who know the same names."""

    deployment: Deployment
    plan: Plan
    command: Command
    flag: bytes | None = None
    """The key that a follow would flip; None where it never cuts over."""
    patience: float = SECONDS_OF_PATIENCE
    control: Control = NOBODY

    def entries(self, index: bytes) -> Entries:
        """Read an index in each database of the plan; those in which it has no entry are left out. Raises Error."""
        home = self.deployment.database
        databases = dict.fromkeys(home if each is None else each for each in (None, *self.plan.databases))
        found = {each: self.ask(index, partial(_entries, index=index, database=each)) for each in databases}
        return {database: entries for database, entries in found.items() if entries}

    def ask(self, key: bytes, ask: Callable[[Connection], _Answer]) -> _Answer:
        """Ask the server that has a key. Raises Error."""
        return ask_about_key(self.deployment, key, ask, patience=self.patience, control=self.control)

    def is_own(self, entry: bytes) -> bool:
        """Tell whether an entry is that of the very plan that is to be followed."""
        return self.command is Command.FOLLOW and entry == entry_of(digest_of(self.plan), self.deployment.database)

    def meets(self, database: int, theirs: LeaseNote | CutoverNote, *, written: tuple[bytes, ...]) -> bool:
        """Tell whether it would write names that others have, or follow those that are `written` by others."""
        own = self._notes[database]
        writes_theirs = meet(own.targets, (*theirs.sources, *theirs.targets))
        return writes_theirs or (self.command is Command.FOLLOW and meet(own.sources, written))

    @cached_property
    def _notes(self) -> dict[int, LeaseNote]:
        # Asked for only where there are others: of a long table of names it takes a second.
        return notes_of(self.plan, self.deployment.database, "")


def _entries(server: Connection, *, index: bytes, database: int) -> list[tuple[bytes, bytes]]:
    reply = read_hash(server, index, database=database).answer()
    if not isinstance(reply, list) or len(reply) % 2 or not all(isinstance(each, bytes) for each in reply):
        raise Error("the server does not answer HGETALL as it should")
    return [*zip(reply[::2], reply[1::2], strict=True)]
