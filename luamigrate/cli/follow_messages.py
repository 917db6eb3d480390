"""How a follow stands, and lines at its end: what it means, and what to do next. Prints nothing itself."""

from __future__ import annotations

from luamigrate.cli.messages import count_keys, count_targets, follow_state, rescan_reasons, why_not_in_step
from luamigrate.model.cutover import Side
from luamigrate.model.errors import Refused
from luamigrate.model.following import Followed, Phase
from luamigrate.model.status import Word
from luamigrate.model.summary import Summary

IN_STEP = "IN STEP at the end: every write that was executed before the last barrier is in its target."
IN_STEP_BACK = "IN STEP at the end: every write that was executed before the last barrier is in its old name too."
GOES_ON = (
    "Nobody follows now, and what changes is not copied. The same command goes on; it knows its targets again for "
    "seven days, and needs no --replace for that."
)
STILL_OLD = "The application writes the old names, as the flag says."
AFTER_FLIP = (
    "The application writes the new names, and nobody mirrors them to the old ones any more. The same command with its "
    "--flip goes on; then 'luamigrate control SOCKET back' has the old names written again, and 'finish' ends the "
    "cut-over. Until then run, fill and rollback of these names are refused."
)
FINISHED = (
    "FINISHED: the application writes the new names. The old ones are as they were at that moment, and nobody mirrors "
    "them any more."
)
WHAT_NEXT = (
    "Next: see that nobody uses the old names any more. Then rollback with the sides of the rules exchanged deletes "
    "those that equal their new name, and keeps and names those whose new name has changed since."
)
REFUSED = "REFUSED: nothing was written. See to what is named above, or give the option that is; then it begins."
FOREIGN = (
    "targets that somebody else has written, and left as they are. Who writes the new names already? Where the source "
    "is right, delete the target (DEL): a follow makes it anew."
)
SEEN = "targets were written or deleted by somebody else at some time, and are put right."
NEW_NAMES = "the application writes the new names"
EXTRA = "targets without a source that are not the follow's own. It never deletes them: see to them yourself."
STRAGGLER = (
    "old names that somebody has written who had read the flag before it was flipped. What was written is kept, and "
    "reaches no new name by itself. For each that is left: bring it to the new name by hand, then delete the old one "
    "(DEL); a follow that goes on makes it anew."
)
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
    lines += [("writes", NEW_NAMES)] if followed.side is Side.TARGETS else []
    lines += [("stragglers", f"{followed.stragglers:,}")] if followed.stragglers else []
    lines += [("last step", followed.steps[-1])] if followed.steps else []
    return lines + ([("waits for", followed.waiting_for)] if followed.waiting_for else [])


def follow_lines(summary: Summary, report: str | None) -> list[str]:
    """Return what the end of a follow means."""
    followed = summary.followed or Followed()
    if isinstance(summary.error, Refused):
        return [REFUSED, *([f"Which keys: {report}."] if report else [])]
    lines = _how_it_ended(summary, followed)
    if past := followed.foreign_seen - followed.foreign:
        lines.append(f"{past:,} {SEEN}")
    counts = (
        (followed.foreign, "foreign", FOREIGN),
        (followed.extra, "extra", EXTRA),
        (followed.failed, "failed", FAILED),
        (followed.stragglers, "straggler" if followed.stragglers == 1 else "stragglers", STRAGGLER),
    )
    lines += [f"{count:,} {word}: {text}" for count, word, text in counts if count]
    if followed.has_trouble:
        lines.append(f"Which keys: {report or 'add --report FILE'}.")
    return lines


def _how_it_ended(summary: Summary, followed: Followed) -> list[str]:
    """Return what the end leaves behind, and what to do next."""
    is_flipped = followed.side is Side.TARGETS
    goes_on = AFTER_FLIP if is_flipped else " ".join((GOES_ON, STILL_OLD) if followed.attempts else (GOES_ON,))
    if summary.error or summary.interrupted:
        how = "INTERRUPTED" if summary.interrupted else "STOPPED"
        copy = "each old name is what its new name" if is_flipped else "each target is what its source"
        return [f"{how}: {copy} was when it was copied last, whole or absent. {goes_on}"]
    if followed.phase is Phase.FINISHED:
        return [FINISHED, WHAT_NEXT]
    if followed.in_step:
        return [IN_STEP_BACK if is_flipped else IN_STEP, goes_on]
    return [f"NOT IN STEP at the end ({why_not_in_step(followed)}). {goes_on}"]


def prospect(summary: Summary) -> str:
    """Return how a follow would begin, as a dry run has found."""
    counts = summary.totals.counts
    unequal = sum(counts[word] for word in (Word.DIFFERS, Word.PARTIAL, Word.EXPIRY))
    would = [f"copy {count_keys(counts[Word.MISSING])}"] if counts[Word.MISSING] else []
    would += [f"make {count_targets(unequal)} equal to {'its' if unequal == 1 else 'their'} source"] if unequal else []
    first = f"{', '.join(would)}, and " if would else ""
    return f"The same command without --dry-run would {first}follow every change."
