"""How a follow stands, and lines at its end: what it means, and what to do next. Prints nothing itself."""

from __future__ import annotations

from luamigrate.cli.messages import count_keys, count_targets, follow_state, rescan_reasons
from luamigrate.model.errors import Refused
from luamigrate.model.following import Followed
from luamigrate.model.status import Word
from luamigrate.model.summary import Summary

IN_STEP = "IN STEP at the end: every write that was executed before the last barrier is in its target."
GOES_ON = (
    "Nobody follows now, and what changes is not copied. The same command goes on; it knows its targets again for "
    "seven days, and needs no --replace for that."
)
REFUSED = "REFUSED: nothing was written. See to what is named above; the same command then begins."
FOREIGN = (
    "targets that somebody else has written, and left as they are. Who writes the new names already? Where the source "
    "is right, delete the target (DEL): a follow makes it anew."
)
SEEN = "targets were written or deleted by somebody else at some time, and are put right."
EXTRA = "targets without a source that are not the follow's own. It never deletes them: see to them yourself."
FAILED = "sources that could not be copied, and were tried again and again; the report has the server's text for each."


def follow_block(followed: Followed, told: float, copied: float) -> list[tuple[str, str]]:
    """Return how a follow stands, a name and a text for each line, with changes and copies a second."""
    lag = followed.lag
    lines = [
        ("state", follow_state(followed)),
        ("waiting", f"{followed.dirty:,} dirty, {followed.in_flight:,} in flight"),
        ("lag", f"{lag.now:,.1f} ms now, p50 {lag.p50:,.1f}, p99 {lag.p99:,.1f}, worst {lag.worst:,.1f}"),
        ("a second", f"{told:,.0f} changes, {copied:,.0f} copies"),
        ("scanned again", rescan_reasons(followed.rescans) or "never"),
        ("longest pause", f"{followed.longest_pause_ms:,.1f} ms"),
    ]
    return lines + ([("waits for", followed.waiting_for)] if followed.waiting_for else [])


def follow_lines(summary: Summary, report: str | None) -> list[str]:
    """Return what the end of a follow means."""
    followed = summary.followed or Followed()
    if isinstance(summary.error, Refused):
        return [REFUSED, *([f"Which keys: {report}."] if report else [])]
    if summary.error or summary.interrupted:
        how = "INTERRUPTED" if summary.interrupted else "STOPPED"
        lines = [f"{how}: each target is what its source was when it was copied last, whole or absent. {GOES_ON}"]
    elif followed.in_step:
        lines = [IN_STEP, GOES_ON]
    else:
        lines = [f"NOT IN STEP at the end ({follow_state(followed).partition(': ')[2]}). {GOES_ON}"]
    if past := followed.foreign_seen - followed.foreign:
        lines.append(f"{past:,} {SEEN}")
    counts = ((followed.foreign, "foreign", FOREIGN), (followed.extra, "extra", EXTRA))
    lines += [
        f"{count:,} {word}: {text}" for count, word, text in (*counts, (followed.failed, "failed", FAILED)) if count
    ]
    if followed.has_trouble:
        lines.append(f"Which keys: {report or 'add --report FILE'}.")
    return lines


def prospect(summary: Summary) -> str:
    """Return how a follow would begin, as a dry run has found."""
    counts = summary.totals.counts
    unequal = sum(counts[word] for word in (Word.DIFFERS, Word.PARTIAL, Word.EXPIRY))
    would = [f"copy {count_keys(counts[Word.MISSING])}"] if counts[Word.MISSING] else []
    would += [f"make {count_targets(unequal)} equal to {'its' if unequal == 1 else 'their'} source"] if unequal else []
    first = f"{', '.join(would)}, and " if would else ""
    return f"The same command without --dry-run would {first}follow every change."
