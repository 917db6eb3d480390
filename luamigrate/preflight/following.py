"""The check `follow`: whether somebody follows these names, and whether a follow could be told of changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from luamigrate.model.errors import Error, Refused
from luamigrate.model.following import LEASES, LeaseNote, digest_of, entry_of, notes_of
from luamigrate.model.plans import Plan
from luamigrate.model.prefixes import meet, told_prefixes
from luamigrate.model.rules import RESERVED
from luamigrate.model.status import Command, Finding, Verdict
from luamigrate.scripts import calls, library
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered
from luamigrate.server.info import read_time_ms
from luamigrate.server.listener import Listeners

CHANNEL = RESERVED + b"follow"
"""On which nobody speaks."""


EVERY_WRITE = (
    "these patterns have no beginning in common but the empty one, so the server tells of every write of every key, in "
    "every database: each one costs the server more, and luamigrate sorts out what is not of the plan"
)


def following(deployment: Deployment, plan: Plan, command: Command) -> Iterator[Finding]:
    """Yield what refuses a command, or is to be known, because of a follow."""
    if command is Command.VERIFY:
        return
    try:
        yield from _leases(deployment.node_for(LEASES), plan, command)
    except (Refused, Answered) as problem:
        text = f"this user may not ask whether a follow is under way: see that none is, or grant the keys: {problem}"
        yield Finding("follow", Verdict.WARNING, text)
    if command is Command.FOLLOW:
        yield _tracking(deployment)
        if b"" in told_prefixes(plan):
            yield Finding("follow", Verdict.WARNING, EVERY_WRITE)


def refuse_others(server: Connection, plan: Plan) -> None:
    """Look once more, when the lease of a plan is held. Raises Refused where another one has been taken meanwhile."""
    with suppress(Answered):
        for finding in _leases(server, plan, Command.FOLLOW):
            raise Refused(f"follow: {finding.text}")


def _leases(server: Connection, plan: Plan, command: Command) -> Iterator[Finding]:
    """Refuse where somebody follows names that the plan would write, or writes those that it would follow."""
    databases = dict.fromkeys(server.database if each is None else each for each in (None, *plan.databases))
    held = {database: notes for database in databases if (notes := [*_notes(server, database)])}
    if not held:
        return  # mostly; and to tell what a long table of names is about takes a second
    own_entry, own_notes = entry_of(digest_of(plan), server.database), notes_of(plan, server.database, "")
    for database, notes in held.items():
        own = own_notes[database]
        for entry, note in notes:
            # The lease of the same plan is waited for, or taken.
            is_own = command is Command.FOLLOW and entry == own_entry
            writes_theirs = meet(own.targets, (*note.sources, *note.targets))
            if not is_own and (writes_theirs or (command is Command.FOLLOW and meet(own.sources, note.targets))):
                text = (
                    f"a follow of such names is under way ({note.who}), or was killed less than 30 s ago: "
                    "it owns its targets. Stop it first"
                )
                yield Finding("follow", Verdict.REFUSED, text)
                return


def _notes(server: Connection, database: int) -> Iterator[tuple[bytes, LeaseNote]]:
    """Yield what the leases are about that are held in a database, by plan."""
    index = _index(server, database)
    if not isinstance(index, list) or not index:
        return
    now = read_time_ms(server)
    for digest, entry in zip(index[::2], index[1::2], strict=False):
        until, _, about = entry.partition(b" ")
        note = LeaseNote.read(about)
        if note and until.isdigit() and int(until) > now:
            yield digest, note


def _index(server: Connection, database: int) -> object:
    if database == server.database:
        return server.call("HGETALL", LEASES).answer()
    library.register(server, "in_database")
    return calls.in_database(server, database, "HGETALL", LEASES, keys=(LEASES,), writes=False).answer()


def _tracking(deployment: Deployment) -> Finding:
    try:
        Listeners(deployment.primaries, [CHANNEL], CHANNEL).close()
    except Error as problem:
        return Finding("follow", Verdict.REFUSED, str(problem).removeprefix("follow: "))
    return Finding("follow", Verdict.OK, "the server tells this user of changes")
