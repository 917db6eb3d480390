"""How a comparison stands that goes on, and lines at its end: what it means, what to do. Prints nothing itself."""

from __future__ import annotations

from luamigrate.cli.messages import count_pairs, drift_state, rescan_reasons
from luamigrate.model.drift import Drift
from luamigrate.model.status import Word
from luamigrate.model.summary import Summary

NO_DRIFT = "NO DRIFT at the end: every pair was equal when it was compared last."
COUNTS = "Nothing was written. The counts by rule are those of the last time that everything was compared."
INCOMPLETE = "INCOMPLETE: not everything had been compared since something may have been missed, so nothing is proven."
FAILED = "Those that failed could not be compared; the report has the server's text for each."


def drift_block(drift: Drift, told: float, compared: float) -> list[tuple[str, str]]:
    """Return how it stands, a name and a text for each line, with changes and comparisons a second."""
    return [
        ("state", drift_state(drift)),
        ("waiting", f"{count_pairs(drift.waiting)} that have changed"),
        ("drift", f"found unequal {drift.drifted:,}, healed {drift.healed:,}"),
        ("a second", f"{told:,.0f} changes, {compared:,.0f} comparisons"),
        ("all again", rescan_reasons(drift.rescans) or "never"),
        ("longest pause", f"{drift.longest_pause_ms:,.1f} ms"),
    ]


def drift_lines(summary: Summary, drift: Drift, report: str | None) -> list[str]:
    """Return what the end of a comparison means that went on."""
    lines = [f"{_how_it_ended(summary)}{COUNTS}"]
    if not drift.is_complete:
        lines.append(INCOMPLETE)
    if drift.remaining:
        words = ", ".join(f"{count:,} {word}" for word, count in drift.unequal.items())
        failed = f" {FAILED}" if drift.unequal.get(Word.FAILED) else ""
        lines.append(f"DRIFT: {count_pairs(drift.remaining)} not equal at the end ({words}).{failed}")
        lines.append(f"Which keys, and what differs: {report or 'add --report FILE'}.")
    elif drift.is_complete:
        lines.append(NO_DRIFT)
    if drift.waiting:
        lines.append(f"BUT {count_pairs(drift.waiting)} had changed since then, and had not been compared again.")
    return lines


def _how_it_ended(summary: Summary) -> str:
    return "INTERRUPTED. " if summary.interrupted else "STOPPED. " if summary.error else ""
