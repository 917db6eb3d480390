"""What may come of a key and of a run: status words, reasons, the summary, the exit code."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from luamigrate.errors import Error, Exit
from luamigrate.rules import Plan, Rule


class Word(StrEnum):
    """How one (source, target) pair stands: the same words in Lua, Python, JSON and the docs."""

    COPIED = "copied"
    """The target was absent; it now equals the source."""
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
    MISSING = "missing"
    """There is no target; a run would copy it."""
    GONE = "gone"
    """The source vanished between SCAN and the script."""
    FAILED = "failed"
    """The server refused this key."""
    IGNORED = "ignored"
    """Matches the pattern, but is not of the rule's type; not part of the sum."""


UNFINISHED = (Word.EXPIRY, Word.PARTIAL, Word.DIFFERS)
SKIPPED = (Word.SAME, Word.EXISTS, *UNFINISHED)
UNCLEAN = frozenset((*UNFINISHED, Word.FAILED))
"""The words a report lists: somebody has to look at these keys."""


class Reason(StrEnum):
    """Why a key `failed`."""

    OOM = "oom"
    """The server is at its memory limit."""
    NOPERM = "noperm"
    """The user may not do this to this key."""
    READONLY = "readonly"
    """The server has become a replica."""
    OTHER = "other"
    """Anything else: see the server's text."""


# The servers put the code first in some versions and inside the text in others; Redis 6.2 and 7.0
# say NOPERM in a script as a sentence without the code.
_REASONS = (
    (Reason.OOM, re.compile(r"\bOOM\b")),
    (Reason.READONLY, re.compile(r"\bREADONLY\b")),
    (
        Reason.NOPERM,
        re.compile(r"\bNOPERM\b|ACL failure|[Nn]o permissions to|can't (run this command|access at least)"),
    ),
)


def reason_for(text: str) -> Reason:
    """Name the reason for the server's error text."""
    return next((reason for reason, pattern in _REASONS if pattern.search(text)), Reason.OTHER)


@dataclass(frozen=True, slots=True)
class KeyOutcome:
    """What came of one pair."""

    source: bytes
    target: bytes
    word: Word
    text: str = ""
    """The server's text for `failed`, the type for `ignored`."""
    sizes: tuple[int, int] | None = None
    """Fields or members of source and target, where the script looked (dry run)."""

    @property
    def reason(self) -> Reason | None:
        """Why the key `failed`."""
        return reason_for(self.text) if self.word is Word.FAILED else None


@dataclass(frozen=True, slots=True)
class Batch:
    """What came of the pairs of one script call; without any pairs, news of the scan alone."""

    rule: Rule
    counts: Counter[Word] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    """Types of the `ignored` keys."""
    reasons: Counter[Reason] = field(default_factory=Counter)
    """Reasons of the `failed` keys."""
    elements: Counter[str] = field(default_factory=Counter)
    """Fields or members in `source` and `target`, where the script looked (dry run)."""
    keys: list[KeyOutcome] = field(default_factory=list)
    """The keys whose word is in UNCLEAN; every key where the caller asked for that."""
    scanned: float = 0.0
    """The part of the key space that this rule's scan has seen, 0 to 1."""
    seconds: float = 0.0
    """How long the script took, seen from here."""


@dataclass
class RuleSummary:
    """The counts of one rule, or of all of them."""

    counts: Counter[Word] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    reasons: Counter[Reason] = field(default_factory=Counter)
    elements: Counter[str] = field(default_factory=Counter)

    def add(self, other: Batch | RuleSummary) -> None:
        """Add the counts of a batch or of another summary."""
        self.counts.update(other.counts)
        self.ignored.update(other.ignored)
        self.reasons.update(other.reasons)
        self.elements.update(other.elements)

    @property
    def found(self) -> int:
        """Keys that match the rule's pattern and type: the sum of all words but `ignored`."""
        return self.counts.total()

    @property
    def skipped(self) -> int:
        """Keys whose target was there before."""
        return sum(self.counts[word] for word in SKIPPED)


@dataclass
class Summary:
    """What came of a run, by rule and in total."""

    plan: Plan
    dry_run: bool = False
    validated: bool = True
    allow_empty: bool = False
    """Whether it is a success that no key matches any rule."""
    by_rule: dict[Rule, RuleSummary] = field(init=False)
    began: bool = False
    """Whether the checks had passed."""
    interrupted: bool = False
    error: Error | None = None
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    slowest_script_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.by_rule = {rule: RuleSummary() for rule in self.plan}

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        self.began = True
        self.by_rule[batch.rule].add(batch)
        self.slowest_script_seconds = max(self.slowest_script_seconds, batch.seconds)

    @property
    def totals(self) -> RuleSummary:
        """The counts of all rules together."""
        totals = RuleSummary()
        for summary in self.by_rule.values():
            totals.add(summary)
        return totals

    @property
    def exit_code(self) -> Exit:
        """The exit code, the first that applies."""
        totals = self.totals
        if self.interrupted:
            return Exit.INTERRUPTED
        if totals.counts[Word.FAILED]:
            return Exit.FAILED
        if self.error is not None:
            return self.error.exit_code
        if any(totals.counts[word] for word in UNFINISHED):
            return Exit.UNFINISHED
        if not totals.found and not self.allow_empty:
            return Exit.UNFINISHED
        return Exit.OK
