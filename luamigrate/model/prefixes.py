"""The prefixes under which changes are told: few, and none within another. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from luamigrate.model.plans import Plan

MOST = 16
"""Each costs every write on the server: 100 of them most of a pipeline's speed, 10,000 nearly all of it."""


def merged(prefixes: Iterable[bytes], most: int = MOST) -> list[bytes]:
    """Return at most `most` prefixes that none of the others begins with, and that cover all of these.

    Where there are more, neighbours with much in common become what they have in common: names under it that are not
    wanted will be told too.
    """
    outermost: list[bytes] = []
    for prefix in sorted(set(prefixes)):
        if not outermost or not prefix.startswith(outermost[-1]):
            outermost.append(prefix)
    if len(outermost) <= most:
        return outermost
    shared = [len(_common(one, other)) for one, other in pairwise(outermost)]
    # Between neighbours that share least, groups part.
    cuts = sorted(sorted(range(len(shared)), key=shared.__getitem__)[: most - 1])
    bounds = [0, *(cut + 1 for cut in cuts), len(outermost)]
    groups = [_common(outermost[first], outermost[end - 1]) for first, end in pairwise(bounds)]
    return merged(groups, most)


def _common(one: bytes, other: bytes) -> bytes:
    shorter = min(len(one), len(other))
    length = next((place for place in range(shorter) if one[place] != other[place]), shorter)
    return one[:length]


def sides_of(plan: Plan) -> tuple[list[bytes], list[bytes]]:
    """Return prefixes that cover the sources of a plan, and its targets."""
    return merged(rule.source.prefix for rule in plan), merged(rule.target.prefix for rule in plan)


def meet(some: Iterable[bytes], others: Iterable[bytes]) -> bool:
    """Tell whether a name may begin with a prefix of each kind."""
    others = list(others)
    return any(one.startswith(other) or other.startswith(one) for one in some for other in others)
