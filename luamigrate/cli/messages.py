"""Lines for people before and while the work is done. Prints nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from luamigrate.model.drift import Drift
from luamigrate.model.errors import printable
from luamigrate.model.following import Followed, Phase, Rescan
from luamigrate.model.plans import Plan
from luamigrate.model.rules import Rule
from luamigrate.model.status import Command, Finding, KeyOutcome, Note, Notes, Stage, Verdict, Word, without_reason
from luamigrate.model.summary import Summary, Tally
from luamigrate.preflight.emptiness import a_few, count_by_type
from luamigrate.server.deployment import Deployment

FILLS_AT_ONCE = (
    "--settle 0 leaves no time between the two comparisons of a fill: a field that is just being deleted, on the "
    "target first, would be brought back."
)

PATTERNS_IN_QUESTION = 5
"""So many at most: people must read it."""

INSECURE = (
    "--tls-insecure: no certificate is verified. Anybody between here and the server can read and change everything, "
    "the password included."
)


def tls_ignored(names: Sequence[str]) -> str:
    """Warn that settings of TLS from the environment are not used."""
    return f"{', '.join(names)} ignored: the URL asks for no TLS. If it should, it begins with rediss://"


_UNIT = {"hash": "fields", "set": "members", "zset": "members", "list": "items", "stream": "entries", "string": "bytes"}


def key_line(key: KeyOutcome) -> str:
    """Return the line of one key, with the time (UTC) where a comparison goes on."""
    if key.moment is None:
        return _key_line(key)
    minutes, seconds = divmod(key.moment // 1000, 60)
    at = f"{minutes // 60 % 24:02}:{minutes % 60:02}:{seconds:02}"
    if key.was is None:
        return f"{at} {_key_line(key)}"
    how = "equal again" if key.word is Word.SAME else key.word
    return f"{at} {'healed':<8} {printable(key.source)} -> {printable(key.target)}  was {key.was}, is {how}"


def _key_line(key: KeyOutcome) -> str:
    if key.word is Word.EXTRA:
        there = f"is a {key.notes['source_type']}" if key.notes else "is not there"
        return f"{key.word:<8} {printable(key.target)}  {printable(key.source)} {there}"
    line = f"{key.word:<8} {printable(key.source)} -> {printable(key.target)}"
    if key.reason:
        return f"{line}  {key.reason}: {without_reason(key.reason, key.text)}"
    if key.word is Word.IGNORED:
        return f"{line}  is of type {key.text}"
    if key.word in (Word.FOREIGN, Word.STRAGGLER):
        return f"{line}  {key.text}"
    details = [key.text] if key.word is Word.KEPT else []
    if key.sizes:
        source, target = key.sizes
        details.append(f"size {source:,}" + ("" if key.word is Word.MISSING else f", target {target:,}"))
    details += _details(key.notes)
    details += ["would be filled"] if key.fillable else []
    return f"{line}  {'; '.join(details)}" if details else line


def _details(notes: Notes) -> list[str]:
    """Return what differs."""
    details = [
        f"{text} {_named(notes, name)}"
        for name, text in (
            ("missing", "lacks"),
            ("additional", "has more:"),
            ("contradicting", "contradicts in"),
            ("expiring_apart", "expires at another time in"),
        )
        if notes.get(name)
    ]
    if "target_type" in notes:
        details.append(f"is a {notes['target_type']}, not a {notes['source_type']}")
    if "first_difference" in notes:
        details.append(f"differs from index {notes['first_difference']}")
    if isinstance(differing := notes.get("differing"), list):
        details.append(f"differs in {', '.join(str(field).replace('_', ' ') for field in differing)}")
    if "source_ttl_ms" in notes:
        details.append(f"expires {_ttl(notes['target_ttl_ms'])}, its source {_ttl(notes['source_ttl_ms'])}")
    return details


def _named(notes: Notes, name: str) -> str:
    count, names = notes[name], notes.get(f"{name}_names")
    first = [str(each) for each in names] if isinstance(names, list) else []
    more = ", …" if isinstance(count, int) and count > len(first) else ""
    return f"{count:,} ({', '.join(first)}{more})"


def _ttl(milliseconds: Note) -> str:
    return f"in {milliseconds / 1000:,.1f} s" if isinstance(milliseconds, int) else "never"


def section_title(rule: Rule, stage: Stage) -> str:
    """Return the heading of a rule's section."""
    if stage is Stage.EXTRA:
        return f"{rule.targets_text}{rule.where} without {rule.source if not rule.is_table else 'source'} ({rule.type})"
    return f"{rule} ({rule.type})"


