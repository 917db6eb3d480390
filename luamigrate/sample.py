"""A small sample of what a plan matches: how much memory the copies will need, what would be created."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from luamigrate.errors import Refused, printable
from luamigrate.rules import ANY, RESERVED, Plan, Rule
from luamigrate.servers import Server

KEYS_PER_SCAN = 500
SCANS = 20
"""At most: ten thousand names, looked at in half a millisecond each time."""
ENOUGH = 100
"""Keys of which to ask the size."""
MOST_MATCHES = 1_000_000
"""Names held against patterns, where there are very many rules."""


@dataclass(frozen=True, slots=True)
class SampledKey:
    """A source of its rule's type, and whether it has a target."""

    rule: Rule
    kind: str
    size: int
    """In bytes of memory."""
    has_target: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """Some sources, and of how many they speak."""

    keys: list[SampledKey]
    stands_for: dict[Rule, float]
    """How many keys there are for each one sampled."""

    @property
    def need(self) -> float:
        """Bytes that the copies of sources without a target will take, about."""
        return sum(key.size * self.stands_for[key.rule] for key in self.keys if not key.has_target)

    @property
    def present(self) -> int:
        """How many of the sampled keys have a target."""
        return sum(key.has_target for key in self.keys)

    def would_create(self, kinds: Collection[str]) -> list[Rule]:
        """Return the rules that would make a key of one of these types."""
        return list(dict.fromkeys(key.rule for key in self.keys if key.kind in kinds and not key.has_target))


def take(server: Server, plan: Plan) -> Sample:
    """Look at some keys of each rule. Raises Refused where that is not permitted."""
    names, found, part = _names(server, [rule for rule in plan if rule.source.has_star])
    names += [(rule, rule.source.prefix) for rule in plan if not rule.source.has_star]
    sampled = Counter(rule for rule, _ in names)
    stands_for = {
        rule: found[rule] / sampled[rule] / part if rule.source.has_star else 1.0 for rule in plan if sampled[rule]
    }
    calls = [
        (
            rule,
            server.call("TYPE", name),
            server.call("MEMORY", "USAGE", name),
            server.call("TYPE", rule.pairs([name]).targets[0]),
        )
        for rule, name in names
    ]
    keys = []
    for rule, kind_call, size_call, target_call in calls:
        kind, size, target_kind = printable(kind_call.answer()), size_call.answer(), target_call.answer()
        if isinstance(size, int) and rule.type in (kind, ANY):
            keys.append(SampledKey(rule, kind, size, target_kind != b"none"))
    return Sample(keys, stands_for)


def _names(server: Server, rules: list[Rule]) -> tuple[list[tuple[Rule, bytes]], Counter[Rule], float]:
    """Return some source names, how many were seen of each rule, and the part of the keys looked at."""
    names: list[tuple[Rule, bytes]] = []
    found: Counter[Rule] = Counter()
    scanned, cursor = 0, b"0"
    for _ in range(SCANS if rules else 0):
        cursor, keys = server.call("SCAN", cursor, "COUNT", KEYS_PER_SCAN).answer()
        scanned += len(keys)
        for name in keys:
            rule = next((rule for rule in rules if rule.source.matches(name)), None)
            if rule and not name.startswith(RESERVED):
                found[rule] += 1
                names += [(rule, name)] if found[rule] <= ENOUGH else []
        if cursor == b"0" or len(names) >= ENOUGH or scanned * len(rules) >= MOST_MATCHES:
            break
    total = scanned
    if cursor != b"0":
        # Without the permission to ask, what has been seen is all that is known of.
        with suppress(Refused):
            total = max(scanned, int(server.call("DBSIZE").answer()))
    return names, found, scanned / total if total else 1.0
