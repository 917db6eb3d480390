"""The pairs that are looked at of names that have changed, and what may be done to each target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from luamigrate.migration.account import Account
from luamigrate.migration.direction import Direction
from luamigrate.migration.dirty import UNTOLD
from luamigrate.migration.hearing import Hearing
from luamigrate.migration.listening import REMEMBERED
from luamigrate.migration.standing import Pair, Standing
from luamigrate.model.rules import Rule


class Pairing:
    """Makes pairs by a plan, and notes that their targets are about to be written."""

    def __init__(self, direction: Direction, standing: Standing, hearing: Hearing, account: Account) -> None:
        self._direction, self._standing, self._hearing, self._account = direction, standing, hearing, account
        self._plan = direction.plan
        self._rule_for = lru_cache(REMEMBERED)(self._plan.rule_for)

    def pairs(self, names: Sequence[tuple[bytes, float]]) -> Iterable[list[Pair]]:
        """Return what is to be sent of names with their moments, by database; those that must never be written fail."""
        # By identity: a rule's hash is that of all its parts.
        by_rule: dict[int, tuple[Rule, list[bytes]]] = {}
        for name, _ in names:
            rule = self._rule_for(name)
            if rule:
                by_rule.setdefault(id(rule), (rule, []))[1].append(name)
        moments, sent, pair_of = dict(names), self._hearing.own_writes.sent, self._standing.pair
        is_back, proof = self._direction.is_back, self._hearing.proof
        found: dict[int | None, list[Pair]] = {}
        for rule, sources in by_rule.values():
            pairs, refused = self._plan.pairs(rule, sources)
            together = found.setdefault(rule.database, [])
            for source, target in zip(pairs.sources, pairs.targets, strict=True):
                pair = pair_of(rule, source, target, moments[source])
                if proof and proof.only_compares(source, pair.moment):
                    pair.may_replace = pair.may_delete = False
                together.append(pair)
                sent(source if is_back else target)
            for outcome in refused:
                refusal = self._standing.pair(rule, outcome.source, outcome.target, UNTOLD)
                self._account.note(self._standing.failed_with(refusal, outcome.text))
        return filter(None, found.values())
