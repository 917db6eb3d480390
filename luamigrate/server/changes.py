"""Whether anybody has written to a server since a moment: its own count of changes."""

from __future__ import annotations

from luamigrate.model.errors import Error
from luamigrate.server.connection import Connection
from luamigrate.server.identity import facts_of_info
from luamigrate.server.info import number, read_time_ms

UNKNOWN = b"unknown"
"""The mark where nobody can tell: flip.lua never makes it."""


def read_changes(server: Connection) -> bytes:
    """Return a mark that is another one after each write of anybody; flip.lua makes the same. Raises Error.

    It may be another one for other reasons too: a data set that was saved, a process that was forked. What is read and
    what expires changes nothing.
    """
    seconds = read_time_ms(server) // 1000
    persistence, stats = server.call("INFO", "persistence"), server.call("INFO", "stats")
    facts = facts_of_info(persistence.answer())
    changes, saved = number(facts, "rdb_changes_since_last_save"), number(facts, "rdb_last_save_time")
    # The count begins anew where the data set has been saved, and the time is in seconds: so saves are counted too.
    saves, forks = number(facts, "rdb_saves"), number(facts_of_info(stats.answer()), "total_forks")
    counted = forks if saves is None else saves
    if changes is None or saved is None or counted is None:
        raise Error("the server does not answer INFO as it should: it does not count changes")
    if saves is None and saved >= seconds - 1 and number(facts, "rdb_bgsave_in_progress"):
        return UNKNOWN  # Redis 6.2: that save may end within the second of the last one, and is forked already
    return b"%d %d %d" % (changes, saved, counted)
