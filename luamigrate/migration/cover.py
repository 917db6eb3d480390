"""The search for keys under a pattern that no rule takes: scan -> rule -> type."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from luamigrate.migration import scan
from luamigrate.migration.pace import Pace
from luamigrate.model.coverage import Coverage
from luamigrate.model.errors import printable
from luamigrate.model.limits import Limits
from luamigrate.model.patterns import Pattern
from luamigrate.model.plans import Plan
from luamigrate.model.rules import ANY, Rule
from luamigrate.server.call import Call
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Redirected, Unsettled


def search(
    deployment: Deployment, plan: Plan, pattern: Pattern, limits: Limits, stop: Callable[[], bool]
) -> Iterator[Coverage]:
    """Yield what is found under a pattern, batch by batch. Raises Error.

    In a cluster, keys of slots that are moved meanwhile may be found twice.
    """
    paces: dict[Connection, Pace] = {}

    def pace_of(server: Connection) -> Pace:
        return paces.setdefault(server, Pace(limits, server.round_trip))

    yield Coverage(pattern)
    names = None if pattern.varies else (pattern.prefix,)
    for found in scan.everywhere(deployment, scan.Names(pattern, names=names), pace_of, stop):
        yield _looked_at(deployment, plan, Coverage(pattern), found.keys)


def _looked_at(deployment: Deployment, plan: Plan, coverage: Coverage, names: list[bytes]) -> Coverage:
    asked: list[tuple[bytes, Rule | None, Call]] = []
    for name in names:
        rule = plan.rule_for(name)
        if rule and rule.type == ANY:
            coverage.seen += 1
        elif not rule and plan.leaves_out(name):
            coverage.seen, coverage.left_out = coverage.seen + 1, coverage.left_out + 1
        elif not rule and plan.origin(name):
            coverage.targets += 1
        else:
            asked.append((name, rule, deployment.node_for(name).call("TYPE", name)))
    for name, rule, call in asked:
        kind = _type(call)
        coverage.seen += kind != "none"
        if kind not in ("none", rule.type if rule else ""):
            coverage.types[kind] += 1
            coverage.names.append(name)
    return coverage


def _type(call: Call) -> str:
    """Return the type of a key; `none` where it is not there, or on its way to another node."""
    try:
        return printable(call.answer())
    except (Redirected, Unsettled):
        return "none"
