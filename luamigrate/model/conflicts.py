"""Which rules of a plan conflict: decided on their patterns alone, before a server is asked.

What could make a run depend on the order of SCAN, or feed on its own copies, is refused here. What patterns cannot
decide, because of placeholders, is left to be decided for each key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from luamigrate.model.errors import UsageError
from luamigrate.model.pattern_index import PatternIndex
from luamigrate.model.patterns import Pattern, covered, meeting
from luamigrate.model.rules import OURS, RESERVED, Rule
from luamigrate.model.status import Reason

Doubts = dict[Rule, frozenset[Reason]]
"""For each rule the reasons that have to be looked for with each of its keys; most rules have none."""

_ONE_EACH = "leave out one of the rules, or give each a run of its own"

_Back = Callable[[Pattern], Pattern | None]


def _itself(pattern: Pattern) -> Pattern:
    return pattern


@dataclass(frozen=True)
class _Encounter:
    """Names that two sides have in common, and how each side could leave them out."""

    names: list[Pattern] | None
    """Patterns of these names; None where they cannot be told."""
    within: Pattern
    """A pattern that has all of them."""
    ways: tuple[tuple[int, _Back], ...]
    """For each side: the position of the rule whose sources could be excepted, and which sources these are."""

    def is_avoided(self, excepts: Sequence[Sequence[Pattern]]) -> bool | None:
        """Tell whether excepts, by the positions of their rules, leave none of the names; None for nobody knows."""
        unknown = self.names is None
        for names in [self.within] if self.names is None else self.names:
            sources = [(back(names), excepts[position]) for position, back in self.ways]
            if any(source and covered(source, by) for source, by in sources):
                continue
            unknown |= any(source is None for source, _ in sources)
            # What some rule leaves out beside what is reserved may be just these names.
            if not unknown or all(len(by) == 1 for _, by in sources):
                return False
            return None
        return True

    def remedy(self, rules: Sequence[Rule], excepts: Sequence[Sequence[Pattern]]) -> str:
        """Return the options that would leave out the names, if any would."""
        for _, back in self.ways:
            sources = [back(names) for names in self.names or [self.within]]
            more = tuple(source for source in sources if source)
            wider = [(*by, *more) for by in excepts]
            if len(more) == len(sources) and self.is_avoided(wider) and _leave_sources(rules, wider, more):
                return " ".join(f"--except '{source}'" for source in more)
        return ""


def _leave_sources(rules: Sequence[Rule], excepts: Sequence[Sequence[Pattern]], more: tuple[Pattern, ...]) -> bool:
    if any(covered(rule.source, by) for rule, by in zip(rules, excepts, strict=True)):
        return False
    try:
        for rule in rules:
            rule.without(more)
    except UsageError:
        return False
    return True


class _Rules:
    """The rules of a plan, and what each of them leaves to others."""

    def __init__(self, rules: Sequence[Rule], *, first_match: bool) -> None:
        self.rules, self.first_match = rules, first_match
        self.sources = PatternIndex([rule.source for rule in rules])
        self.targets = PatternIndex([rule.target for rule in rules])
        self.takers = [self._takers(position) for position in range(len(rules))]
        self.excepts = [
            (OURS, *rule.excepts, *(taker.source for taker in takers))
            for rule, takers in zip(rules, self.takers, strict=True)
        ]
        self.doubts: defaultdict[Rule, set[Reason]] = defaultdict(set)

    def _takers(self, position: int) -> list[Rule]:
        """Return the earlier rules that take every key of the rule that matches their source."""
        if not self.first_match:
            return []
        rule = self.rules[position]
        earlier = [self.rules[each] for each in self.sources.overlapping(rule.source) if each < position]
        return [
            each
            for each in earlier
            if not any(one.overlaps(rule.source) for one in set(each.excepts).difference(rule.excepts))
        ]

    def refuse_reserved(self) -> None:
        for rule in self.rules:
            for pattern in (rule.source, rule.target):
                # What begins with a part that varies is let through: each of its keys is looked at.
                if pattern.prefix and pattern.overlaps(OURS):
                    raise UsageError(
                        f"rule {rule.quoted}: names under '{RESERVED.decode()}' are reserved, and '{pattern}' could "
                        "match"
                    )

    def refuse_overlapping_sources(self) -> None:
        for here, one in enumerate(self.rules):
            for there in self.sources.overlapping(one.source):
                other = self.rules[there]
                if here < there and one == other:
                    raise UsageError(f"rule {one.quoted} is there twice")
                if here >= there or self.first_match:
                    continue
                ways = ((there, _itself), (here, _itself))
                encounter = _Encounter(meeting(one.source, other.source), one.source, ways)
                if encounter.is_avoided(self.excepts):
                    continue
                if one.source.contains(other.source) and other.source.contains(one.source):
                    raise UsageError(f"rules {one.quoted} and {other.quoted}: their sources are the same; {_ONE_EACH}")
                raise UsageError(
                    f"rules {one.quoted} and {other.quoted}: their sources overlap; with --first-match the first rule "
                    "that matches takes the key: put the narrower one first"
                )

    def refuse_rules_without_keys(self) -> None:
        for position, rule in enumerate(self.rules):
            if self.takers[position] and covered(rule.source, self.excepts[position]):
                most = rule.source.without_shortest
                taker = next(one for one in self.takers[position] if one.source.contains(most))
                raise UsageError(
                    f"rules {taker.quoted} and {rule.quoted}: the first one takes the keys, and none is left for the "
                    f"second; {_ONE_EACH if rule.source.contains(taker.source) else 'put the narrower one first'}"
                )

    def refuse_equal_targets(self) -> None:
        for here, one in enumerate(self.rules):
            for there in self.targets.overlapping(one.target):
                other = self.rules[there]
                if here >= there or one.database != other.database:
                    continue
                ways = ((there, other.leading_to), (here, one.leading_to))
                encounter = _Encounter(meeting(one.target, other.target), one.target, ways)
                avoided = encounter.is_avoided(self.excepts)
                if avoided is False:
                    raise UsageError(
                        f"rules {one.quoted} and {other.quoted}: both could give the same target; "
                        f"{self._remedy(encounter, ', or each rule a run of its own')}"
                    )
                if avoided is None:
                    self.doubts[one].add(Reason.AMBIGUOUS)
                    self.doubts[other].add(Reason.AMBIGUOUS)

    def refuse_chains(self) -> None:
        for here, one in enumerate(self.rules):
            # Targets in another database are never sources.
            for there in self.sources.overlapping(one.target) if one.database is None else ():
                other = self.rules[there]
                ways = ((there, _itself), (here, one.leading_to))
                encounter = _Encounter(meeting(one.target, other.source), one.target, ways)
                avoided = encounter.is_avoided(self.excepts)
                if avoided is False:
                    whose = "its own source" if one is other else f"the source of {other.quoted}"
                    raise UsageError(
                        f"rule {one.quoted}: a target could match {whose}, so copies would be copied again; "
                        f"{self._remedy(encounter)}"
                    )
                if avoided is None:
                    self.doubts[one].add(Reason.CHAIN)

    def look_for_reserved_targets(self) -> None:
        for position, rule in enumerate(self.rules):
            if not rule.target.overlaps(OURS):
                continue
            encounter = _Encounter(meeting(rule.target, OURS), rule.target, ((position, rule.leading_to),))
            if not encounter.is_avoided(self.excepts):
                self.doubts[rule].add(Reason.RESERVED)

    def _remedy(self, encounter: _Encounter, more: str = "") -> str:
        options = encounter.remedy(self.rules, self.excepts)
        if options:
            return f"{options} would avoid that: such names are then no sources"
        where = "another prefix, or another database (--to-database)"
        return f"no --except would avoid that: give the targets {where}{more}"


def doubts_of(rules: Sequence[Rule], *, first_match: bool) -> Doubts:
    """Return what has to be looked at key by key. Raises UsageError where patterns decide that it must be refused."""
    each = _Rules(rules, first_match=first_match)
    each.refuse_reserved()
    each.refuse_overlapping_sources()
    each.refuse_rules_without_keys()
    each.refuse_equal_targets()
    each.refuse_chains()
    each.look_for_reserved_targets()
    return {rule: frozenset(reasons) for rule, reasons in each.doubts.items()}
