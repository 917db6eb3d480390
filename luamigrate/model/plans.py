"""Plans: rules in their order, which of them takes a key, and which names they may write; the built-in plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import overload

from luamigrate.model.conflicts import Doubts, doubts_of
from luamigrate.model.errors import UsageError
from luamigrate.model.pattern_index import PatternIndex
from luamigrate.model.patterns import Pattern, covered, meeting
from luamigrate.model.rules import OURS, RESERVED, Pairs, Rule, as_bytes
from luamigrate.model.status import KeyOutcome, Reason, Word
from luamigrate.model.tables import TableRule

_WHY = {
    Reason.CHAIN: "chain: its target is itself a source of the plan, and would be copied again",
    Reason.AMBIGUOUS: "ambiguous: its target does not lead back to this source alone",
    Reason.RESERVED: "reserved: its target would come under luamigrate:, where the tool's own names are",
}


@dataclass(frozen=True)
class Plan(Sequence[Rule]):
    """Rules, in the order in which they run."""

    rules: tuple[Rule, ...]
    first_match: bool = False
    """Whether sources may overlap: the first rule that matches takes the key."""
    _doubts: Doubts = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raise UsageError where the plan must be refused."""
        if not self.rules:
            raise UsageError("the plan has no rule")
        if self._table:
            self._table.refuse_chains()
        doubts = {} if self._table else doubts_of(self.rules, first_match=self.first_match)
        object.__setattr__(self, "_doubts", doubts)

    @property
    def _table(self) -> TableRule | None:
        """The only rule, where that is a table."""
        return self.rules[0] if isinstance(self.rules[0], TableRule) else None

    def from_database(self, database: int) -> Plan:
        """Return the plan for sources in this database: targets there need no number. Raises UsageError."""
        if all(rule.database != database for rule in self.rules):
            return self
        rules = [replace(rule, database=None) if rule.database == database else rule for rule in self.rules]
        try:
            return Plan(tuple(rules), self.first_match)
        except UsageError as error:
            raise UsageError(f"database {database} is that of the sources too: {error}") from None

    @overload
    def __getitem__(self, index: int) -> Rule: ...
    @overload
    def __getitem__(self, index: slice) -> Plan: ...
    def __getitem__(self, index: int | slice) -> Rule | Plan:
        """Return the rule at a place, or a plan of some of them."""
        return Plan(self.rules[index], self.first_match) if isinstance(index, slice) else self.rules[index]

    def __len__(self) -> int:
        return len(self.rules)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self.rules)

    @cached_property
    def _sources(self) -> PatternIndex:
        return PatternIndex([rule.source for rule in self.rules])

    @cached_property
    def _targets(self) -> PatternIndex:
        return PatternIndex([rule.target for rule in self.rules])

    @cached_property
    def databases(self) -> tuple[int | None, ...]:
        """Where targets are, each database once; None for that of the sources."""
        return tuple(dict.fromkeys(rule.database for rule in self.rules))

    def rule_for(self, name: bytes) -> Rule | None:
        """Return the rule that takes a key; None where the name is no source of the plan."""
        if name.startswith(RESERVED):
            return None
        if self._table:
            return self._table if name in self._table.by_source else None
        matching = (self.rules[position] for position in self._sources.matching(name))
        return next((rule for rule in matching if not any(one.matches(name) for one in rule.excepts)), None)

    def leaves_out(self, name: bytes) -> bool:
        """Tell whether a name matches a source, and is none because of an except."""
        rules = (self.rules[position] for position in self._sources.matching(name))
        return any(one.matches(name) for rule in rules for one in rule.excepts)

    def origin(self, target: bytes, database: int | None = None) -> tuple[Rule, bytes] | None:
        """Return the rule and the one source that give this target; None where the name is no target of the plan.

        It is a target only if the plan would write it: mapping its inverse by the whole plan gives exactly this name
        in this database (None for that of the sources), it is no source itself, and is not reserved.
        """
        if target.startswith(RESERVED) or (database is None and self.rule_for(target)):
            return None
        origins = self._origins(target, database)
        return origins[0] if len(origins) == 1 else None

    def _origins(self, target: bytes, database: int | None) -> list[tuple[Rule, bytes]]:
        if table := self._table:
            is_target = target in table.by_target and table.database == database
            return [(table, table.by_target[target])] if is_target else []
        rules = [self.rules[position] for position in self._targets.matching(target)]
        inverses = [(rule, rule.source_of(target)) for rule in rules if rule.database == database]
        return [
            (rule, source)
            for rule, source in inverses
            if self.rule_for(source) is rule and rule.target_of(source) == target
        ]

    def pairs(self, rule: Rule, sources: list[bytes]) -> tuple[Pairs, list[KeyOutcome]]:
        """Return sources of a rule with their targets; and what is to be told of those that must never be written."""
        pairs = rule.pairs(sources)
        doubts = self._doubts.get(rule)
        if not doubts and (rule.is_one_to_one or rule.pairs_of_targets(pairs.targets).sources == sources):
            return pairs, []
        why = [self._refusal(rule, *pair, doubts or frozenset()) for pair in zip(sources, pairs.targets, strict=True)]
        refused = [
            KeyOutcome(source, target, Word.FAILED, text, clean=False)
            for source, target, text in zip(sources, pairs.targets, why, strict=True)
            if text
        ]
        return pairs.chosen([index for index, text in enumerate(why) if not text]) if refused else pairs, refused

    def _refusal(self, rule: Rule, source: bytes, target: bytes, doubts: frozenset[Reason]) -> str:
        """Return why a pair must not be written; empty if it may."""
        if Reason.RESERVED in doubts and target.startswith(RESERVED):
            return _WHY[Reason.RESERVED]
        if Reason.CHAIN in doubts and self.rule_for(target):
            return _WHY[Reason.CHAIN]
        leads_back = rule.is_one_to_one or rule.source_of(target) == source
        if not leads_back or (Reason.AMBIGUOUS in doubts and len(self._origins(target, rule.database)) > 1):
            return _WHY[Reason.AMBIGUOUS]
        return ""

    def choosing_sources(self, rule: Rule) -> Callable[[bytes], bool] | None:
        """Return what tells the sources of a rule from other names that match; None where there are no others."""
        if self._table:
            return None
        if self.first_match and self.rules[self._sources.overlapping(rule.source)[0]] is not rule:
            return partial(self._is_source, rule)
        excepts = [one.matches for one in rule.excepts if one.overlaps(rule.source)]
        return (lambda name: not any(matches(name) for matches in excepts)) if excepts else None

    def _is_source(self, rule: Rule, name: bytes) -> bool:
        return self.rule_for(name) is rule

    def choosing_targets(self, rule: Rule) -> Callable[[bytes], bool] | None:
        """Return what tells the targets of a rule from other names that match; None where there are no others."""
        if self._table:
            return None
        decided = rule.is_one_to_one and not self._doubts.get(rule) and not self.choosing_sources(rule)
        return None if decided and _keeps_reserved(rule) else partial(self._is_target, rule)

    def _is_target(self, rule: Rule, name: bytes) -> bool:
        origin = self.origin(name, rule.database)
        return origin is not None and origin[0] is rule


