"""What may come of a key and of a run: status words, reasons, the summary, the exit code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from luamigrate.errors import Error, Exit
from luamigrate.rules import Plan, Rule


class Command(StrEnum):
    """What is being done."""

    RUN = "run"
    VERIFY = "verify"
    ROLLBACK = "rollback"
    CHECK = "check"


class Word(StrEnum):
    """How one (source, target) pair stands: the same words in Lua, Python, JSON and the docs."""

    COPIED = "copied"
    """The target was absent; it now equals the source."""
    FILLED = "filled"
    """The target was `partial`; what it lacked was added, and it now equals the source."""
    REMOVED = "removed"
    """The target equalled its source and was deleted."""
    SAME = "same"
    """The target existed and equals the source, expiry included."""
    EXISTS = "exists"
    """The target existed and was not compared."""
    EXPIRY = "expiry"
    """Equal in value, but the key or a field expires at another time."""
    PARTIAL = "partial"
    """The target existed, agrees with the source in all it has, and lacks some of it."""
    DIFFERS = "differs"
    """The target existed and contradicts the source, or is of another type."""
    KEPT = "kept"
    """The target was not deleted, because something would be lost with it."""
    MISSING = "missing"
    """There is no target."""
    GONE = "gone"
    """The source vanished between SCAN and the script."""
    FAILED = "failed"
    """The server refused this key, or our limits did."""
    IGNORED = "ignored"
    """Matches the pattern, but is not of the rule's type; not part of the sum."""
    EXTRA = "extra"
    """A target that has no source; not part of the sum."""


SKIPPED = (Word.SAME, Word.EXISTS, Word.EXPIRY, Word.PARTIAL, Word.DIFFERS)
"""What a run says of targets that were there before."""

_UNFINISHED = frozenset((Word.EXPIRY, Word.PARTIAL, Word.DIFFERS, Word.KEPT, Word.EXTRA))


def unfinished(command: Command, *, dry_run: bool = False) -> frozenset[Word]:
    """Return the words that somebody has to do something about once the command has ended."""
    missing_is_fine = dry_run or command is Command.ROLLBACK
    return _UNFINISHED if missing_is_fine else _UNFINISHED | {Word.MISSING}


_POSSIBLE = {
    Command.RUN: frozenset((*Word,)) - {Word.REMOVED, Word.KEPT, Word.EXTRA},
    Command.VERIFY: frozenset((*Word,)) - {Word.COPIED, Word.FILLED, Word.REMOVED, Word.KEPT, Word.EXISTS},
    Command.ROLLBACK: frozenset((*Word,)) - {Word.COPIED, Word.FILLED, Word.EXISTS},
}


def possible(command: Command, *, dry_run: bool = False) -> frozenset[Word]:
    """Return the words that the scripts of a command may answer."""
    return _POSSIBLE[command] - ({Word.COPIED, Word.FILLED, Word.REMOVED} if dry_run else set())


class Reason(StrEnum):
    """Why a key `failed`."""

    OOM = "oom"
    """The server is at its memory limit."""
    NOPERM = "noperm"
    """The user may not do this to this key."""
    BUSY = "busy"
    """Somebody wrote to a big key each time it was being copied or compared."""
    TOO_BIG = "too-big"
    """It would hold the server for longer than allowed, and cannot be taken apart."""
    VERSION = "version"
    """Its payload comes from a server of another version, which the target's cannot read."""
    OTHER = "other"
    """Anything else: see the server's text."""


# The servers put the code first in some versions and inside the text in others; Redis 6.2 and 7.0
# say NOPERM in a script as a sentence without the code.
_REASONS = (
    (Reason.OOM, re.compile(r"\bOOM\b")),
    (Reason.BUSY, re.compile(r"^busy: ")),
    (Reason.TOO_BIG, re.compile(r"^too-big: ")),
    (Reason.VERSION, re.compile(r"DUMP payload version or checksum are wrong|Bad data format")),
    (
        Reason.NOPERM,
        re.compile(r"\bNOPERM\b|ACL failure|[Nn]o permissions to|can't (run this command|access at least)"),
    ),
)


def reason_for(text: str) -> Reason:
    """Name the reason for the server's error text."""
    return next((reason for reason, pattern in _REASONS if pattern.search(text)), Reason.OTHER)