def section_line(rule: Rule, stage: Stage, summary: Summary) -> str:
    """Return the line that sums up a rule so far."""
    tally = summary.by_rule[rule]
    if stage is Stage.EXTRA:
        return f"{tally.counts[Word.EXTRA]:,} extra{_waiting(tally)}"
    if not tally.seen:
        return no_key(rule, summary.plan)
    counts = [f"{count:,} {_said(word, summary)}" for word, count in tally.words]
    line = f"found {tally.found + tally.waiting:,}" + (": " if counts else "") + ", ".join(counts) + _waiting(tally)
    if tally.ignored:
        line += f"; ignored {count_ignored(tally)}"
    if missing := absent(rule, tally):
        line += f"; {missing}"
    if summary.dry_run and summary.command is Command.RUN and tally.elements and rule.type in _UNIT:
        target = tally.elements["target"]
        line += f"; {tally.elements['source']:,} {_UNIT[rule.type]}" + (f", {target:,} in the target" if target else "")
    return line


def _said(word: Word, summary: Summary) -> str:
    """Return a status word, or in a dry run what it would become."""
    would_be = {
        (Command.RUN, Word.MISSING): "copied",
        (Command.FOLLOW, Word.MISSING): "copied",
        (Command.ROLLBACK, Word.SAME): "deleted",
    }
    if summary.dry_run and (summary.command, word) in would_be:
        return f"would be {would_be[summary.command, word]}"
    return word


def _waiting(tally: Tally) -> str:
    return f"; {tally.waiting:,} to look at again" if tally.waiting else ""


def no_key(rule: Rule, plan: Plan) -> str:
    """Return the line of a rule without keys."""
    if rule.is_table:
        return "all absent"
    if rule.source_names is not None:
        return "there is no such key"
    return "no key is left for it" if plan.choosing_sources(rule) else "no key matches"


def absent(rule: Rule, tally: Tally) -> str:
    """Return how many names of a table are absent; empty for none, and for other rules."""
    return f"{tally.absent:,} absent" if rule.is_table and tally.absent else ""


def progress_line(scanned: float, database: int | None, found: int, rate: float, left: float | None) -> str:
    """Return the progress of a rule's scan: keys found, found per second now, and the seconds left."""
    of = f" of {database:,} keys" if database else ""
    about = f", about {left:,.0f} s left" if left is not None else ""
    return f"{scanned:.0%}{of} scanned; {found:,} found, {rate:,.0f} a second now{about}"


def large_line(source: bytes, done: float) -> str:
    """Return the progress of a large key."""
    return f"{printable(source)} is big and goes in chunks: {done:.0%}"


def verdict(findings: Sequence[Finding]) -> str:
    """Return the line that a run may start, and whether it would find anything."""
    if any(finding.empty for finding in findings):
        return "run can be started here, but it would find nothing to copy (exit code 3)."
    return "run can be started here."


def finding_line(finding: Finding) -> str:
    """Return the line of one finding."""
    return f"{finding.verdict:<8} {finding.name:<12} {finding.text}"


def refused(findings: Sequence[Finding]) -> str:
    """Return the line that names the checks by which a run would be refused."""
    names = ", ".join(finding.name for finding in findings if finding.verdict is Verdict.REFUSED)
    return f"run would be refused here by {names}; --ignore-check NAME overrides a check"


def status(summary: Summary) -> str:
    """Return the counts so far in one line."""
    totals = summary.totals
    if summary.followed:
        return follow_line(summary.followed, 0.0, 0.0)
    if summary.drift:
        return drift_line(summary.drift, 0.0, 0.0)
    waiting = f"{totals.waiting:,} to look at again" if totals.waiting else ""
    return ", ".join(filter(None, (str(totals), waiting))) or "nothing counted yet"


def follow_state(followed: Followed) -> str:
    """Return in words how a follow stands."""
    if followed.phase is Phase.FREEZING:
        return "writes are frozen"
    if followed.phase is Phase.FINISHED:
        return "finished"
    where = f"{followed.phase}, " if followed.phase is Phase.MIRRORING_BACK else ""
    return f"{where}in step" if followed.in_step else f"{where}not in step: {why_not_in_step(followed)}"