def _keeps_reserved(rule: Rule) -> bool:
    """Tell whether what would come of reserved names is reserved itself, so that no scan brings it."""
    sources = meeting(rule.source, OURS)
    targets = [rule.coming_of(source) for source in sources] if sources is not None else [None]
    return all(target is not None and covered(target, (OURS,)) for target in targets)


def plan(
    rules: Sequence[tuple[str | bytes, str | bytes, str]],
    *,
    excepts: Sequence[str | bytes] = (),
    first_match: bool = False,
    database: int | None = None,
) -> Plan:
    """Make a plan of (source, target, type) triples. Raises UsageError where it must be refused.

    `excepts` and the `database` of the targets, if it is another than that of the sources, are for all rules.
    """
    parsed = [Rule.parse(as_bytes(source), as_bytes(target), kind) for source, target, kind in rules]
    return plan_of(parsed, excepts=excepts, first_match=first_match, database=database)


def plan_of(rules: Iterable[Rule], *, excepts: Sequence[str | bytes], first_match: bool, database: int | None) -> Plan:
    """Make a plan of rules that have a part of what `plan` takes themselves. Raises UsageError."""
    patterns = tuple(Pattern.parse(as_bytes(text)) for text in excepts)
    return Plan(tuple(rule.without(patterns).in_database(database) for rule in rules), first_match)


BUILT_IN: Plan = plan(
    [
        ("job:*", "step:*", "hash"),
        ("jobs:active", "steps:active", "set"),
        ("jobs:completed", "steps:completed", "set"),
        ("jobs:failed", "steps:failed", "set"),
        # Queues last: whoever reads an id there must find its hash.
        ("jobs:pending", "steps:pending", "zset"),
    ]
)
"""Jobs become steps: the migration luamigrate was made for."""