Note = int | str | None | list["Note"]
Notes = Mapping[str, Note]
"""What differs between a source and its target, by name: see the head of lua/shared/values.lua."""


@dataclass(frozen=True, slots=True)
class KeyOutcome:
    """What came of one pair."""

    source: bytes
    target: bytes
    word: Word
    text: str = ""
    """The server's text for `failed`, the type for `ignored`, the reason for `kept`."""
    sizes: tuple[int, int] | None = None
    """Sizes of source and target, where the script told them: in a dry run of run, or where they say what differs."""
    notes: Notes = field(default_factory=dict)
    """What differs."""
    digest: bytes = b""
    """What a next look may act on: of the names that are missing, where the target could be filled; or `missing`."""
    fillable: bool = False
    """Whether a run would fill it, as a dry run found."""
    clean: bool = True
    """Whether nobody has to look at it."""

    @property
    def reason(self) -> Reason | None:
        """Why the key `failed`."""
        return reason_for(self.text) if self.word is Word.FAILED else None


class Stage(StrEnum):
    """Where in a walk through the plan a batch comes from."""

    SCAN = "scan"
    AGAIN = "again"
    """A second look at what was not clean."""
    EXTRA = "extra"
    """The search for targets without a source."""


@dataclass(slots=True)
class Tally:
    """How often each word came up: in a batch, for a rule, or in all."""

    counts: Counter[Word] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    """Types of the `ignored` keys."""
    reasons: Counter[Reason] = field(default_factory=Counter)
    """Reasons of the `failed` keys."""
    texts: dict[Reason, str] = field(default_factory=dict)
    """What was said of the first key that `failed` for each reason, escaped: the server's words, or our own."""
    kept: Counter[str] = field(default_factory=Counter)
    """Reasons of the `kept` targets: `partial`, `differs` or `expiry`."""
    elements: Counter[str] = field(default_factory=Counter)
    """Sizes in `source` and `target`, where the script was asked for them (dry run)."""
    fillable: int = 0
    """Of the `partial` keys of a dry run, how many the run would fill."""
    waiting: int = 0
    """Keys that wait for a second look; not counted otherwise until then."""

    def add(self, other: Tally) -> None:
        """Add the counts of another."""
        self.counts.update(other.counts)
        self.ignored.update(other.ignored)
        self.reasons.update(other.reasons)
        self.texts = other.texts | self.texts
        self.kept.update(other.kept)
        self.elements.update(other.elements)
        self.fillable += other.fillable
        self.waiting += other.waiting

    def clear(self) -> None:
        """Forget everything."""
        for counts in (self.counts, self.ignored, self.reasons, self.texts, self.kept, self.elements):
            counts.clear()
        self.fillable = self.waiting = 0

    def count(self, word: Word, text: str = "", times: int = 1) -> None:
        """Count an outcome."""
        if word is Word.IGNORED:
            self.ignored[text] += times
            return
        self.counts[word] += times
        if word is Word.FAILED:
            reason = reason_for(text)
            self.reasons[reason] += times
            self.texts.setdefault(reason, text)
        elif word is Word.KEPT:
            self.kept[text] += times

    def measure(self, sizes: tuple[int, int] | None, times: int = 1) -> None:
        """Add the sizes of a source and its target, where they are known."""
        if sizes:
            self.elements.update(source=sizes[0] * times, target=sizes[1] * times)

    @property
    def found(self) -> int:
        """Keys that match the rule's pattern and type: the sum of all words but `ignored` and `extra`."""
        return self.counts.total() - self.counts[Word.EXTRA]

    @property
    def words(self) -> list[tuple[Word, int]]:
        """The words that came up, each with its count, in the order of Word."""
        return [(word, self.counts[word]) for word in Word if self.counts[word]]

    @property
    def seen(self) -> int:
        """Keys that match the rule's pattern, of whatever type."""
        return self.found + self.waiting + self.ignored.total()

    @property
    def skipped(self) -> int:
        """Keys whose target was there before and was left as it was."""
        return sum(self.counts[word] for word in SKIPPED)


