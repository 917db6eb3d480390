"""The check `follow`: whether somebody follows these names, and whether a follow could be told of changes."""

from __future__ import annotations

from collections.abc import Iterator

from luamigrate.model.errors import Error, Refused
from luamigrate.model.following import LEASES, LeaseNote, digest_of, lease_of
from luamigrate.model.plans import Plan
from luamigrate.model.prefixes import meet, sides_of
from luamigrate.model.rules import RESERVED
from luamigrate.model.status import Command, Finding, Verdict
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered
from luamigrate.server.listener import Listener

CHANNEL = RESERVED + b"follow"
"""On which nobody speaks."""


def following(deployment: Deployment, plan: Plan, command: Command) -> Iterator[Finding]:
    """Yield what refuses a command, or is to be known, because of a follow."""
    if command is Command.VERIFY or deployment.slots:
        return
    server = deployment.primaries[0]
    try:
        yield from _leases(server, plan, command)
    except (Refused, Answered) as problem:
        text = f"this user may not ask whether a follow is under way: see that none is, or grant the keys: {problem}"
        yield Finding("follow", Verdict.WARNING, text)
    if command is Command.FOLLOW:
        yield _tracking(server)


def _leases(server: Connection, plan: Plan, command: Command) -> Iterator[Finding]:
    """Refuse where somebody follows names that the plan would write, or writes those that it would follow."""
    index = server.call("HGETALL", LEASES).answer()
    entries = dict(zip(index[::2], index[1::2], strict=False)) if isinstance(index, list) else {}
    sources, targets = sides_of(plan)
    for digest, about in entries.items():
        note = LeaseNote.read(about)
        is_own = command is Command.FOLLOW and digest == digest_of(plan)  # that lease is waited for, or taken
        if not note or is_own or server.call("PTTL", lease_of(digest)).answer() == _NO_KEY:
            continue
        writes_theirs = meet(targets, (*note.sources, *note.targets))
        if writes_theirs or (command is Command.FOLLOW and meet(sources, note.targets)):
            text = f"a follow of such names is under way ({note.who}): it owns its targets. Stop it first"
            yield Finding("follow", Verdict.REFUSED, text)


_NO_KEY = -2


def _tracking(server: Connection) -> Finding:
    try:
        Listener(server, [CHANNEL], CHANNEL).close()
    except Error as problem:
        return Finding("follow", Verdict.REFUSED, str(problem).removeprefix("follow: "))
    return Finding("follow", Verdict.OK, "the server tells this user of changes")
