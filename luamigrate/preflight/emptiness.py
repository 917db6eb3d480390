"""What is said where no key matches a plan: how to find out why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from luamigrate.model.errors import printable
from luamigrate.model.patterns import Pattern
from luamigrate.model.plans import BUILT_IN
from luamigrate.model.rules import Rule


def nothing_found(plan: Sequence[Rule], ignored: Counter[str], databases: dict[str, int] | None) -> str:
    """Say that no key matches any rule, or is of its type, and what may be the reason."""
    if ignored:
        return f"NO KEY IS OF ITS RULE'S TYPE: ignored {count_by_type(ignored)}. Give the rule another type."
    excepts = ", those of excepts too," if any(rule.excepts for rule in plan) else ""
    what = "names in the table" if any(rule.is_table for rule in plan) else f"patterns{excepts}"
    return (
        f"NO KEY MATCHED ANY RULE.{keys_by_database(databases)} Are the server, the database (the number at the end of "
        f"the URL) and the {what} the right ones?{taken_literally(plan)}"
    )


def keys_by_database(databases: dict[str, int] | None) -> str:
    """Tell how many keys there are in each database, where that is known."""
    if databases is None:
        return ""
    return f" Keys by database: {', '.join(f'{n:,} in {name}' for name, n in databases.items()) or 'none'}."


SHOWN = 20
"""Patterns in one line, at most."""

_GLOB = re.compile(rb"[?\[]")
"""Characters that vary in the patterns of other programs."""


def looks_like_glob(source: Pattern) -> bool:
    """Tell whether a source is perhaps meant as a pattern of another program."""
    return any(map(_GLOB.search, source.literals))


def taken_literally(rules: Sequence[Rule]) -> str:
    """Say which sources stand for fewer keys than the same text in another program."""
    in_tables = [name for rule in rules if rule.is_table for name in rule.source_names or () if b"*" in name]
    if in_tables:
        names = a_few([f"'{printable(name)}'" for name in in_tables[: SHOWN + 1]])
        return f" In a table * is literal, as in {names}: patterns go into --map or a plan file."
    return not_varying([] if tuple(rules) == BUILT_IN.rules else [rule.source for rule in rules if not rule.is_table])


def not_varying(patterns: Sequence[Pattern]) -> str:
    """Say which patterns stand for fewer keys than the same text in another program."""
    literal = a_few([f"'{pattern}'" for pattern in patterns if looks_like_glob(pattern)])
    single = a_few([f"'{pattern}'" for pattern in patterns if not pattern.varies])
    text = f" Only * and placeholders vary: ? and [ are taken literally in {literal}." if literal else ""
    return text + (f" Without * a pattern is the name of one key: {single}." if single else "")


def a_few(texts: Sequence[str], most: int = SHOWN) -> str:
    """Return texts in a row, or the first of very many."""
    return ", ".join(texts[:most]) + (", …" if len(texts) > most else "")


def count_by_type(counts: Counter[str]) -> str:
    """Tell how many keys there are of each type."""
    return ", ".join(f"{count:,} of type {kind}" for kind, count in sorted(counts.items()))
