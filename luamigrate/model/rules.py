"""Rules: which source keys get which target names; the built-in plan; plan files.

A rule is decided on its patterns alone. Everything that could make one run of a plan depend on the
order of SCAN, or make it feed on its own copies, is refused here, before a server is asked.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from luamigrate.model.errors import UsageError, printable
from luamigrate.model.status import Lacking

TYPES = ("hash", "zset", "set", "list", "string", "stream", "any")
ANY = "any"
RESERVED = b"luamigrate:"
"""Names under this are the tool's own."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Literal bytes with one `*`, which stands for any bytes, or without."""

    prefix: bytes
    suffix: bytes | None
    """What follows the star; None where there is no star."""

    @classmethod
    def parse(cls, text: bytes) -> Pattern:
        """Read a pattern as the user writes it. Raises UsageError."""
        if not text:
            raise UsageError("a pattern is empty: write a key name, with one * for the part that varies")
        if text.count(b"*") > 1:
            raise UsageError(f"pattern '{printable(text)}' has more than one *: use one, or several rules")
        prefix, star, suffix = text.partition(b"*")
        return cls(prefix, suffix if star else None)

    def __str__(self) -> str:
        return printable(self.prefix if self.suffix is None else self.prefix + b"*" + self.suffix)

    @property
    def has_star(self) -> bool:
        """Whether the pattern stands for many keys."""
        return self.suffix is not None

    def glob(self) -> bytes:
        """Return the pattern for MATCH: all but the star taken literally."""
        escaped = [_escape_glob(part) for part in (self.prefix, self.suffix or b"")]
        return b"*".join(escaped)

    def overlaps(self, other: Pattern) -> bool:
        """Tell whether some key name matches both."""
        if self.suffix is not None and other.suffix is not None:
            # The longer prefix followed by the longer suffix is such a name, if there is any.
            prefixes = _either(bytes.startswith, self.prefix, other.prefix)
            return prefixes and _either(bytes.endswith, self.suffix, other.suffix)
        if self.suffix is None:
            return other.matches(self.prefix)
        return self.matches(other.prefix)

    def matches(self, name: bytes) -> bool:
        """Tell whether the pattern stands for this key name."""
        if self.suffix is None:
            return name == self.prefix
        long_enough = len(name) >= len(self.prefix) + len(self.suffix)
        return long_enough and name.startswith(self.prefix) and name.endswith(self.suffix)


def _either(begins: Any, a: bytes, b: bytes) -> bool:
    return bool(begins(a, b) or begins(b, a))


def _escape_glob(literal: bytes) -> bytes:
    for special in (b"\\", b"*", b"?", b"["):
        literal = literal.replace(special, b"\\" + special)
    return literal


@dataclass(frozen=True, slots=True)
class Rule:
    """Keys that match `source` and are of `type`, `any` included, have the name that `target` makes."""

    source: Pattern
    target: Pattern
    type: str

    @classmethod
    def parse(cls, source: bytes, target: bytes, kind: str) -> Rule:
        """Read a rule from its three parts. Raises UsageError."""
        rule = cls(Pattern.parse(source), Pattern.parse(target), kind)
        if kind not in TYPES:
            known = f"{', '.join(TYPES[:-1])} or {TYPES[-1]}"
            raise UsageError(f"rule {rule}: type '{printable(_as_bytes(kind))}' is not one of {known}")
        if rule.source.has_star != rule.target.has_star:
            raise UsageError(f"rule {rule}: source and target need one * each, or none")
        return rule

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"

    def pairs(self, sources: list[bytes]) -> Pairs:
        """Return source names that match together with their target names."""
        return Pairs(self, sources, _renamed(sources, self.source, self.target))

    def pairs_of_targets(self, targets: list[bytes]) -> Pairs:
        """Return target names that match together with their source names."""
        return Pairs(self, _renamed(targets, self.target, self.source), targets)


