"""A small sample of what a plan matches: how much memory the copies will need, what would be created."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from luamigrate.errors import printable
from luamigrate.rules import ANY, RESERVED, Plan, Rule
from luamigrate.servers import Server, read_database_size

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
    complete: frozenset[Rule]
    """Rules of which all keys have been looked at."""
    counted: bool
    """Whether it is known how many keys there are."""

    @property
    def need(self) -> float | None:
        """Bytes that the copies of sources without a target will take, about; None where that is not known."""
        if not self.counted:
            return None
        return sum(key.size * self.stands_for[key.rule] for key in self.keys if not key.has_target)

    @property
    def present(self) -> int:
        """How many of the sampled keys have a target."""
        return sum(key.has_target for key in self.keys)

    def could_create(self, plan: Plan, kinds: Collection[str]) -> list[Rule]:
        """Return the rules that could make a key of one of these types, as far as the sample can tell."""
        would = {key.rule for key in self.keys if key.kind in kinds and not key.has_target}
        return [rule for rule in plan if rule in would or (rule not in self.complete and rule.type in (*kinds, ANY))]


def take(server: Server, plan: Plan) -> Sample:
    """Look at some keys of each rule. Raises Refused where that is not permitted."""
    names, found, scanned, complete = _names(server, [rule for rule in plan if rule.source.has_star])
    total = scanned if complete else read_database_size(server)
    names += [(rule, rule.source.prefix) for rule in plan if not rule.source.has_star]
    sampled = Counter(rule for rule, _ in names)
    scale = max(1.0, (total or scanned) / max(1, scanned))
    stands_for = {
        rule: found[rule] / sampled[rule] * scale if rule.source.has_star else 1.0 for rule in plan if sampled[rule]
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
    seen = [rule for rule in plan if not rule.source.has_star or (complete and sampled[rule] == found[rule])]
    return Sample(keys, stands_for, frozenset(seen), counted=total is not None)


def _names(server: Server, rules: list[Rule]) -> tuple[list[tuple[Rule, bytes]], Counter[Rule], int, bool]:
    """Return some source names, how many were seen of each rule, of how many keys, and whether those were all."""
    names: list[tuple[Rule, bytes]] = []
    found: Counter[Rule] = Counter()
    scanned, cursor, scans = 0, b"0", 0
    while rules and scans < SCANS and len(names) < ENOUGH and scanned * len(rules) < MOST_MATCHES:
        cursor, keys = server.call("SCAN", cursor, "COUNT", KEYS_PER_SCAN).answer()
        scans, scanned = scans + 1, scanned + len(keys)
        for name in keys:
            rule = next((rule for rule in rules if rule.source.matches(name)), None)
            if rule and not name.startswith(RESERVED):
                found[rule] += 1
                names += [(rule, name)] if found[rule] <= ENOUGH else []
        if cursor == b"0":
            break
    return names, found, scanned, cursor == b"0"
