"""Lines at the end of a follow: what it means, and what to do next. Prints nothing itself."""

from __future__ import annotations

from luamigrate.cli.messages import count_keys, count_targets, follow_state
from luamigrate.model.following import Followed
from luamigrate.model.status import Word
from luamigrate.model.summary import Summary

IN_STEP = "IN STEP at the end: every write that was executed before the last barrier is in its target."
GOES_ON = (
    "Nobody follows now, and what changes is not copied. The same command goes on; it knows its targets again for "
    "seven days, and needs no --replace for that."
)
FOREIGN = (
    "targets that somebody else has written, left as they are (or copied again where they had been deleted). Who "
    "writes the new names already? Delete those that are wrong (DEL): a follow makes them anew."
)
EXTRA = "targets without a source that are not the follow's own. It never deletes them: see to them yourself."
FAILED = "sources that could not be copied, and were tried again and again; the report has the server's text for each."


def follow_lines(summary: Summary, report: str | None) -> list[str]:
    """Return what the end of a follow means."""
    followed = summary.followed or Followed()
    if summary.error or summary.interrupted:
        how = "INTERRUPTED" if summary.interrupted else "STOPPED"
        lines = [f"{how}: each target is what its source was when it was copied last, whole or absent. {GOES_ON}"]
    elif followed.in_step:
        lines = [IN_STEP, GOES_ON]
    else:
        lines = [f"NOT IN STEP at the end ({follow_state(followed).partition(': ')[2]}). {GOES_ON}"]
    counts = ((followed.foreign_seen, "foreign", FOREIGN), (followed.extra, "extra", EXTRA))
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
    would += [f"make {count_targets(unequal)} what their sources are"] if unequal else []
    return f"The same command without --dry-run would {', '.join([*would, 'and follow every change'])}."
