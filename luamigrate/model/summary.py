"""The results of a command: counts by word, batches, the summary, and the exit code."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from luamigrate.model.coverage import Coverage
from luamigrate.model.drift import Drift
from luamigrate.model.errors import Error, Exit
from luamigrate.model.following import Followed
from luamigrate.model.patterns import Pattern
from luamigrate.model.plans import Plan
from luamigrate.model.rules import Rule
from luamigrate.model.status import (
    BESIDE,
    SKIPPED,
    Command,
    Finding,
    KeyOutcome,
    Reason,
    Stage,
    Word,
    reason_for,
    unfinished,
)


@dataclass(slots=True)
class Tally:
    """How often each word was counted: in a batch, for a rule, or in total."""

    counts: Counter[Word] = field(default_factory=Counter)
    ignored: Counter[str] = field(default_factory=Counter)
    """Types of the `ignored` keys."""
    reasons: Counter[Reason] = field(default_factory=Counter)
    """Reasons of the `failed` keys."""
    texts: dict[Reason, str] = field(default_factory=dict)
    """For each reason the error text of the first key that `failed`, escaped."""
    first_failed: dict[Reason, bytes] = field(default_factory=dict)
    """The sources of these keys."""
    kept: Counter[str] = field(default_factory=Counter)
    """Reasons of the `kept` targets: `partial`, `differs` or `expiry`."""
    elements: Counter[str] = field(default_factory=Counter)
    """Sums of the sizes in `source` and `target`, in a dry run."""
    fillable: int = 0
    """How many of a dry run's `partial` keys the run would fill."""
    absent: int = 0
    """Names that the rule has, and that are not there; counted nowhere else."""
    waiting: int = 0
    """Keys that wait for a recheck; counted nowhere else until then."""

    def add(self, other: Tally) -> None:
        """Add the counts of another."""
        self.counts.update(other.counts)
        self.ignored.update(other.ignored)
        self.reasons.update(other.reasons)
        self.texts = other.texts | self.texts
        self.first_failed = other.first_failed | self.first_failed
        self.kept.update(other.kept)
        self.elements.update(other.elements)
        self.fillable += other.fillable
        self.absent += other.absent
        self.waiting += other.waiting

    def count_key(self, key: KeyOutcome) -> None:
        """Count the outcome of one key, whose name may be told."""
        self.count(key.word, key.text)
        if key.reason:
            self.first_failed.setdefault(key.reason, key.source)

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
        """Keys that match the rule's pattern and type: the sum of all words but those that are beside it."""
        return self.counts.total() - sum(self.counts[word] for word in BESIDE)

    @property
    def words(self) -> list[tuple[Word, int]]:
        """Each word that was counted, with its count, in the order of Word."""
        return [(word, self.counts[word]) for word in Word if self.counts[word]]

    def __str__(self) -> str:
        return ", ".join(f"{count:,} {word}" for word, count in self.words)

    @property
    def seen(self) -> int:
        """Keys that match the rule's pattern, of whatever type."""
        return self.found + self.waiting + self.ignored.total()

    @property
    def skipped(self) -> int:
        """Keys whose target was there before and was left as it was."""
        return sum(self.counts[word] for word in SKIPPED)


@dataclass(frozen=True, slots=True)
class Batch:
    """The results of one script call; without pairs, news of the scan alone."""

    rule: Rule
    stage: Stage = Stage.SCAN
    tally: Tally = field(default_factory=Tally)
    keys: list[KeyOutcome] = field(default_factory=list)
    """The keys that are not clean; every key if the caller asked for that."""
    scanned: float = 0.0
    """The share of the key space that this rule's scan has seen, 0 to 1."""
    seconds: float = 0.0
    """How long the script took: by the server's clock, or by ours where the server has none."""
    repeated: int = 0
    """Pairs that were sent again, because the connection was lost before their answer came."""
    rescanned: int = 0
    """Keys in slots that were moved meanwhile, which may be counted twice."""
    warnings: tuple[str, ...] = ()
    """What an operator should know, though it forbids nothing."""
    restarted: bool = False
    """Whether everything starts again, because another server process answers: earlier counts are void."""
    large: tuple[bytes, float] | None = None
    """The source that goes in chunks, and the share of it that is done."""
    shard: str = ""
    """The node of a cluster on which the keys were found."""
    followed: Followed | None = None
    """How a follow stands."""
    drift: Drift | None = None
    """How a comparison stands that goes on."""
    coverage: Coverage | None = None
    """What was found under a pattern that is to be covered."""


