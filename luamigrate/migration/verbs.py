"""The verbs: what each of them checks first, and which script it asks about the pairs of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from luamigrate.migration import cross_slot_verbs, large_keys
from luamigrate.migration.cross_slot import Across, Way
from luamigrate.migration.pace import Rate
from luamigrate.migration.routing import Dispatch
from luamigrate.migration.runner import BEGINNINGS, UNSTEADY, ByChunks, Walk
from luamigrate.migration.throttle import Guards
from luamigrate.model.errors import Error, UsageError
from luamigrate.model.limits import LONGEST_SETTLE, SETTLE_SECONDS, Limits
from luamigrate.model.rules import BUILT_IN, Plan
from luamigrate.model.status import Command, Stage, possible, unfinished
from luamigrate.model.summary import Batch
from luamigrate.preflight import checks
from luamigrate.scripts import calls, library
from luamigrate.server.cluster import Cluster, Deployment
from luamigrate.server.connection import Endurance
from luamigrate.server.errors import ServerChanged


@dataclass(frozen=True, kw_only=True)
class Operator:
    """Who is asked and told while the work is under way."""

    stop: Callable[[], bool] = lambda: False
    """Whether it is to end: the batches under way are finished and yielded, and that is all."""
    held: Callable[[], bool] = lambda: False
    """Whether it is to wait."""
    tell: Callable[[str], None] = lambda _: None
    """Is told what is waited for, again and again while it lasts."""


NOBODY = Operator()


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
    operator: Operator = NOBODY,
) -> Iterator[Batch]:
    """Copy what the plan's rules match to its new names, and yield what came of each batch.

    Rules run in their order, each one to its end. What is not clean is looked at a second time
    after `settle` seconds and counted only then. With `on_existing="fill"` hashes and sets, with
    `fill_queues` sorted sets too, that only lack a part of their source are given it, if both looks
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
    filling = ("queues" if fill_queues else "sets") if on_existing == "fill" else ""
    ask: Callable[..., calls.ScriptCall]
    across: Callable[..., Way]
    by_chunks: Callable[..., large_keys.Steps]
    shared: dict[str, Any]
    if dry_run:
        script, shared = "compare", {"validate": validate, "filling": filling, "sizes": True}
        ask, across, by_chunks = calls.compare, cross_slot_verbs.compare, large_keys.compare
    elif filling:
        script, shared = "fill", {"filling": filling}
        ask, across, by_chunks = calls.fill, cross_slot_verbs.copy, large_keys.fill
    else:
        script, shared = "copy", {"validate": validate}
        ask, across, by_chunks = calls.copy, cross_slot_verbs.copy, large_keys.copy
    shared["ignore_expiry"] = ignore_expiry
    yield from _walk(
        server,
        plan,
        Command.RUN,
        script=script,
        ask=partial(ask, show_values=show_values, **shared),
        across=partial(across, show_values=show_values, **shared),
        by_chunks=partial(by_chunks, **shared),
        settle=settle,
        limits=limits,
        ignored_checks=ignored_checks,
        every_key=every_key,
        operator=operator,
        dry_run=dry_run,
        fills=bool(filling),
        acts=not dry_run,
        would_fill=dry_run,
    )


