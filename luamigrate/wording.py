"""What is said about keys and runs: lines for people, documents for programs. Says nothing itself."""

from __future__ import annotations

from typing import Any

from luamigrate.errors import Exit, printable
from luamigrate.outcome import KeyOutcome, Reason, RuleSummary, Summary, Word
from luamigrate.rules import Rule
from luamigrate.servers import Server

AFTER_CUT_OVER = (
    "This is for the time before cut-over: once consumers work on the targets, running it again would copy back what "
    "they have emptied."
)

_FAILED_ADVICE = {
    Reason.OOM: "oom: the server is at its maxmemory; give it more.",
    Reason.NOPERM: "noperm: grant this user read and write on the rules' keys.",
    Reason.READONLY: "readonly: the server has become a replica; give the address of the primary.",
    Reason.OTHER: "other: --report FILE gives the server's words for each key.",
}

_TO_COPY_ANEW = "--report FILE names them. Compare; where the source is right, delete that target (DEL) and run again."

_UNFINISHED_ADVICE = {
    Word.PARTIAL: f"targets that lack a part of their source, left as they were. {_TO_COPY_ANEW}",
    Word.DIFFERS: f"targets that contradict their source, left as they were. {_TO_COPY_ANEW}",
    Word.EXPIRY: "targets that equal their source but expire at another time. --ignore-expiry accepts that.",
}


def key_line(key: KeyOutcome) -> str:
    """Tell what came of a key."""
    line = f"{key.word:<8} {printable(key.source)} -> {printable(key.target)}"
    if key.word is Word.FAILED:
        return f"{line}  {key.reason}: {key.text}"
    if key.word is Word.IGNORED:
        return f"{line}  is of type {key.text}"
    if key.sizes:
        source, target = key.sizes
        return f"{line}  size {source:,}" + ("" if key.word is Word.MISSING else f", target {target:,}")
    return line


def rule_line(rule: Rule, summary: RuleSummary, *, dry_run: bool) -> str:
    """Tell what came of a rule."""
    if not summary.found and not summary.ignored:
        return _nothing(rule)
    counts = [
        f"{count:,} would be copied" if dry_run and word is Word.MISSING else f"{count:,} {word}"
        for word, count in _by_word(summary)
    ]
    line = f"found {summary.found:,}" + (": " if counts else "") + ", ".join(counts)
    if summary.ignored:
        line += f"; ignored {_ignored(summary)}"
    if summary.elements:
        unit = "fields" if rule.type == "hash" else "members"
        target = summary.elements["target"]
        line += f"; {summary.elements['source']:,} {unit}" + (f", {target:,} in the target" if target else "")
    return line


def _nothing(rule: Rule) -> str:
    return "no key matches" if rule.source.has_star else "there is no such key"


def progress_line(scanned: float, found: int, seconds: float) -> str:
    """Tell how far the scan of a rule is."""
    left = f", about {seconds / scanned - seconds:,.0f} s left" if scanned else ""
    return f"{scanned:.0%} scanned, {found:,} keys, {found / seconds:,.0f} keys/s{left}"


def summary_lines(summary: Summary) -> list[str]:
    """Return the classic block, then by rule every word that is not zero."""
    totals = summary.totals
    migrated = "Successfully migrated" if summary.validated else "Copied, not compared"
    done, word = ("Would be copied", Word.MISSING) if summary.dry_run else (migrated, Word.COPIED)
    rows = {
        "Total keys found": f"{totals.found:,}",
        done: f"{totals.counts[word]:,}",
        "Skipped (already exist)": f"{totals.skipped:,}",
        "Errors": f"{totals.counts[Word.FAILED]:,}",
        "Duration": f"{summary.seconds:,.2f} s",
    }
    lines = ["Summary of the dry run: nothing was written" if summary.dry_run else "Summary"]
    lines += [f"  {name:<24}{value:>12}" for name, value in rows.items()]
    lines += [f"  {rule}: {_rule_summary(rule, counts)}" for rule, counts in summary.by_rule.items()]
    return lines


def _rule_summary(rule: Rule, counts: RuleSummary) -> str:
    words = [f"{count:,} {word}" for word, count in _by_word(counts) if word is not Word.FAILED]
    words += [f"{count:,} failed ({reason})" for reason, count in sorted(counts.reasons.items())]
    words += [f"ignored {_ignored(counts)}"] if counts.ignored else []
    return ", ".join(words) or _nothing(rule)


