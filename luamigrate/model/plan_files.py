"""Plans as people write them: `SRC=DST` on the command line, and TOML files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from luamigrate.model.errors import UsageError, as_typed
from luamigrate.model.plans import Plan, plan, plan_of
from luamigrate.model.rules import ANY, Rule, as_bytes
from luamigrate.model.tables import table_rule

_EQUALS = re.compile(r"((?:[^\\=]|\\.)*)=((?:[^\\=]|\\.)*)", re.DOTALL)
r"""A rule with one `=`; one behind a backslash is part of a name."""


def plan_from_maps(
    maps: Sequence[str],
    kind: str = ANY,
    *,
    excepts: Sequence[str] = (),
    first_match: bool = False,
    database: int | None = None,
) -> Plan:
    """Make a plan of `SRC=DST` texts. Raises UsageError."""
    triples = []
    for text in maps:
        sides = _EQUALS.fullmatch(text)
        if not sides:
            raise UsageError(
                f"--map '{as_typed(as_bytes(text))}': needs exactly one =, as in 'job:*=step:*'; a literal = is \\="
            )
        triples.append((sides[1], sides[2], kind))
    return plan(triples, excepts=excepts, first_match=first_match, database=database)


def plan_from_file(
    path: str | Path,
    *,
    excepts: Sequence[str | bytes] = (),
    first_match: bool = False,
    database: int | None = None,
) -> Plan:
    """Read a TOML plan of `[[rule]]` tables: source, target and, if wanted, type, except and database.

    `excepts` are for all rules, beside those that they have themselves; `database` is for rules that have none.
    Raises UsageError.
    """
    shown = as_typed(as_bytes(str(path)))
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"plan file {shown}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(
            f"plan file {shown} is not TOML: {error} (patterns with a backslash stand in single quotes)"
        ) from None
    try:
        rules = [_rule(number, table) for number, table in enumerate(_rule_tables(document), 1)]
        return plan_of(rules, excepts=excepts, first_match=first_match, database=database)
    except UsageError as error:
        raise UsageError(f"plan file {shown}: {error}") from None


def plan_from_pairs(path: str | Path, kind: str = ANY, *, database: int | None = None) -> Plan:
    """Read a pairs file: source, tab, target on each line, escaped as they are printed. Raises UsageError."""
    return Plan((table_rule(path, kind, database),))


def _rule_tables(document: dict[str, Any]) -> list[Any]:
    unknown = sorted(document.keys() - {"rule"})
    if unknown:
        raise UsageError(f"unknown key '{as_typed(unknown[0].encode())}': a plan has [[rule]] tables and nothing else")
    tables = document.get("rule", [])
    if not isinstance(tables, list):
        raise UsageError("'rule' must be a table in double brackets: [[rule]]")
    return tables


def _rule(number: int, table: Any) -> Rule:
    where = f"rule {number}"
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table in double brackets: [[rule]]")
    names = ("source", "target", "type")
    unknown = sorted(table.keys() - {*names, "except", "database"})
    if unknown:
        known = ", ".join((*names, "except", "database"))
        raise UsageError(f"{where}: unknown key '{as_typed(unknown[0].encode())}'; known are {known}")
    excepts = table.get("except", [])
    excepts = [excepts] if isinstance(excepts, str) else excepts
    if not isinstance(excepts, list) or not all(isinstance(text, str) for text in excepts):
        raise UsageError(f"{where}: 'except' must be a string in quotes, or a list of them")
    database = table.get("database")
    if database is not None and (not isinstance(database, int) or isinstance(database, bool)):
        raise UsageError(f"{where}: 'database' must be a number")
    table = {"type": ANY, **table}
    for name in names:
        if name not in table:
            raise UsageError(f"{where}: '{name}' is missing")
        if not isinstance(table[name], str):
            raise UsageError(f"{where}: '{name}' must be a string in quotes")
    source, target = as_bytes(table["source"]), as_bytes(table["target"])
    return Rule.parse(source, target, table["type"], [as_bytes(text) for text in excepts], database)
