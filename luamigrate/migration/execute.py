"""Copying, verifying and rolling back: each builds a verb, and `execute` carries it out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from luamigrate.migration.around import check, covered, runner_for
from luamigrate.migration.drift_watcher import watch
from luamigrate.migration.options import Options
from luamigrate.migration.throttle import Throttle
from luamigrate.migration.verbs import Compare, FindExtra, Remove, Verb, copying
from luamigrate.model.comparison import Comparison, Filling
from luamigrate.model.control import NOBODY, Control
from luamigrate.model.errors import Error, Refused, UsageError
from luamigrate.model.limits import SETTLE_SECONDS, Limits
from luamigrate.model.patterns import Pattern
from luamigrate.model.plans import BUILT_IN, Plan
from luamigrate.model.rules import as_bytes
from luamigrate.model.summary import Batch
from luamigrate.server.connection import ReconnectPolicy
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import ServerChanged

BEGINNINGS = 20
"""At most: a server that is another one each time would make the work start over for ever."""

UNSTEADY = (
    f"another server process answered {BEGINNINGS} times, and each time everything was begun anew: see why the server "
    "does not stay up, or what stands between, then run again"
)


def migrate(
    server: Deployment,
    plan: Plan = BUILT_IN,
    *,
    dry_run: bool = False,
    validate: bool = True,
    on_existing: Literal["skip", "fill"] = "skip",
    fill_queues: bool = False,
    settle: float = SETTLE_SECONDS,
    ignore_expiry: bool = False,
    limits: Limits | None = None,
    ignored_checks: frozenset[str] = frozenset(),
    show_values: bool = False,
    every_key: bool = False,
    operator: Control = NOBODY,
) -> Iterator[Batch]:
    """Copy what the plan's rules match to its new names, and yield what came of each batch.

    Rules run in their order, each one to its end. What is not clean is checked a second time
    after `settle` seconds and counted only then. With `on_existing="fill"` hashes and sets, with
    `fill_queues` sorted sets too, that only lack a part of their source are given it, if both checks
    found the same part missing. With `dry_run` nothing is written.

    A batch without keys announces a rule, or tells how far a scan is that found nothing lately.
    With `every_key` `Batch.keys` lists all keys, not only those that are not clean; with
    `show_values` their notes hold values.

    Raises Refused before anything is written where a check says no that is not among
    `ignored_checks`, Stopped where a guard does later, Error where the server fails for longer than
    the patience of `limits`; what was yielded until then holds, and running again continues.
    """
    if on_existing == "fill" and not validate:
        raise UsageError("filling always compares: it cannot go without validation")
    if fill_queues and on_existing != "fill":
        raise UsageError("only filling can fill queues")
    filling = Filling.of(fills=on_existing == "fill", queues=fill_queues)
    verb = copying(Comparison(validate=validate, ignore_expiry=ignore_expiry, show_values=show_values, filling=filling))
    options = Options(limits=limits or Limits(), settle=settle, ignored_checks=ignored_checks, every_key=every_key)
    return execute(server, plan, verb.rehearsal() if dry_run else verb, options, operator)


def verify(
    server: Deployment,
    plan: Plan = BUILT_IN,
    *,
    follow: bool = False,
    settle: float = SETTLE_SECONDS,
    ignore_expiry: bool = False,
    sample: int | None = None,
    extra: bool = False,
    cover: Sequence[str | bytes] = (),
    limits: Limits | None = None,
    ignored_checks: frozenset[str] = frozenset(),
    show_values: bool = False,
    every_key: bool = False,
    operator: Control = NOBODY,
) -> Iterator[Batch]:
    """Compare every source with its target, or the first `sample` of each rule; write nothing.

    With `extra`, targets without a source are then searched for; then keys under each pattern of `cover` that no rule
    takes. The server may be a replica. Everything else is as with `migrate`.

    With `follow` it goes on until `operator.stop` says so: what changes is compared again once it has been quiet for
    `settle` seconds. Each `Batch` that has `drift` tells how it stands; `Batch.keys` are pairs that are not equal,
    and those that are equal again (`KeyOutcome.was`). Closing the iterator ends it.
    """
    options = Options(
        limits=limits or Limits(),
        settle=settle,
        ignored_checks=ignored_checks,
        every_key=every_key,
        sample=sample,
        extra=extra,
        cover=tuple(Pattern.parse(as_bytes(text)) for text in cover),
    )
    verb = Compare(comparison=Comparison(ignore_expiry=ignore_expiry, show_values=show_values))
    if follow:
        return watch(server, plan, verb, options, operator)
    return execute(server, plan, verb, options, operator)


def rollback(
    server: Deployment,
    plan: Plan,
    *,
    dry_run: bool = False,
    settle: float = SETTLE_SECONDS,
    extra: bool = False,
    limits: Limits | None = None,
    ignored_checks: frozenset[str] = frozenset(),
    show_values: bool = False,
    every_key: bool = False,
    operator: Control = NOBODY,
) -> Iterator[Batch]:
    """Delete every target that equals its source, whoever made it, if the source lives as long.

    The others are kept. With `dry_run` nothing is deleted, and `same` is what would be. With
    `extra`, targets without a source are searched for as well; they are never deleted. Everything
    else is as with `migrate`.
    """
    verb = Remove(comparison=Comparison(show_values=show_values))
    options = Options(
        limits=limits or Limits(), settle=settle, ignored_checks=ignored_checks, every_key=every_key, extra=extra
    )
    return execute(server, plan, verb.rehearsal() if dry_run else verb, options, operator)


def execute(deployment: Deployment, plan: Plan, verb: Verb, options: Options, control: Control) -> Iterator[Batch]:
    """Check, process rule by rule, recheck what was not clean; start over if a server process changed."""
    plan = plan.from_database(deployment.database)
    policy = ReconnectPolicy(patience=options.limits.patience, control=control, needs_primary=verb.writes)
    deployment.reconnect_by(policy)
    yield from check(deployment, plan, verb, options)  # raises Refused before any write
    throttle = Throttle(
        deployment=deployment, limits=options.limits, verb=verb, ignored=options.ignored_checks, control=control
    )
    verbs = (verb, FindExtra()) if options.extra else (verb,)
    runners = [runner_for(deployment, plan, each, options, control=control, throttle=throttle) for each in verbs]
    for _ in range(BEGINNINGS):
        try:
            for runner in runners:
                for rule in plan:
                    yield from runner.run_rule(rule)
                yield from runner.finish_rechecks()
                if control.stop():
                    break
            yield from covered(plan, options, throttle)
        except ServerChanged:
            runner.forget()
            deployment.accept_change()
            yield Batch(plan[0], restarted=True)
        except (Error, KeyboardInterrupt) as problem:
            yield from runner.unresolved()
            if isinstance(problem, Refused):
                # That is what checks do, before anything is written.
                raise Error(str(problem)) from None
            raise
        else:
            return
    raise Error(UNSTEADY)
