"""A small sample of the keys that a plan matches: the memory that copies will need, what would be created."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from luamigrate.model.errors import Error, Refused, printable
from luamigrate.model.plans import Plan
from luamigrate.model.rules import ANY, Rule
from luamigrate.model.status import KeyOutcome
from luamigrate.model.tables import some_of
from luamigrate.scripts import calls
from luamigrate.scripts.calls import ScriptCall
from luamigrate.server.call import Call
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered, Redirected, Unsettled
from luamigrate.server.info import cursor_and_names, read_key_count

KEYS_PER_SCAN = 500
SCANS = 20
"""The most of them: ten thousand names, each time half a millisecond of the server's time."""
ENOUGH = 100
"""Keys whose size is asked."""
MOST_MATCHES = 1_000_000
"""Comparisons of names with patterns, where there are very many rules."""


@dataclass(frozen=True, slots=True)
class SampledKey:
    """A source of its rule's type, and whether it has a target."""

    rule: Rule
    kind: str
    size: int
    """Bytes of memory."""
    has_target: bool
    target_server: Connection
    """The server on which its target is, or will be."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Some sources of a server, and how many they stand for."""

    keys: list[SampledKey]
    stands_for: dict[Rule, float]
    """How many keys of a rule there are for each one sampled."""
    complete: frozenset[Rule]
    """Rules all of whose keys have been seen."""
    unknown: tuple[str, ...]
    """Commands that the server refused, so that it is not known how many keys there are, or how large."""
    scanned: int
    """How many names were compared with the patterns."""
    refused: list[KeyOutcome]
    """Keys that are not to be written, as far as their names tell."""
    types: list[tuple[Rule, str]]
    """The rule and the type of each key; an empty type where that is not known."""

    @property
    def present(self) -> int:
        """How many of the sampled keys have a target."""
        return sum(key.has_target for key in self.keys)

    @property
    def other_types(self) -> Counter[str]:
        """How many keys are of another type than their rule's, by type."""
        return Counter(kind for rule, kind in self.types if kind and rule.type not in (kind, ANY))

    @property
    def has_sources(self) -> bool:
        """Whether any key may be of its rule's type."""
        return len(self.types) > self.other_types.total()

    def could_create(self, plan: Plan, kinds: Collection[str]) -> list[Rule]:
        """Return the rules that could make a key of one of these types, as far as the sample can tell."""
        would = {key.rule for key in self.keys if key.kind in kinds and not key.has_target}
        return [rule for rule in plan if rule in would or (rule not in self.complete and rule.type in (*kinds, ANY))]


def unknown_facts(samples: list[Sample]) -> list[str]:
    """Return the commands that were refused, without which it is not known what the copies need."""
    return list(dict.fromkeys(command for sample in samples for command in sample.unknown))


def needed_bytes(samples: list[Sample], server: Connection) -> float | None:
    """Return about how many bytes the copies will take on a server; None where that is not known."""
    if unknown_facts(samples):
        return None
    return sum(
        key.size * sample.stands_for[key.rule]
        for sample in samples
        for key in sample.keys
        if key.target_server is server and not key.has_target
    )


def take(deployment: Deployment, server: Connection, plan: Plan) -> Sample:
    """Sample keys of each rule on a server. Raises Refused where that is not permitted."""
    names, found, scanned, complete = _names(server, plan)
    total = scanned if complete else read_key_count([server])
    names += [
        (rule, name)
        for rule in plan
        for name in some_of(rule.source_names or (), ENOUGH)
        if deployment.node_for(name) is server and plan.rule_for(name) is rule
    ]
    sampled = Counter(rule for rule, _ in names)
    scale = max(1.0, (total or scanned) / max(1, scanned))
    stands_for = {rule: found[rule] / count * scale for rule, count in sampled.items()} | {
        rule: len(rule.source_names) / min(ENOUGH, len(rule.source_names)) for rule in plan if rule.source_names
    }
    refused = [outcome for rule, name in names for outcome in plan.pairs(rule, [name])[1]]
    left_out = {outcome.source for outcome in refused}
    keys, types, weighed = _ask_about(deployment, server, [pair for pair in names if pair[1] not in left_out])
    types += [(rule, "") for rule, name in names if name in left_out]
    seen = [rule for rule in plan if complete and rule.source_names is None and sampled[rule] == found[rule]]
    seen += [rule for rule in plan if rule.source_names and len(rule.source_names) <= ENOUGH]
    unknown = (*(("DBSIZE",) if total is None else ()), *(() if weighed else ("MEMORY",)))
    return Sample(keys, stands_for, frozenset(seen), unknown, scanned, refused, types)


def _ask_about(
    deployment: Deployment, server: Connection, names: list[tuple[Rule, bytes]]
) -> tuple[list[SampledKey], list[tuple[Rule, str]], bool]:
    """Return the keys of their rule's type, the type of each key, and whether all of them were weighed."""
    questions = []
    for rule, name in names:
        target = rule.pairs([name]).targets[0]
        target_server = deployment.node_for(target)
        asked = (
            server.call("TYPE", name),
            server.call("MEMORY", "USAGE", name),
            _target_type(target_server, rule, target),
        )
        questions.append((rule, target_server, asked))
    keys, types, weighed = [], [], True
    for rule, target_server, asked in questions:
        # In a cluster, a key that is being moved to another node is not asked for there: this is a sample.
        kind, size, target_kind = (_answer(call) for call in asked)
        weighed &= not isinstance(size, Error)
        type_name = printable(kind) if isinstance(kind, bytes) else ""
        types += [(rule, type_name)] if type_name != "none" else []
        if isinstance(size, (int, Error)) and type_name not in ("", "none") and rule.type in (type_name, ANY):
            weight = size if isinstance(size, int) else 0
            keys.append(SampledKey(rule, type_name, weight, target_kind not in (None, b"none"), target_server))
    return keys, types, weighed


def _target_type(server: Connection, rule: Rule, target: bytes) -> Call | ScriptCall:
    if rule.database is None:
        return server.call("TYPE", target)
    return calls.in_database(server, rule.database, "TYPE", target, keys=(target,), writes=False)


def _answer(call: Call | ScriptCall) -> Any:
    """Return the answer, the error where the server refuses, or None where another node has the key."""
    try:
        return call.answer()
    except (Redirected, Unsettled):
        return None
    except (Refused, Answered) as problem:
        return problem


def _names(server: Connection, plan: Plan) -> tuple[list[tuple[Rule, bytes]], Counter[Rule], int, bool]:
    """Return some source names, how many were seen of each rule, of how many keys, and whether those were all."""
    rules = sum(rule.source.varies for rule in plan)
    names: list[tuple[Rule, bytes]] = []
    found: Counter[Rule] = Counter()
    scanned, cursor, scans = 0, b"0", 0
    while rules and scans < SCANS and len(names) < ENOUGH and scanned * rules < MOST_MATCHES:
        cursor, keys = cursor_and_names(server.call("SCAN", cursor, "COUNT", KEYS_PER_SCAN).answer())
        scans, scanned = scans + 1, scanned + len(keys)
        for name in keys:
            rule = plan.rule_for(name)
            if rule and rule.source.varies:
                found[rule] += 1
                names += [(rule, name)] if found[rule] <= ENOUGH else []
        if cursor == b"0":
            break
    return names, found, scanned, cursor == b"0"