@dataclass
class Summary:
    """The results of a command, by rule and in total."""

    plan: Plan
    command: Command = Command.RUN
    dry_run: bool = False
    validated: bool = True
    allow_empty: bool = False
    """Whether it is a success that no key matches any rule, or a pattern that is to be covered."""
    fills: bool = False
    """Whether incomplete targets were to be filled."""
    sample: int | None = None
    """The most keys of each rule that were compared."""
    asks: bool = False
    """Whether the user is asked after this dry run."""
    extra_sought: bool = False
    """Whether targets without a source were searched."""
    by_rule: dict[Rule, Tally] = field(init=False)
    by_shard: dict[str, Tally] = field(default_factory=dict)
    """Counts by node of a cluster; empty for a single server."""
    coverage: dict[Pattern, Coverage] = field(default_factory=dict)
    """What was found under each pattern that is to be covered."""
    began: bool = False
    """Whether the checks had passed."""
    interrupted: bool = False
    error: Error | None = None
    warnings: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """Results of the checks, where they are all that was asked for."""
    seconds: float = 0.0
    slowest_script_seconds: float = 0.0
    repeated: int = 0
    rescanned: int = 0
    followed: Followed | None = None
    """How a follow stood at the last moment that is known."""
    drift: Drift | None = None
    """How a comparison that goes on stood at the last moment that is known."""

    def __post_init__(self) -> None:
        self.by_rule = {rule: Tally() for rule in self.plan}

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        self.began = True
        self.warnings += batch.warnings
        if batch.restarted:
            self._restart()
        if batch.followed and not self.followed:
            # What was found before a follow began is not what it does.
            self.by_rule = {rule: Tally() for rule in self.plan}
        if batch.drift and self.drift and batch.drift.comparisons > self.drift.comparisons:
            self._count_anew()
        self.by_rule[batch.rule].add(batch.tally)
        if batch.coverage:
            self.cover(batch.coverage)
        if batch.shard:
            self.by_shard.setdefault(batch.shard, Tally()).add(batch.tally)
        self.repeated += batch.repeated
        self.rescanned += batch.rescanned
        self.slowest_script_seconds = max(self.slowest_script_seconds, batch.seconds)
        self.followed = batch.followed or self.followed
        self.drift = batch.drift or self.drift

    def cover(self, found: Coverage) -> None:
        """Count what was found under a pattern."""
        self.coverage.setdefault(found.pattern, Coverage(found.pattern)).add(found)

    def _restart(self) -> None:
        self.warnings.append(
            f"another server process answered in mid-run, so everything was compared from the beginning; "
            f"counted until then, and not in the summary: {str(self.totals) or 'nothing'}"
        )
        self._count_anew()

    def _count_anew(self) -> None:
        self.by_rule = {rule: Tally() for rule in self.plan}
        self.by_shard, self.coverage = {}, {}

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
        if self._goes_on and not self.error:
            return Exit.OK if self._is_well else Exit.UNFINISHED
        if totals.counts[Word.FAILED]:
            return Exit.FAILED
        if self.error is not None:
            return self.error.exit_code
        if sum(totals.counts[word] for word in unfinished(self.command, dry_run=self.dry_run)) > totals.fillable:
            return Exit.UNFINISHED
        if not totals.found and not self.allow_empty:
            return Exit.UNFINISHED
        if any(found.untaken or (found.is_empty and not self.allow_empty) for found in self.coverage.values()):
            return Exit.UNFINISHED
        return Exit.OK

    @property
    def _goes_on(self) -> bool:
        """Whether the first signal is the normal end."""
        return self.command is Command.FOLLOW or self.drift is not None

    @property
    def _is_well(self) -> bool:
        """Whether what goes on until a signal has left nothing that somebody should look at."""
        if drift := self.drift:
            has_keys = self.totals.found or drift.compared or self.allow_empty
            is_covered = not any(coverage.untaken for coverage in self.coverage.values())
            return bool(drift.is_complete and not drift.remaining and has_keys and is_covered)
        followed = self.followed or Followed()
        return self.dry_run or (followed.was_in_step and not followed.has_trouble)
