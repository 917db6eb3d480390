"""A small sample of what a plan matches: how much memory the copies will need, what would be created."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from luamigrate.model.errors import Error, Refused, printable
from luamigrate.model.rules import ANY, RESERVED, Plan, Rule
from luamigrate.server.connection import Call, Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered, Redirected, Unsettled
from luamigrate.server.info import read_key_count, reply_of

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
    holder: Connection
    """Where its target is, or will be."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Some sources, and of how many they speak."""

    keys: list[SampledKey]
    stands_for: dict[Rule, float]
    """How many keys there are for each one sampled."""
    complete: frozenset[Rule]
    """Rules of which all keys have been looked at."""
    counted: bool
    """Whether it is known how many keys there are, and how big those sampled are."""
    looked_at: int
    """How many names were held against the patterns."""
    types: list[tuple[Rule, str]]
    """The rule and the type of each name that is a key; an empty type where that is not known."""

    @property
    def present(self) -> int:
        """How many of the sampled keys have a target."""
        return sum(key.has_target for key in self.keys)

    @property
    def other_types(self) -> Counter[str]:
        """How many of the names are keys of another type than their rule's, by type."""
        return Counter(kind for rule, kind in self.types if kind and rule.type not in (kind, ANY))

    @property
    def has_sources(self) -> bool:
        """Whether any of the names may be that of a key of its rule's type."""
        return len(self.types) > self.other_types.total()

    def could_create(self, plan: Plan, kinds: Collection[str]) -> list[Rule]:
        """Return the rules that could make a key of one of these types, as far as the sample can tell."""
        would = {key.rule for key in self.keys if key.kind in kinds and not key.has_target}
        return [rule for rule in plan if rule in would or (rule not in self.complete and rule.type in (*kinds, ANY))]


def need(samples: list[Sample], server: Connection) -> float | None:
    """Return the bytes that the copies will take on a server, about; None where that is not known."""
    if not all(taken.counted for taken in samples):
        return None
    return sum(
        key.size * taken.stands_for[key.rule]
        for taken in samples
        for key in taken.keys
        if key.holder is server and not key.has_target
    )


def take(deployment: Deployment, server: Connection, plan: Plan) -> Sample:
    """Look at some keys of each rule that a server holds. Raises Refused where that is not permitted."""
    names, found, scanned, complete = _names(server, [rule for rule in plan if rule.source.has_star])
    total = scanned if complete else read_key_count([server])
    literal = [rule for rule in plan if not rule.source.has_star]
    names += [(rule, rule.source.prefix) for rule in literal if deployment.node_for(rule.source.prefix) is server]
    sampled = Counter(rule for rule, _ in names)
    scale = max(1.0, (total or scanned) / max(1, scanned))
    stands_for = {
        rule: found[rule] / sampled[rule] * scale if rule.source.has_star else 1.0 for rule in plan if sampled[rule]
    }
    calls = []
    for rule, name in names:
        target = rule.pairs([name]).targets[0]
        holder = deployment.node_for(target)
        asked = server.call("TYPE", name), server.call("MEMORY", "USAGE", name), holder.call("TYPE", target)
        calls.append((rule, holder, asked))
    keys, types, weighed = [], [], True
    for rule, holder, asked in calls:
        # In a cluster, what is on its way to another node is not asked for there: it is a sample.
        kind, size, target_kind = (_answer(call) for call in asked)
        weighed &= not isinstance(size, Error)
        type_name = printable(kind) if isinstance(kind, bytes) else ""
        types += [(rule, type_name)] if type_name != "none" else []
        if isinstance(size, (int, Error)) and type_name not in ("", "none") and rule.type in (type_name, ANY):
            weight = size if isinstance(size, int) else 0
            keys.append(SampledKey(rule, type_name, weight, target_kind not in (None, b"none"), holder))
    seen = [rule for rule in plan if not rule.source.has_star or (complete and sampled[rule] == found[rule])]
    return Sample(keys, stands_for, frozenset(seen), weighed and total is not None, scanned, types)


def _answer(call: Call) -> Any:
    """Return the answer, the error where the server refuses, or None where another node has the key."""
    try:
        return call.answer()
    except (Redirected, Unsettled):
        return None
    except (Refused, Answered) as problem:
        return problem


def _names(server: Connection, rules: list[Rule]) -> tuple[list[tuple[Rule, bytes]], Counter[Rule], int, bool]:
    """Return some source names, how many were seen of each rule, of how many keys, and whether those were all."""
    names: list[tuple[Rule, bytes]] = []
    found: Counter[Rule] = Counter()
    scanned, cursor, scans = 0, b"0", 0
    while rules and scans < SCANS and len(names) < ENOUGH and scanned * len(rules) < MOST_MATCHES:
        cursor, keys = reply_of(server.call("SCAN", cursor, "COUNT", KEYS_PER_SCAN))
        scans, scanned = scans + 1, scanned + len(keys)
        for name in keys:
            rule = next((rule for rule in rules if rule.source.matches(name)), None)
            if rule and not name.startswith(RESERVED):
                found[rule] += 1
                names += [(rule, name)] if found[rule] <= ENOUGH else []
        if cursor == b"0":
            break
    return names, found, scanned, cursor == b"0"
