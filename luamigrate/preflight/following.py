"""The check `follow`: whether others have these names, and whether a follow could be told of changes."""

from __future__ import annotations

from collections.abc import Iterator

from luamigrate.model.control import Control
from luamigrate.model.cutover import CUTOVERS
from luamigrate.model.errors import Error, Refused
from luamigrate.model.following import LEASES, LeaseNote
from luamigrate.model.plans import Plan
from luamigrate.model.prefixes import told_prefixes
from luamigrate.model.rules import RESERVED
from luamigrate.model.status import Command, Finding, Verdict
from luamigrate.preflight.flips import flips
from luamigrate.preflight.indexes import Entries, Inquiry
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


def following(deployment: Deployment, plan: Plan, command: Command, flag: bytes | None = None) -> Iterator[Finding]:
    """Yield what refuses a command, or is to be known, because of a follow.

    Raises Refused where this plan was cut over, and is to be followed without the `flag` that was flipped.
    """
    if command is Command.VERIFY:
        return
    yield from _others(Inquiry(deployment, plan, command, flag))
    if command is Command.FOLLOW:
        yield _tracking(deployment)
        if b"" in told_prefixes(plan):
            yield Finding("follow", Verdict.WARNING, EVERY_WRITE)


def refuse_others(deployment: Deployment, plan: Plan, flag: bytes | None, patience: float, control: Control) -> None:
    """Look once more, when the lease of a plan is held. Raises Refused where others have such names meanwhile."""
    for finding in _others(Inquiry(deployment, plan, Command.FOLLOW, flag, patience, control)):
        if finding.verdict is Verdict.REFUSED:
            raise Refused(f"follow: {finding.text}")


def _others(inquiry: Inquiry) -> Iterator[Finding]:
    """Yield why something must not begin because of others, or why that cannot be told."""
    for index, what, find in (
        (CUTOVERS, "such names were cut over", flips),
        (LEASES, "a follow is under way", _leases),
    ):
        try:
            entries = inquiry.entries(index)
        except (Refused, Answered) as problem:
            if inquiry.deployment.is_unsettled(problem):
                text = f"nobody can tell at present whether {what}: try again. {problem}"
                yield Finding("follow", Verdict.REFUSED, text)
                return
            text = f"this user may not ask whether {what}: see that it is not so, or grant the keys: {problem}"
            yield Finding("follow", Verdict.WARNING, text)
            continue
        found = next(find(inquiry, entries), None)
        if found:
            # One is enough; and after a flip nobody should be told to stop the follow that keeps the way back.
            yield found
            return


def _leases(inquiry: Inquiry, entries: Entries) -> Iterator[Finding]:
    """Yield why something must not begin because somebody follows such names, by the entries of the index."""
    now = _now(inquiry) if entries else 0
    for database, found in entries.items():
        for entry, value in found:
            until, _, about = value.partition(b" ")
            note = LeaseNote.read(about)
            if not note or not until.isdigit() or int(until) <= now:
                continue
            # The lease of the same plan is waited for, or taken.
            if not inquiry.is_own(entry) and inquiry.meets(database, note, written=note.mirrored):
                text = (
                    f"a follow of such names is under way ({note.who}), or was killed less than 30 s ago: "
                    "it owns its targets. Stop it first"
                )
                yield Finding("follow", Verdict.REFUSED, text)


def _now(inquiry: Inquiry) -> int:
    """Return the server's time, in milliseconds since 1970; 0, at which every lease is held, where it tells none."""
    try:
        return inquiry.ask(LEASES, read_time_ms)
    except (Refused, Answered):
        return 0


def _tracking(deployment: Deployment) -> Finding:
    try:
        Listeners(deployment.primaries, [CHANNEL], CHANNEL).close()
    except Error as problem:
        return Finding("follow", Verdict.REFUSED, str(problem).removeprefix("follow: "))
    return Finding("follow", Verdict.OK, "the server tells this user of changes")
