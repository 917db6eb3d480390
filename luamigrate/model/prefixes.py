"""The prefixes under which changes are told: few, and none within another. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache

from luamigrate.model.patterns import Pattern
from luamigrate.model.plans import Plan

MOST = 16
"""Each costs every write on the server: 100 of them most of a pipeline's speed, 10,000 nearly all of it."""


def merged(prefixes: Iterable[bytes], most: int = MOST) -> list[bytes]:
    """Return at most `most` prefixes that none of the others begins with, and that cover all of these.

    Where there are more, names with much in common become what they have in common: names under it that are not
    wanted will be told too.
    """
    names = list(_outermost(sorted(set(prefixes))))
    if len(names) <= most:
        return names
    groups, open_groups = 1, [(0, len(names))]
    found: list[bytes] = []
    while open_groups:
        # Those with least in common are told of most names that nobody wants.
        open_groups.sort(key=lambda group: len(_common(names, *group)), reverse=True)
        group = open_groups.pop()
        parts = _parts(names, *group)
        if len(parts) == 1 or groups - 1 + len(parts) > most:
            found.append(_common(names, *group))
        else:
            groups += len(parts) - 1
            open_groups += parts
    return sorted(found)


def _outermost(names: Iterable[bytes]) -> Iterator[bytes]:
    """Yield those of sorted names that begin with none of the others."""
    last: bytes | None = None
    for name in names:
        if last is None or not name.startswith(last):
            last = name
            yield name


def _parts(names: Sequence[bytes], first: int, end: int) -> list[tuple[int, int]]:
    """Return the parts of a sorted group, by the byte that comes after what all of it have in common."""
    length = len(_common(names, first, end))
    parts = []
    while first < end:
        byte = names[first][length : length + 1]
        # 255 has no byte after it, and what begins with it ends the group.
        behind = names[first][:length] + bytes([byte[0] + 1]) if byte and byte[0] < 255 else None  # noqa: PLR2004
        part_end = end if not byte or behind is None else bisect_left(names, behind, first, end)
        parts.append((first, part_end))
        first = part_end
    return parts


def _common(names: Sequence[bytes], first: int, end: int) -> bytes:
    """Return what the names of a sorted group have in common: what the first and the last have."""
    one, other = names[first], names[end - 1]
    shorter = min(len(one), len(other))
    length = next((place for place in range(shorter) if one[place] != other[place]), shorter)
    return one[:length]


def told_prefixes(plan: Plan) -> list[bytes]:
    """Return the prefixes under which changes of both sides of a plan are told, in whatever database."""
    targets = (prefix for database in plan.databases for prefix in target_prefixes(plan, database))
    return merged((*source_prefixes(plan), *targets))


@lru_cache(maxsize=8)
def source_prefixes(plan: Plan) -> tuple[bytes, ...]:
    """Return prefixes that cover the sources of a plan."""
    return tuple(merged(prefix for rule in plan for prefix in _prefixes(rule.source, rule.source_names)))


@lru_cache(maxsize=8)
def target_prefixes(plan: Plan, database: int | None) -> tuple[bytes, ...]:
    """Return prefixes that cover the targets of a plan in one database, None for that of the sources."""
    rules = [rule for rule in plan if rule.database == database]
    return tuple(merged(prefix for rule in rules for prefix in _prefixes(rule.target, rule.target_names)))


def _prefixes(pattern: Pattern, names: Collection[bytes] | None) -> Iterable[bytes]:
    return (pattern.prefix,) if names is None else names


def meet(some: Iterable[bytes], others: Iterable[bytes]) -> bool:
    """Tell whether a name may begin with a prefix of each kind."""
    others = list(others)
    return any(one.startswith(other) or other.startswith(one) for one in some for other in others)