def why_not_in_step(followed: Followed) -> str:
    """Return in words what keeps a follow out of step."""
    reasons = [
        f"{count:,} {name}"
        for name, count in (
            ("foreign", followed.foreign),
            ("extra", followed.extra),
            ("failed", followed.failed),
            ("straggler" if followed.stragglers == 1 else "stragglers", followed.stragglers),
        )
        if count
    ]
    if followed.phase not in (Phase.FOLLOWING, Phase.MIRRORING_BACK):
        reasons.append(f"{followed.phase}")
    elif followed.dirty + followed.in_flight:
        reasons.append(f"{followed.dirty + followed.in_flight:,} to mirror")
    return ", ".join(reasons) or "a barrier is under way"


def follow_line(followed: Followed, told: float, copied: float) -> str:
    """Return a line on how a follow stands, with changes and copies a second."""
    lag = followed.lag
    rates = f"{told:,.0f} changes and {copied:,.0f} copies a second; " if told or copied else ""
    lags = f"lag {lag.now:,.1f} ms now, p50 {lag.p50:,.1f}, p99 {lag.p99:,.1f}, worst {lag.worst:,.1f}"
    return f"{follow_state(followed)}; {rates}{lags}{rescans(followed.rescans, 'scanned')}"


def rescans(counts: Mapping[Rescan, int], what: str) -> str:
    """Return what was done again how often, and why; empty for never."""
    return f"; {what} again {rescan_reasons(counts)}" if counts else ""


def rescan_reasons(counts: Mapping[Rescan, int]) -> str:
    """Return how often more was looked at than had been told, and why."""
    return "; ".join(f"{count:,} times, because {why}" for why, count in counts.items())


def drift_state(drift: Drift) -> str:
    """Return in words how a comparison stands that goes on."""
    words = ", ".join(f"{count:,} {word}" for word, count in drift.unequal.items())
    state = f"{count_pairs(drift.remaining)} not equal ({words})" if words else "no pair is known not to be equal"
    if drift.is_complete:
        return state if words else "all pairs are equal"
    return f"comparing everything; {state}"


def drift_line(drift: Drift, told: float, compared: float) -> str:
    """Return a line on how a comparison stands that goes on, with changes and comparisons a second."""
    rates = f"; {told:,.0f} changes and {compared:,.0f} comparisons a second" if told or compared else ""
    counts = f"; {drift.waiting:,} waiting; found unequal {drift.drifted:,}, healed {drift.healed:,}"
    return f"{drift_state(drift)}{rates}{counts}{rescans(drift.rescans, 'everything compared')}"


def recheck_line(waiting: int) -> str:
    """Return the line that explains the pause before the rechecks."""
    unclean = f"{count_keys(waiting)} not clean at the first check"
    return f"{unclean}; checking again, for a writer may have been between two writes"


def recheck_result(tally: Tally) -> str:
    """Return the line with the results of the rechecks."""
    return f"found now: {tally}"


def question(summary: Summary, server: Deployment | None) -> str:
    """Return the question whether to delete what the dry run before it found."""
    totals = summary.totals
    databases = sorted({rule.where for rule in summary.plan if rule.where})
    where = " and".join(databases) + (f" at {server.whereabouts}" if server else "")
    in_slots = "just before it is deleted, and atomically where both keys are in one slot"
    how = in_slots if server and server.slots else "atomically, as it is deleted"
    names = a_few([rule.targets_text for rule in summary.plan], PATTERNS_IN_QUESTION)
    return (
        f"Delete {count_targets(totals.counts[Word.SAME])} ({names}){where}, each equal to its source, whoever made "
        f"it? {totals.counts[Word.KEPT]:,} would be kept. Nobody must be reading these names any more. "
        f"Each is compared again, {how}."
    )


def count_keys(count: int) -> str:
    """Return a count of keys, singular or plural."""
    return f"{count:,} key" + ("" if count == 1 else "s")


def count_pairs(count: int) -> str:
    """Return a count of pairs, singular or plural."""
    return f"{count:,} pair" + ("" if count == 1 else "s")


def count_targets(count: int) -> str:
    """Return a count of targets, singular or plural."""
    return f"{count:,} target" + ("" if count == 1 else "s")


def count_ignored(tally: Tally) -> str:
    """Return the counts of keys that are of another type than their rule's, by type."""
    return count_by_type(tally.ignored)
