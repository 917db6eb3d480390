"""Whether names were cut over: then the new ones are live, and the old ones are kept for the way back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from luamigrate.model.cutover import CUTOVERS, CutoverNote, CutoverRecord
from luamigrate.model.errors import Error, Refused, printable
from luamigrate.model.status import Finding, Verdict
from luamigrate.preflight.indexes import Entries, Inquiry
from luamigrate.scripts.follow_calls import read_hash
from luamigrate.server.connection import Connection


def flips(inquiry: Inquiry, entries: Entries) -> Iterator[Finding]:
    """Yield why something must not begin because such names were cut over, by the entries of the index.

    A follow that flips the same flag may go on: which side it is on, it finds out by itself. Raises Refused for a
    follow of the same plan that would not: nobody may ignore that.
    """
    for database, found in entries.items():
        for entry, text in found:
            note, is_own = CutoverNote.read(text), inquiry.is_own(entry)
            if note is None:
                yield Finding("follow", Verdict.REFUSED, _unreadable(entry))
                continue
            what = "" if is_own and note.flag == inquiry.flag else _shared(inquiry, database, note)
            problem = _flipped(inquiry, note, what) if what else None
            if problem and is_own:
                raise Refused(f"follow: {problem}")
            if problem:
                yield Finding("follow", Verdict.REFUSED, problem)


def _shared(inquiry: Inquiry, database: int, note: CutoverNote) -> str:
    """Return what a cut-over was of, if that concerns whoever asks; empty if it does not."""
    # The old names are written by whoever follows after a flip.
    if inquiry.meets(database, note, written=note.sources):
        return "such names were cut over"
    has_flag = note.flag == inquiry.flag and note.database == inquiry.deployment.database
    return "other names were cut over by the same flag" if has_flag else ""


def _flipped(inquiry: Inquiry, note: CutoverNote, what: str) -> str | None:
    """Return what is to be said of a cut-over; None where nothing was flipped."""
    name = printable(note.record)
    try:
        reply = inquiry.ask(note.record, partial(_read, note=note))
    except Error as problem:
        return f"whether {what} cannot be told, because {name} cannot be read: {problem}"
    if reply == []:
        return None
    record = CutoverRecord.read(reply)
    if not record:
        return f"{name} is no record of a cut-over: see who wrote it; if nobody needs it, delete it"
    flag, value = printable(record.flag), printable(record.value)
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.moment / 1000))
    return (
        f"{what} at {at} UTC (flag '{flag}'): the new ones are live, and the old ones are kept for "
        f"the way back. Follow with that plan and --flip '{flag}={value}'; then 'luamigrate control SOCKET back' makes "
        "the old names live again, and 'finish' gives them up"
    )


def _read(server: Connection, *, note: CutoverNote) -> object:
    return read_hash(server, note.record, database=note.database).answer()


def _unreadable(entry: bytes) -> str:
    name = printable(CUTOVERS)
    return (
        f"nobody can tell which names were cut over by the entry {printable(entry)} of {name}: is it that of a later "
        f"version? If not: HDEL {name} {printable(entry)}"
    )
