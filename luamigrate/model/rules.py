"""Rules: which source keys get which target names, one rule for itself; the names of a batch in pairs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from luamigrate.model.errors import UsageError, as_typed
from luamigrate.model.patterns import STAR, Pattern, covered, escaped
from luamigrate.model.status import Lacking

TYPES = ("hash", "zset", "set", "list", "string", "stream", "any")
ANY = "any"
RESERVED = b"luamigrate:"
"""Names under this are the tool's own."""
LAST_DATABASE = 2**31 - 1
"""A server counts them in so many bits; how many it has, only it can tell."""
OURS = Pattern((RESERVED, b""), (STAR,))
"""Names that are never sources, and never targets."""


@dataclass(frozen=True)
class Rule:
    """Keys that match `source` and are of `type`, `any` included, have the name that `target` makes."""

    source: Pattern
    target: Pattern
    type: str
    excepts: tuple[Pattern, ...] = ()
    """Names that match one of these are no sources of the rule."""
    database: int | None = None
    """Where the targets are; None for the database of the sources."""

    @classmethod
    def parse(
        cls, source: bytes, target: bytes, kind: str, excepts: Sequence[bytes] = (), database: int | None = None
    ) -> Rule:
        """Read a rule from its parts. Raises UsageError."""
        rule = cls(Pattern.parse(source), Pattern.parse(target), kind, database=database)
        if kind not in TYPES:
            known = f"{', '.join(TYPES[:-1])} or {TYPES[-1]}"
            raise UsageError(f"rule {rule.quoted}: type '{as_typed(as_bytes(kind))}' is not one of {known}")
        if database is not None and not 0 <= database <= LAST_DATABASE:
            raise UsageError(f"rule {rule.quoted}: database {database} is none: they are numbers from 0 on")
        ours, theirs = set(rule.source.names), set(rule.target.names)
        if ours != theirs and (ours | theirs == {STAR}):
            raise UsageError(f"rule {rule.quoted}: source and target need one * each, or none")
        if ours != theirs:
            name = min((ours ^ theirs) - {STAR})
            raise UsageError(f"rule {rule.quoted}: <{name}> stands on one side only: each placeholder needs both sides")
        return rule.without(tuple(map(Pattern.parse, excepts)))

    def without(self, excepts: tuple[Pattern, ...]) -> Rule:
        """Return the rule with these excepts too. Raises UsageError where they leave it at most its shortest source."""
        rule = replace(self, excepts=tuple(dict.fromkeys((*self.excepts, *excepts))))
        most = next((one for one in rule.excepts if one.contains(self.source.without_shortest)), None)
        if most:
            but = "" if covered(self.source, rule.excepts) else f" but '{escaped(self.source.filled(b''))}'"
            raise UsageError(f"rule {self.quoted}: except '{most}' leaves it no source{but}")
        return rule

    def in_database(self, database: int | None) -> Rule:
        """Return the rule with its targets in this database, unless it has one of its own."""
        return self if database is None or self.database is not None else replace(self, database=database)

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}{self.where}"

    @property
    def quoted(self) -> str:
        """The rule as errors show it: its patterns can be copied from there."""
        return f"'{self.source}' -> '{self.target}'{self.where}"

    @property
    def where(self) -> str:
        """Text that says where the targets are, if that is not where the sources are."""
        return "" if self.database is None else f" in database {self.database}"

    @property
    def targets_text(self) -> str:
        """Text that stands for its targets."""
        return str(self.target)

    @property
    def is_table(self) -> bool:
        """Whether it has many single names: see tables.py."""
        return False

    @property
    def source_names(self) -> Collection[bytes] | None:
        """The names of its sources, whether they exist or not; None where these are to be searched for."""
        return None if self.source.varies else (self.source.prefix,)

    @property
    def target_names(self) -> Collection[bytes] | None:
        """The names of its targets, in the same way."""
        return None if self.target.varies else (self.target.prefix,)

    @property
    def examples(self) -> list[tuple[Pattern, Pattern]]:
        """Patterns of sources and of their targets that stand for all."""
        return [(self.source, self.target)]

    @property
    def is_one_to_one(self) -> bool:
        """Whether two sources of it never have one target."""
        return self.source.is_simple

    @cached_property
    def _renamed(self) -> Callable[[Sequence[bytes]], list[bytes]]:
        return self.source.renaming(self.target)

    @cached_property
    def _renamed_back(self) -> Callable[[Sequence[bytes]], list[bytes]]:
        return self.target.renaming(self.source)

    def pairs(self, sources: list[bytes]) -> Pairs:
        """Return source names that match together with their target names."""
        return Pairs(self, sources, self._renamed(sources))

    def pairs_of_targets(self, targets: list[bytes]) -> Pairs:
        """Return target names that match together with their source names."""
        return Pairs(self, self._renamed_back(targets), targets)

    def target_of(self, source: bytes) -> bytes:
        """Return the target name of a source."""
        return self._renamed((source,))[0]

    def source_of(self, target: bytes) -> bytes:
        """Return the source name that a target's parts make."""
        return self._renamed_back((target,))[0]

    def leading_to(self, targets: Pattern) -> Pattern | None:
        """Return the pattern of the sources whose targets match a narrower pattern; None where it cannot be told."""
        return _renamed_pattern(targets, self.target, self.source)

    def coming_of(self, sources: Pattern) -> Pattern | None:
        """Return the pattern of the targets whose sources match a narrower pattern; None where it cannot be told."""
        return _renamed_pattern(sources, self.source, self.target)


def _renamed_pattern(narrow: Pattern, before: Pattern, after: Pattern) -> Pattern | None:
    """Exchange what stands before and behind the part that varies; None where not all names match `before`."""
    if not before.contains(narrow):
        return None
    if not narrow.varies:
        # Other names may have the same one, but they do not come of it: each of them is ambiguous.
        return Pattern.of_name(before.renaming(after)((narrow.prefix,))[0])
    if not before.is_simple:
        return None
    first, *middle, last = narrow.literals
    first, last = first[len(before.prefix) :], last[: len(last) - len(before.suffix)]
    return Pattern((after.prefix + first, *middle, last + after.suffix), narrow.names)


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


def as_bytes(text: str | bytes) -> bytes:
    """Return the bytes of a text, as in os.fsencode: what the shell handed over as raw bytes goes back to them."""
    return text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