def _renamed(names: list[bytes], before: Pattern, after: Pattern) -> list[bytes]:
    if before.suffix is None or after.suffix is None:
        return [after.prefix]
    start, end = len(before.prefix), -len(before.suffix) or None
    prefix, suffix = after.prefix, after.suffix
    return [prefix + name[start:end] + suffix for name in names]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Source names of a rule, and the target name of each."""

    rule: Rule
    sources: list[bytes]
    targets: list[bytes]
    lacking: list[Lacking | None] = field(default_factory=list)
    """What the last check found each target to lack; empty in a first check."""

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def digests(self) -> list[bytes]:
        """Return what a script is told of the last check of each pair; empty in a first check."""
        return [lacking.argument if lacking else b"" for lacking in self.lacking]

    @property
    def keys(self) -> list[bytes]:
        """Return source and target of each pair in turn, as the scripts take them."""
        keys = [b""] * (2 * len(self.sources))
        keys[::2], keys[1::2] = self.sources, self.targets
        return keys

    def chosen(self, indexes: Sequence[int]) -> Pairs:
        """Return only these pairs."""
        return Pairs(
            self.rule,
            [self.sources[index] for index in indexes],
            [self.targets[index] for index in indexes],
            [self.lacking[index] for index in indexes] if self.lacking else [],
        )


Plan = tuple[Rule, ...]


def plan(rules: Sequence[tuple[str | bytes, str | bytes, str]]) -> Plan:
    """Make a plan of (source, target, type) triples. Raises UsageError where it must be refused."""
    parsed = tuple(Rule.parse(_as_bytes(source), _as_bytes(target), kind) for source, target, kind in rules)
    if not parsed:
        raise UsageError("the plan has no rule")
    _refuse_ambiguity(parsed)
    return parsed


def _as_bytes(text: str | bytes) -> bytes:
    # As in os.fsencode: what the shell handed over as raw bytes goes back to them.
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text


def _refuse_ambiguity(rules: Plan) -> None:
    for rule in rules:
        for pattern in (rule.source, rule.target):
            # What begins with a star is let through: scans leave reserved names out.
            if pattern.prefix and pattern.overlaps(Pattern(RESERVED, b"")):
                raise UsageError(
                    f"rule {rule}: names under '{RESERVED.decode()}' are reserved, and {pattern} could match"
                )
    for one, other in combinations(rules, 2):
        if one.source.overlaps(other.source):
            raise UsageError(f"rules {one} and {other}: their sources overlap")
        if one.target.overlaps(other.target):
            raise UsageError(f"rules {one} and {other}: both could give the same target")
    for one in rules:
        for other in rules:
            if one.target.overlaps(other.source):
                whose = "its own source" if one is other else f"the source of {other}"
                raise UsageError(f"rule {one}: a target could match {whose}, so copies would be copied again")


def plan_from_maps(maps: Sequence[str], kind: str = ANY) -> Plan:
    """Make a plan of `SRC=DST` texts. Raises UsageError."""
    for text in maps:
        if text.count("=") != 1:
            shown = printable(_as_bytes(text))
            raise UsageError(f"--map '{shown}': needs exactly one =, as in 'job:*=step:*'; other names need --plan")
    return plan([(source, target, kind) for source, target in (text.split("=") for text in maps)])


def plan_from_file(path: str | Path) -> Plan:
    """Read a TOML plan of `[[rule]]` tables with source, target and, unless `any`, type. Raises UsageError."""
    shown = printable(_as_bytes(str(path)))
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"plan file {shown}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"plan file {shown} is not TOML: {error}") from None
    try:
        return plan([_rule_table(number, table) for number, table in enumerate(_rule_tables(document), 1)])
    except UsageError as error:
        raise UsageError(f"plan file {shown}: {error}") from None


def _rule_tables(document: dict[str, Any]) -> list[Any]:
    unknown = sorted(document.keys() - {"rule"})
    if unknown:
        raise UsageError(f"unknown key '{printable(unknown[0].encode())}': a plan has [[rule]] tables and nothing else")
    tables = document.get("rule", [])
    if not isinstance(tables, list):
        raise UsageError("'rule' must be a table in double brackets: [[rule]]")
    return tables


def _rule_table(number: int, table: Any) -> tuple[str, str, str]:
    where = f"rule {number}"
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table in double brackets: [[rule]]")
    names = ("source", "target", "type")
    unknown = sorted(table.keys() - set(names))
    if unknown:
        raise UsageError(f"{where}: unknown key '{printable(unknown[0].encode())}'; known are {', '.join(names)}")
    table = {"type": ANY, **table}
    for name in names:
        if name not in table:
            raise UsageError(f"{where}: '{name}' is missing")
        if not isinstance(table[name], str):
            raise UsageError(f"{where}: '{name}' must be a string in quotes")
    return table["source"], table["target"], table["type"]


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
