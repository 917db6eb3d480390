"""What comes before and after the work of a verb: the checks, the scripts at the servers, the search for other keys."""

from __future__ import annotations

import time
from collections.abc import Iterator

from luamigrate.migration.cover import search
from luamigrate.migration.options import Options
from luamigrate.migration.routing import scripts_for
from luamigrate.migration.runner import Runner
from luamigrate.migration.throttle import Throttle
from luamigrate.migration.verbs import Verb
from luamigrate.model.control import Control
from luamigrate.model.errors import UsageError
from luamigrate.model.limits import LONGEST_SETTLE
from luamigrate.model.plans import Plan
from luamigrate.model.status import Stage
from luamigrate.model.summary import Batch
from luamigrate.preflight import checks
from luamigrate.scripts import library
from luamigrate.server.deployment import Deployment


def covered(plan: Plan, options: Options, throttle: Throttle) -> Iterator[Batch]:
    """Search for keys that no rule takes."""
    for pattern in options.cover:
        for coverage in search(throttle.deployment, plan, pattern, throttle.limits, throttle.control.stop):
            yield Batch(plan[0], Stage.COVER, coverage=coverage)
            throttle.rate.sent(coverage.seen, time.monotonic)
            throttle.wait()


def check(deployment: Deployment, plan: Plan, verb: Verb, options: Options) -> Iterator[Batch]:
    """Tell what the checks warn of. Raises Refused where they say no, UsageError where an option makes no sense."""
    if not 0 <= options.settle <= LONGEST_SETTLE:
        raise UsageError(f"the seconds to settle must be from 0 to {LONGEST_SETTLE}, not {options.settle}")
    findings = checks.run_checks(
        deployment,
        plan,
        verb.command,
        dry_run=verb.dry_run,
        fills=verb.fills,
        extra=options.extra,
        limits=options.limits,
        ignored=options.ignored_checks,
        cutover=options.cutover,
    )
    checks.refuse(findings)
    if warnings := checks.warnings(findings):
        yield Batch(plan[0], warnings=warnings)


def runner_for(
    deployment: Deployment, plan: Plan, verb: Verb, options: Options, *, control: Control, throttle: Throttle
) -> Runner:
    """Have all primaries keep the verb's scripts, and return who carries it out."""
    for primary in deployment.primaries:
        for name in scripts_for(deployment, verb):
            library.register(primary, name)
    return Runner(deployment, plan, verb, options, control=control, throttle=throttle)