class Verdict(StrEnum):
    """What a check comes to."""

    OK = "ok"
    WARNING = "warning"
    """Nothing to be refused for, or the check was not permitted to look, or it is ignored."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found."""

    name: str
    verdict: Verdict
    text: str
    empty: bool = False
    """Whether it found that no key matches any rule, so that a run would end with exit code 3."""

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


@dataclass(frozen=True, slots=True)
class Batch:
    """What came of the pairs of one script call; without any pairs, news of the walk alone."""

    rule: Rule
    stage: Stage = Stage.SCAN
    tally: Tally = field(default_factory=Tally)
    keys: list[KeyOutcome] = field(default_factory=list)
    """The keys that are not clean; every key where the caller asked for that."""
    scanned: float = 0.0
    """The part of the key space that this rule's scan has seen, 0 to 1."""
    seconds: float = 0.0
    """For how long the script held the server: by its own clock, or seen from here where it has none."""
    repeated: int = 0
    """Pairs whose script was sent again, because the connection was lost before its answer came."""
    again: int = 0
    """Keys that may have been found before, in slots of a cluster that were moved meanwhile."""
    warnings: tuple[str, ...] = ()
    """What an operator should know, though it does not forbid anything."""
    began_again: bool = False
    """Whether the walk begins anew, because another server answers: what was counted before holds no more."""
    big: tuple[bytes, float] | None = None
    """The source that is being taken apart, and the part of it that is done."""
    shard: str = ""
    """The node of a cluster that it was found at."""


@dataclass
class Summary:
    """What came of a command, by rule and in total."""

    plan: Plan
    command: Command = Command.RUN
    dry_run: bool = False
    validated: bool = True
    allow_empty: bool = False
    """Whether it is a success that no key matches any rule."""
    fills: bool = False
    """Whether half-written targets were to be filled."""
    sample: int | None = None
    """How many keys of each rule were looked at, at most."""
    asks: bool = False
    """Whether this is a first look, after which the user is asked."""
    extra_sought: bool = False
    """Whether targets without a source were looked for."""
    by_rule: dict[Rule, Tally] = field(init=False)
    by_shard: dict[str, Tally] = field(default_factory=dict)
    """The same by node of a cluster; empty for a single server."""
    began: bool = False
    """Whether the checks had passed."""
    interrupted: bool = False
    error: Error | None = None
    warnings: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """What the checks have found, where they alone were asked for."""
    seconds: float = 0.0
    slowest_script_seconds: float = 0.0
    repeated: int = 0
    again: int = 0

    def __post_init__(self) -> None:
        self.by_rule = {rule: Tally() for rule in self.plan}

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        self.began = True
        self.warnings += batch.warnings
        if batch.began_again:
            self._begin_again()
        self.by_rule[batch.rule].add(batch.tally)
        if batch.shard:
            self.by_shard.setdefault(batch.shard, Tally()).add(batch.tally)
        self.repeated += batch.repeated
        self.again += batch.again
        self.slowest_script_seconds = max(self.slowest_script_seconds, batch.seconds)

    def _begin_again(self) -> None:
        words = ", ".join(f"{count:,} {word}" for word, count in self.totals.words) or "nothing"
        self.warnings.append(
            f"another server process answered in mid-run, so everything was looked at from the beginning; "
            f"counted until then, and not in the summary: {words}"
        )
        for tally in self.by_rule.values():
            tally.clear()
        self.by_shard.clear()

    @property
    def totals(self) -> Tally:
        """The counts of all rules together."""
        totals = Tally()
        for tally in self.by_rule.values():
            totals.add(tally)
        return totals

    @property
    def exit_code(self) -> Exit:
        """The exit code, the first that applies."""
        totals = self.totals
        if self.interrupted:
            return Exit.INTERRUPTED
        if self.command is Command.CHECK:
            if self.error:
                return self.error.exit_code
            return Exit.UNFINISHED if any(finding.empty for finding in self.findings) else Exit.OK
        if totals.counts[Word.FAILED]:
            return Exit.FAILED
        if self.error is not None:
            return self.error.exit_code
        if sum(totals.counts[word] for word in unfinished(self.command, dry_run=self.dry_run)) > totals.fillable:
            return Exit.UNFINISHED
        if not totals.found and not self.allow_empty:
            return Exit.UNFINISHED
        return Exit.OK