def closing_lines(summary: Summary, databases: dict[str, int] | None) -> list[str]:
    """Say in words what the result means and what to type next."""
    totals = summary.totals
    lines = []
    if summary.interrupted:
        lines.append("INTERRUPTED: nothing is lost. Running the same command again continues.")
    elif summary.error:
        lines.append("STOPPED before the end: what is counted above is done. Running the same command again continues.")
    elif not totals.found:
        lines.append(_nothing_found(summary, databases))
    elif totals.ignored:
        lines.append(f"IGNORED, because of another type than their rule's: {_ignored(totals)}. These were not copied.")
    if totals.counts[Word.FAILED]:
        advice = " ".join(text for reason, text in _FAILED_ADVICE.items() if totals.reasons[reason])
        lines.append(f"FAILED: {_keys(totals.counts[Word.FAILED])}. {advice} Then run the same command again.")
    for word, advice in _UNFINISHED_ADVICE.items():
        if totals.counts[word]:
            lines.append(f"{totals.counts[word]:,} {word}: {advice}")
    if summary.exit_code is Exit.OK and totals.found:
        lines.append(_success(summary))
    if totals.counts[Word.COPIED]:
        lines.append(AFTER_CUT_OVER)
    return lines


def _nothing_found(summary: Summary, databases: dict[str, int] | None) -> str:
    if summary.totals.ignored:
        return f"NO KEY IS OF ITS RULE'S TYPE: ignored {_ignored(summary.totals)}. Give the rule another type."
    if summary.allow_empty:
        return "No key matched any rule."
    line = "NO KEY MATCHED ANY RULE."
    if databases is not None:
        line += " Keys by database: " + (", ".join(f"{n:,} in {name}" for name, n in databases.items()) or "none") + "."
    return line + " Are the server, the database (the number at the end of the URL) and the patterns the right ones?"


def _success(summary: Summary) -> str:
    missing = summary.totals.counts[Word.MISSING]
    if summary.dry_run and missing:
        return f"The same command without --dry-run would copy {_keys(missing)} and leave the others as they are."
    if not summary.validated:
        return "Every source that was found has a target. They were not compared: run with --validate to do so."
    return "Every source that was found has an equal target."


def _keys(count: int) -> str:
    return f"{count:,} key" + ("" if count == 1 else "s")


def document(summary: Summary, command: str, server: Server | None) -> dict[str, Any]:
    """Return the JSON document of a command."""
    totals = summary.totals
    return {
        "command": command,
        "dry_run": summary.dry_run,
        "validated": summary.validated,
        "interrupted": summary.interrupted,
        "exit_code": int(summary.exit_code),
        "server": _server_document(server),
        "rules": [_rule_document(rule, counts) for rule, counts in summary.by_rule.items()],
        "totals": {"found": totals.found, **dict(_by_word(totals)), "ignored": totals.ignored.total()},
        "duration_seconds": round(summary.seconds, 3),
        "slowest_script_ms": round(summary.slowest_script_seconds * 1000, 3),
        "warnings": summary.warnings,
        "error": str(summary.error) if summary.error else None,
    }


def key_document(key: KeyOutcome) -> dict[str, Any]:
    """Return the line of the report that tells about a key."""
    content: dict[str, Any] = {"source": printable(key.source), "target": printable(key.target), "word": key.word}
    if key.word is Word.FAILED:
        content |= {"reason": key.reason, "text": key.text}
    if key.word is Word.IGNORED:
        content |= {"type": key.text}
    if key.sizes:
        content |= {"source_size": key.sizes[0], "target_size": key.sizes[1]}
    return content


def _server_document(server: Server | None) -> dict[str, Any] | None:
    if server is None:
        return None
    who = server.identity
    return {"url": server.url, "product": who.product, "version": who.version, "mode": who.mode, "nodes": 1}


def _rule_document(rule: Rule, counts: RuleSummary) -> dict[str, Any]:
    return {
        "source": str(rule.source),
        "target": str(rule.target),
        "type": rule.type,
        "found": counts.found,
        **dict(_by_word(counts)),
        "ignored": dict(counts.ignored),
        "failed_reasons": dict(counts.reasons),
    }


def _by_word(summary: RuleSummary) -> list[tuple[Word, int]]:
    return [(word, summary.counts[word]) for word in Word if summary.counts[word]]


def _ignored(summary: RuleSummary) -> str:
    return ", ".join(f"{count:,} of type {kind}" for kind, count in sorted(summary.ignored.items()))
