"""Lines about keys that are to be covered by rules. Prints nothing itself."""

from __future__ import annotations

from luamigrate.cli.messages import count_keys, count_targets
from luamigrate.model.coverage import Coverage
from luamigrate.model.errors import printable
from luamigrate.model.status import Finding, Verdict
from luamigrate.model.summary import Summary
from luamigrate.preflight.emptiness import count_by_type, not_varying


def closing_lines(summary: Summary) -> list[str]:
    """Return what is said at the end of a command, for each pattern."""
    lines = []
    for found in summary.coverage.values():
        if found.untaken:
            lines.append(f"NOT COVERED: {_line(found)}. Give them a rule, or leave them out with --except.")
        elif summary.interrupted or summary.error:
            continue  # What has not been looked at may be anything.
        elif found.is_empty:
            lines.append(f"NOTHING UNDER {_nothing(found)}")
        else:
            lines.append(f"Covered: {_line(found)}.")
    return lines


def findings(summary: Summary) -> list[Finding]:
    """Return the same as findings of a check."""
    return [
        Finding("cover", _verdict(found, allow_empty=summary.allow_empty), _text(found))
        for found in summary.coverage.values()
    ]


def _verdict(found: Coverage, *, allow_empty: bool) -> Verdict:
    return Verdict.WARNING if found.untaken or (found.is_empty and not allow_empty) else Verdict.OK


def _text(found: Coverage) -> str:
    return f"NOTHING UNDER {_nothing(found)}" if found.is_empty else _line(found)


def _nothing(found: Coverage) -> str:
    return f"'{found.pattern}': there is no such key. Is the pattern right?{not_varying([found.pattern])}"


def _line(found: Coverage) -> str:
    if found.untaken:
        names = ", ".join(map(printable, found.names))
        out = [f"an except leaves out {found.left_out:,} more"] if found.left_out else []
        types = count_by_type(found.types)
        return f"no rule takes {found.untaken:,} of the {_under(found, *out)}: {types}. The first: {names}"
    if not found.seen:
        return f"there is no key under '{found.pattern}' but {count_targets(found.targets)} of the plan"
    if not found.left_out:
        return f"a rule takes {_each(found)}"
    if found.left_out == found.seen:
        return f"an except leaves out {_each(found)}, and no rule takes any"
    others = f"an except leaves out the other {found.left_out:,}"
    return f"a rule takes {found.seen - found.left_out:,} of the {_under(found, others)}"


def _each(found: Coverage) -> str:
    return f"{'the' if found.seen == 1 else 'each of the'} {_under(found)}"


def _under(found: Coverage, *more: str) -> str:
    """Return the number of keys and the pattern, with what else is to be said of them."""
    targets = [f"{count_targets(found.targets)} of the plan not counted"] if found.targets else []
    notes = "; ".join((*more, *targets))
    return f"{count_keys(found.seen)} under '{found.pattern}'" + (f" ({notes})" if notes else "")
