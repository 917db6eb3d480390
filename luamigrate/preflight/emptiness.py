"""What is said where no key matches a plan: where else to look for them."""

from __future__ import annotations

import re
from collections import Counter

from luamigrate.model.rules import BUILT_IN, Pattern, Plan


def nothing_found(plan: Plan, ignored: Counter[str], databases: dict[str, int] | None) -> str:
    """Say that no key matches any rule, or is of its type, and where to look for the reason."""
    if ignored:
        return f"NO KEY IS OF ITS RULE'S TYPE: ignored {count_by_type(ignored)}. Give the rule another type."
    return (
        f"NO KEY MATCHED ANY RULE.{keys_by_database(databases)} Are the server, the database (the number at the end of "
        f"the URL) and the patterns the right ones?{taken_literally(plan)}"
    )


def keys_by_database(databases: dict[str, int] | None) -> str:
    """Tell how many keys there are in each database, where that is known."""
    if databases is None:
        return ""
    return f" Keys by database: {', '.join(f'{n:,} in {name}' for name, n in databases.items()) or 'none'}."


_GLOB = re.compile(rb"[?\[\\]")
"""What varies or escapes in the patterns of other programs."""


def looks_like_glob(source: Pattern) -> bool:
    """Tell whether somebody may take a source for a pattern of another program."""
    return _GLOB.search(source.prefix + (source.suffix or b"")) is not None


def taken_literally(plan: Plan) -> str:
    """Say which sources stand for less than somebody may think who knows other patterns."""
    sources = [] if plan == BUILT_IN else [rule.source for rule in plan]
    literal = ", ".join(str(source) for source in sources if looks_like_glob(source))
    single = ", ".join(str(source) for source in sources if not source.has_star)
    text = f" Only * varies: ?, [ and \\ are taken literally in {literal}." if literal else ""
    return text + (f" Without * a pattern is the name of one key: {single}." if single else "")


def count_by_type(counts: Counter[str]) -> str:
    """Tell how many keys there are of each type."""
    return ", ".join(f"{count:,} of type {kind}" for kind, count in sorted(counts.items()))
