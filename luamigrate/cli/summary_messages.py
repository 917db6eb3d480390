"""Lines at the end of a command: the summary, what it means, and what to do next. Prints nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from luamigrate.cli import cover_messages
from luamigrate.cli.drift_messages import drift_lines
from luamigrate.cli.follow_messages import follow_lines, prospect
from luamigrate.cli.messages import absent, count_ignored, count_keys, count_targets, no_key
from luamigrate.model.drift import Drift
from luamigrate.model.errors import Exit, Refused, printable
from luamigrate.model.following import Followed
from luamigrate.model.rules import Rule
from luamigrate.model.status import Command, Reason, Word, unfinished, without_reason
from luamigrate.model.summary import Summary, Tally
from luamigrate.preflight.emptiness import a_few, looks_like_glob, nothing_found, taken_literally

MOST_RULES = 50
"""As many rules each have a section and a line of the summary."""

AFTER_CUT_OVER = (
    "Do not run this again after cut-over: once consumers work on the targets, it would copy back what they emptied."
)

VALUES_ARE_KEPT = "Values are copied as they are: key names and ids inside them are not rewritten."

_FAILED_ADVICE = {
    Reason.OOM: "oom: the server is at its maxmemory; give it more.",
    Reason.NOPERM: (
        "noperm: grant this user what the server's text names; where it names no command, see what `luamigrate check` "
        "could not try, and the lines in docs/security.md."
    ),
    Reason.BUSY: "busy: somebody wrote to these keys all the time; try when it is quieter.",
    Reason.TOO_BIG: "too-big: --allow-long-pause takes such keys whole, and blocks the server meanwhile.",
    Reason.VERSION: "version: nodes of different versions; bring all of them to one version first.",
    Reason.CHAIN: "chain: what is copied there would be copied again; --except leaves such keys out.",
    Reason.AMBIGUOUS: "ambiguous: a target does not lead back to its source alone; --except leaves such keys out.",
    Reason.RESERVED: "reserved: names under luamigrate: are not for copies; --except leaves such keys out.",
    Reason.OTHER: "other: --report FILE gives the server's text for each key.",
}

_TO_COPY_ANEW = "Where the source is right, delete that target (DEL) and run again; where the target is, leave it."
_FILL_ADDS = "fill adds it (to sorted sets with --fill-queues; where the expiry is another, with --ignore-expiry)."

_ADVICE: dict[Command, dict[Word, str]] = {
    Command.RUN: {
        Word.MISSING: "targets that vanished between two looks. Run again to copy them.",
        Word.PARTIAL: f"targets that lack a part of their source, left as they were. --on-existing {_FILL_ADDS}",
        Word.DIFFERS: "targets with other values than their source, more than it has, or of another type, left as they "
        f"were. {_TO_COPY_ANEW}",
        Word.EXPIRY: "targets that equal their source but expire at another time. --ignore-expiry accepts that.",
    },
    Command.VERIFY: {
        Word.MISSING: "sources that have no target. luamigrate run copies them.",
        Word.PARTIAL: f"targets that lack a part of their source. luamigrate run --on-existing {_FILL_ADDS}",
        Word.DIFFERS: "targets with other values than their source, more than it has, or of another type. "
        f"{_TO_COPY_ANEW}",
        Word.EXPIRY: "targets that equal their source but expire at another time. --ignore-expiry accepts that.",
        Word.EXTRA: "targets that have no source of their rule's type: the application made them, or their source was "
        "deleted or is of another type. Nothing deletes them for you.",
    },
    Command.ROLLBACK: {
        Word.KEPT: "targets that are left, because something would be lost with them. Those that you can do without, "
        "delete yourself (DEL).",
        Word.EXTRA: "targets that have no source of their rule's type, left as they are.",
    },
    Command.FOLLOW: {
        Word.PARTIAL: "targets that lack a part of their source.",
        Word.DIFFERS: "targets with other values than their source, more than it has, or of another type.",
        Word.EXPIRY: "targets that equal their source but expire at another time.",
        Word.EXTRA: "targets that have no source of their rule's type. Nothing deletes them for you.",
    },
}


_TITLE = {
    Command.RUN: ("Summary", "Summary of the dry run: nothing was written"),
    Command.VERIFY: ("Summary of the comparison: nothing was written",) * 2,
    Command.ROLLBACK: ("Summary of the rollback", "Summary of the dry run: nothing was deleted"),
    Command.FOLLOW: ("Summary of the follow", "Summary of the dry run: nothing was written"),
}


def summary_lines(summary: Summary) -> list[str]:
    """Return the block of totals, then by rule every word that is not zero."""
    totals = summary.totals
    rows = {"Total keys found": totals.found, **_classic_rows(summary), "Errors": totals.counts[Word.FAILED]}
    lines = [
        "Summary of the dry run: nothing is deleted yet" if summary.asks else _TITLE[summary.command][summary.dry_run]
    ]
    lines += [f"  {name:<24}{count:>12,}" for name, count in rows.items()]
    lines.append(f"  {'Duration':<24}{f'{summary.seconds:,.2f} s':>12}")
    lines.append(f"  {'Longest script':<24}{f'{summary.slowest_script_seconds * 1000:,.1f} ms':>12}")
    if summary.followed and summary.followed.freeze_ms is not None:
        lines.append(f"  {'Writes frozen for':<24}{f'{summary.followed.freeze_ms:,.1f} ms':>12}")
    ended_early = summary.interrupted or summary.error
    shown = _rules_shown(summary)
    for rule, tally in shown.items():
        nothing = "nothing found before it ended" if ended_early else no_key(rule, summary.plan)
        words = _words(tally)
        lines.append(f"  {rule}: {', '.join(filter(None, (words, absent(rule, tally)))) if words else nothing}")
    if len(shown) < len(summary.by_rule):
        lines.append(f"  {_others_line(summary, shown)}")
    lines += [
        f"  found at {node}: {tally.found:,}: {_words(tally)}" for node, tally in sorted(summary.by_shard.items())
    ]
    return lines


def _rules_shown(summary: Summary) -> dict[Rule, Tally]:
    """Return the rules that have a line of their own: all, or of very many the first that are not clean."""
    if len(summary.by_rule) <= MOST_RULES:
        return summary.by_rule
    unclean = unfinished(summary.command, dry_run=summary.dry_run) | {Word.FAILED, Word.EXTRA}
    by_rule = summary.by_rule.items()
    odd = ((rule, tally) for rule, tally in by_rule if tally.ignored or any(map(tally.counts.get, unclean)))
    return dict(islice(odd, MOST_RULES))


def _others_line(summary: Summary, shown: Mapping[Rule, Tally]) -> str:
    others, empty = Tally(), 0
    for rule, tally in summary.by_rule.items():
        if rule not in shown:
            others.add(tally)
            empty += not tally.seen
    without = f"; for {empty:,} of them there is no key" if empty else ""
    count = len(summary.by_rule) - len(shown)
    return f"{count:,} {'more rules' if shown else 'rules'}: {_words(others) or 'nothing'}{without}"


def _classic_rows(summary: Summary) -> dict[str, int]:
    totals, counts = summary.totals, summary.totals.counts
    match summary.command:
        case Command.VERIFY:
            unequal = totals.skipped - counts[Word.SAME] + counts[Word.MISSING]
            return {"Equal": counts[Word.SAME], "Not equal": unequal, **_drift_rows(summary.drift)}
        case Command.ROLLBACK:
            how = "Would be" if summary.dry_run else "Targets"
            deleted = counts[Word.SAME if summary.dry_run else Word.REMOVED]
            return {f"{how} deleted": deleted, f"{how} kept": counts[Word.KEPT], "No target": counts[Word.MISSING]}
        case Command.FOLLOW if not summary.dry_run:
            followed = summary.followed or Followed()
            rows = {"Changes": followed.told, "Copies": followed.copies, "Deleted with source": followed.removed}
            return rows | ({"Stragglers": followed.stragglers} if followed.stragglers else {})
        case _ if summary.dry_run:
            rows = {"Would be copied": counts[Word.MISSING]}
            rows |= {"Would be filled": totals.fillable} if totals.fillable else {}
            return {**rows, "Skipped (already exist)": totals.skipped - totals.fillable}
        case _:
            vanished = {"Vanished meanwhile": counts[Word.MISSING]} if counts[Word.MISSING] else {}
            name = "Successfully migrated" if summary.validated else "Copied, not compared"
            rows = {name: counts[Word.COPIED] + counts[Word.FILLED], "Skipped (already exist)": totals.skipped}
            return rows | vanished


def _drift_rows(drift: Drift | None) -> dict[str, int]:
    """Return what is counted while a comparison goes on."""
    if not drift:
        return {}
    counts = {"Changes": drift.told, "Compared again": drift.compared}
    return {**counts, "Found unequal": drift.drifted, "Healed": drift.healed, "Unequal at the end": drift.remaining}


def _words(tally: Tally) -> str:
    words = [f"{count:,} {word}" for word, count in tally.words if word not in (Word.FAILED, Word.KEPT)]
    words += [f"{count:,} kept ({reason})" for reason, count in sorted(tally.kept.items())]
    words += [f"{count:,} failed ({reason})" for reason, count in sorted(tally.reasons.items())]
    words += [f"ignored {count_ignored(tally)}"] if tally.ignored else []
    return ", ".join(words)


def late_warnings(summary: Summary) -> list[str]:
    """Return warnings about the counts, once they are complete."""
    warnings = []
    if summary.repeated:
        warnings.append(
            f"the connection was lost on the way, and batches of {count_keys(summary.repeated)} were sent twice, "
            "because no answer had come: what the first attempt had done is told as the second one found it (a copy "
            "as same)"
        )
    if summary.rescanned:
        warnings.append(
            "slots of the cluster were moved meanwhile, and scanned again: what was found there "
            f"({count_keys(summary.rescanned)}) is counted twice where it had been found before"
        )
    return warnings


def closing_lines(summary: Summary, databases: dict[str, int] | None, report: str | None, *, quiet: bool) -> list[str]:
    """Return what the result means and what to type next."""
    totals = summary.totals
    if summary.command is Command.FOLLOW and not summary.dry_run:
        return follow_lines(summary, report)
    verbose = "--verbose instead of --quiet" if quiet else "--verbose"
    if summary.drift:
        lines = [] if totals.found else _ending_lines(summary, databases, verbose)
        lines += drift_lines(summary, summary.drift, report)
        return [*lines, *_unmatched_lines(summary, verbose), *cover_messages.closing_lines(summary)]
    lines = _ending_lines(summary, databases, verbose)
    lines += _unmatched_lines(summary, verbose)
    lines += cover_messages.closing_lines(summary)
    if totals.counts[Word.FAILED]:
        advice = " ".join(text for reason, text in _FAILED_ADVICE.items() if totals.reasons[reason])
        lines.append(f"FAILED: {count_keys(totals.counts[Word.FAILED])}. {advice} Then run the same command again.")
        lines += [
            f"The first that failed ({reason}): '{printable(name)}': {without_reason(reason, totals.texts[reason])}"
            for reason in Reason
            if (name := totals.first_failed.get(reason)) is not None
        ]
    lines += _advice_lines(summary, report)
    if summary.dry_run and totals.found:
        lines += _prospect_lines(summary)
    elif summary.exit_code is Exit.OK and totals.found:
        lines.append(_success(summary))
    if summary.sample:
        lines.append(f"A SAMPLE: at most the first {count_keys(summary.sample)} of each rule were compared.")
    if totals.counts[Word.COPIED] + totals.counts[Word.FILLED]:
        lines.append(AFTER_CUT_OVER)
    if summary.command is Command.ROLLBACK and not summary.extra_sought:
        lines.append("Targets that have no source were not looked for (--extra does), and are never deleted.")
    return lines


def _unmatched_lines(summary: Summary, verbose: str) -> list[str]:
    empty = [
        rule
        for rule, tally in summary.by_rule.items()
        if (rule.source.varies or looks_like_glob(rule.source)) and not tally.seen
    ]
    if summary.interrupted or summary.error:
        return []
    lines = [
        f"ABSENT: {tally.absent:,} of {rule}. Is that right? {verbose} names them, as gone."
        + (taken_literally([rule]) if summary.totals.found else "")
        for rule, tally in summary.by_rule.items()
        if rule.is_table and tally.absent
    ]
    if not summary.totals.found:
        return lines
    without_choice = [rule for rule in empty if not summary.plan.choosing_sources(rule)]
    if without_choice:
        lines.append(f"NO KEY MATCHES {_sources(without_choice)}. Is that right?{taken_literally(without_choice)}")
    others = [rule for rule in empty if rule not in without_choice]
    if others:
        lines.append(
            f"NO KEY IS LEFT FOR {_sources(others)}: none matches, or an except leaves them out, or an earlier rule "
            f"takes them. Is that right?{taken_literally(others)}"
        )
    return lines


def _sources(rules: Sequence[Rule]) -> str:
    return a_few([f"'{rule.source}'" for rule in rules])


def _advice_lines(summary: Summary, report: str | None) -> list[str]:
    totals = summary.totals
    lines = []
    for word, advice in _ADVICE[summary.command].items():
        count = totals.counts[word] - (totals.fillable if word is Word.PARTIAL else 0)
        if count and word in unfinished(summary.command, dry_run=summary.dry_run):
            # What was stopped has not tried.
            filled = summary.fills and word is Word.PARTIAL and not (summary.interrupted or summary.error)
            lines.append(f"{count:,} {word}: {_NOT_FILLED if filled else advice}")
    if lines:
        lines.append(f"Which keys, and what differs: {report or 'add --report FILE'}.")
    return lines


_NOT_FILLED = (
    "targets that lack a part of their source and were not filled: sorted sets (--fill-queues), those that expire at "
    "another time (--ignore-expiry), or those that went on changing."
)


def _prospect_lines(summary: Summary) -> list[str]:
    """Return what the real command would do, where the dry run is complete and no question follows."""
    if summary.interrupted or summary.error or (summary.asks and summary.totals.counts[Word.SAME]):
        return []
    counts = summary.totals.counts
    if summary.command is Command.FOLLOW:
        return [prospect(summary)]
    if summary.command is Command.ROLLBACK:
        would = [f"delete {count_targets(counts[Word.SAME])}"] if counts[Word.SAME] else []
    else:
        would = [f"copy {count_keys(counts[Word.MISSING])}"] if counts[Word.MISSING] else []
        would += [f"fill {count_targets(summary.totals.fillable)}"] if summary.totals.fillable else []
    if would:
        lines = [f"The same command without --dry-run would {' and '.join(would)}, and leave the others as they are."]
        return lines + ([VALUES_ARE_KEPT] if summary.command is Command.RUN else [])
    return ["There is nothing to do."] if summary.exit_code is Exit.OK else []


def _ending_lines(summary: Summary, databases: dict[str, int] | None, verbose: str) -> list[str]:
    totals = summary.totals
    looks_only = summary.dry_run or summary.command is Command.VERIFY
    if summary.interrupted or summary.error:
        how = "INTERRUPTED" if summary.interrupted else "STOPPED before the end"
        if summary.dry_run and isinstance(summary.error, Refused):
            return ["REFUSED, as the command itself would be. Nothing was written."]
        if looks_only:
            return [f"{how}: what is counted above has been compared, and nothing was written."]
        if summary.error and str(summary.error).startswith("eviction"):
            return [
                f"{how}: what is counted above is done; what the server has evicted is lost, unless you have a backup."
            ]
        return [f"{how}: what is counted above is done, and nothing is lost. The same command again continues."]
    if not totals.found:
        if (summary.allow_empty or summary.command is Command.FOLLOW) and not totals.ignored:
            return ["No key matched any rule."]
        return [nothing_found(summary.plan, totals.ignored, databases)]
    if totals.ignored:
        ignored = f"IGNORED, because of another type than their rule's: {count_ignored(totals)}."
        return [f"{ignored} {_NOT_DONE[summary.command]} {verbose} names them; a rule of type any takes them too."]
    return []


_NOT_DONE = {
    Command.RUN: "They are not copied.",
    Command.VERIFY: "They are not compared.",
    Command.ROLLBACK: "Their targets are not touched.",
    Command.FOLLOW: "They count as absent.",
}


def _success(summary: Summary) -> str:
    which = "was compared" if summary.sample else "was found"
    of_type = " of its rule's type" if summary.totals.ignored else ""
    if summary.command is Command.ROLLBACK:
        return f"No source{of_type} has a target any more, and every source is as it was."
    if not summary.validated:
        return f"Every source{of_type} that {which} has a target. They were not compared: --validate does."
    extra = " No target without a source was found." if summary.extra_sought else ""
    return f"Every source{of_type} that {which} has an equal target.{extra}"