def verify(
    server: Deployment,
    plan: Plan = BUILT_IN,
    *,
    settle: float = SETTLE_SECONDS,
    ignore_expiry: bool = False,
    sample: int | None = None,
    extra: bool = False,
    limits: Limits | None = None,
    ignored_checks: frozenset[str] = frozenset(),
    show_values: bool = False,
    every_key: bool = False,
    operator: Operator = NOBODY,
) -> Iterator[Batch]:
    """Compare every source with its target, or the first `sample` of each rule; write nothing.

    With `extra`, targets without a source are then looked for. The server may be a replica.
    Everything else is as with `migrate`.
    """
    yield from _walk(
        server,
        plan,
        Command.VERIFY,
        script="compare",
        ask=partial(calls.compare, ignore_expiry=ignore_expiry, show_values=show_values),
        across=partial(cross_slot_verbs.compare, ignore_expiry=ignore_expiry, show_values=show_values),
        by_chunks=partial(large_keys.compare, ignore_expiry=ignore_expiry),
        extra=extra,
        settle=settle,
        limits=limits,
        ignored_checks=ignored_checks,
        every_key=every_key,
        operator=operator,
        sample=sample,
    )


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
    operator: Operator = NOBODY,
) -> Iterator[Batch]:
    """Delete every target that equals its source, whoever made it, if the source lives as long.

    The others are kept. With `dry_run` nothing is deleted, and `same` is what would be. With
    `extra`, targets without a source are looked for as well; they are never deleted. Everything
    else is as with `migrate`.
    """
    yield from _walk(
        server,
        plan,
        Command.ROLLBACK,
        script="remove",
        ask=partial(calls.remove, delete=not dry_run, show_values=show_values),
        across=partial(cross_slot_verbs.remove, delete=not dry_run, show_values=show_values),
        by_chunks=partial(large_keys.remove, delete=not dry_run),
        dry_run=dry_run,
        extra=extra,
        settle=settle,
        limits=limits,
        ignored_checks=ignored_checks,
        every_key=every_key,
        operator=operator,
    )


def _walk(
    server: Deployment,
    plan: Plan,
    command: Command,
    *,
    script: str,
    ask: calls.Question,
    across: Across,
    by_chunks: ByChunks,
    settle: float,
    limits: Limits | None,
    ignored_checks: frozenset[str],
    operator: Operator,
    dry_run: bool = False,
    fills: bool = False,
    extra: bool = False,
    **options: Any,
) -> Iterator[Batch]:
    """Check, then ask a script about every pair of the plan, and then about targets without a source."""
    if not 0 <= settle <= LONGEST_SETTLE:
        raise UsageError(f"the seconds to settle must be from 0 to {LONGEST_SETTLE}, not {settle}")
    limits = limits or Limits()
    writes = command is not Command.VERIFY and not dry_run
    server.endure(Endurance(patience=limits.patience, stop=operator.stop, tell=operator.tell, needs_primary=writes))
    findings = checks.look(
        server, plan, command, dry_run=dry_run, fills=fills, extra=extra, limits=limits, ignored=ignored_checks
    )
    checks.refuse(findings)
    if warnings := checks.warnings(findings):
        yield Batch(plan[0], warnings=warnings)
    across_slots = (
        ("cross_slot/read", "cross_slot/create", "cross_slot/replace", "cross_slot/compare")
        if isinstance(server, Cluster)
        else ()
    )
    for primary in server.primaries:
        for name in (script, *(("find_extra",) if extra else ()), *across_slots):
            library.register(primary, name)
    rate = Rate(limits)
    guards = Guards(
        deployment=server,
        limits=limits,
        rate=rate,
        writes=writes,
        copies=writes and command is Command.RUN,
        ignored=ignored_checks,
        stop=operator.stop,
        held=operator.held,
        tell=operator.tell,
    )
    dispatch = partial(Dispatch, deployment=server, limits=limits, rate=rate)
    walk = partial(
        Walk,
        deployment=server,
        plan=plan,
        by_chunks=by_chunks,
        unfinished=unfinished(command, dry_run=dry_run),
        possible=possible(command, dry_run=dry_run),
        limits=limits,
        guards=guards,
        settle=settle,
        stop=operator.stop,
        **options,
    )
    for _ in range(BEGINNINGS):
        yield from walk(dispatch=dispatch(ask=ask, across=across)).batches()
        try:
            if extra and not operator.stop():
                extra_dispatch = dispatch(ask=calls.find_extra, across=cross_slot_verbs.extra)
                yield from walk(dispatch=extra_dispatch, stage=Stage.EXTRA).batches()
        except ServerChanged:
            server.accept_change()
            yield Batch(plan[0], began_again=True)
        else:
            return
    raise Error(UNSTEADY)
