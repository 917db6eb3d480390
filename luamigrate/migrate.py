"""The verbs: what each of them checks first, and which script it asks about the pairs of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal

from luamigrate import checks, scripts
from luamigrate.errors import UsageError
from luamigrate.outcome import Batch, Command, Stage, unfinished
from luamigrate.rules import BUILT_IN, Plan
from luamigrate.servers import Server
from luamigrate.walk import Walk

LARGEST_BATCH = 10_000
SETTLE_SECONDS = 2.0
LONGEST_SETTLE = 3600


def migrate(
    server: Server,
    plan: Plan = BUILT_IN,
    *,
    dry_run: bool = False,
    batch_size: int = 100,
    validate: bool = True,
    on_existing: Literal["skip", "fill"] = "skip",
    fill_queues: bool = False,
    settle: float = SETTLE_SECONDS,
    ignore_expiry: bool = False,
    show_values: bool = False,
    every_key: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Batch]:
    """Copy what the plan's rules match to its new names, and yield what came of each batch.

    Rules run in their order, each one to its end. What is not clean is looked at a second time
    after `settle` seconds and counted only then. With `on_existing="fill"` hashes and sets, with
    `fill_queues` sorted sets too, that only lack a part of their source are given it, if both looks
    found the same part missing. With `dry_run` nothing is written.

    A batch without keys announces a rule, or tells how far a scan is that found nothing lately.
    With `every_key` `Batch.keys` lists all keys, not only those that are not clean; with
    `show_values` their notes hold values. When `stop` says so, the batches under way are finished
    and yielded, and that is all.

    Raises Refused before anything is written where a check says no, Error where the server fails;
    what was yielded until then holds, and running again continues.
    """
    _refuse_odd_options(batch_size, settle)
    if on_existing == "fill" and not validate:
        raise UsageError("filling always compares: it cannot go without validation")
    if fill_queues and on_existing != "fill":
        raise UsageError("only filling can fill queues")
    filling = ("queues" if fill_queues else "sets") if on_existing == "fill" else ""
    checks.refuse_unless_ready(server, plan, Command.RUN, dry_run=dry_run, fills=bool(filling))
    ask: Callable[..., scripts.ScriptCall]
    if dry_run:
        name, ask = "compare", partial(scripts.compare, validate=validate, filling=filling, sizes=True)
    elif filling:
        name, ask = "fill", partial(scripts.fill, filling=filling)
    else:
        name, ask = "copy", partial(scripts.copy, validate=validate)
    yield from _walk(
        server,
        plan,
        Command.RUN,
        name,
        partial(ask, ignore_expiry=ignore_expiry, show_values=show_values),
        batch_size=batch_size,
        settle=settle,
        every_key=every_key,
        stop=stop,
        dry_run=dry_run,
        acts=not dry_run,
        would_fill=dry_run,
    )


def verify(
    server: Server,
    plan: Plan = BUILT_IN,
    *,
    batch_size: int = 100,
    settle: float = SETTLE_SECONDS,
    ignore_expiry: bool = False,
    sample: int | None = None,
    extra: bool = False,
    show_values: bool = False,
    every_key: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Batch]:
    """Compare every source with its target, or the first `sample` of each rule; write nothing.

    With `extra`, targets without a source are then looked for. The server may be a replica.
    Everything else is as with `migrate`.
    """
    _refuse_odd_options(batch_size, settle)
    checks.refuse_unless_ready(server, plan, Command.VERIFY)
    yield from _walk(
        server,
        plan,
        Command.VERIFY,
        "compare",
        partial(scripts.compare, ignore_expiry=ignore_expiry, show_values=show_values),
        extra=extra,
        batch_size=batch_size,
        settle=settle,
        every_key=every_key,
        stop=stop,
        sample=sample,
    )


def rollback(
    server: Server,
    plan: Plan,
    *,
    dry_run: bool = False,
    batch_size: int = 100,
    settle: float = SETTLE_SECONDS,
    extra: bool = False,
    show_values: bool = False,
    every_key: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Batch]:
    """Delete every target that equals its source, whoever made it, if the source lives as long.

    The others are kept. With `dry_run` nothing is deleted, and `same` is what would be. With
    `extra`, targets without a source are looked for as well; they are never deleted. Everything
    else is as with `migrate`.
    """
    _refuse_odd_options(batch_size, settle)
    checks.refuse_unless_ready(server, plan, Command.ROLLBACK, dry_run=dry_run, extra=extra)
    yield from _walk(
        server,
        plan,
        Command.ROLLBACK,
        "remove",
        partial(scripts.remove, delete=not dry_run, show_values=show_values),
        dry_run=dry_run,
        extra=extra,
        batch_size=batch_size,
        settle=settle,
        every_key=every_key,
        stop=stop,
    )


def _walk(
    server: Server,
    plan: Plan,
    command: Command,
    script: str,
    ask: scripts.Question,
    *,
    stop: Callable[[], bool],
    dry_run: bool = False,
    extra: bool = False,
    **options: Any,
) -> Iterator[Batch]:
    """Ask a script about every pair of the plan, and then about targets without a source."""
    for name in (script, "extra") if extra else (script,):
        scripts.register(server, name)
    walk = partial(
        Walk, server=server, plan=plan, unfinished=unfinished(command, dry_run=dry_run), stop=stop, **options
    )
    yield from walk(ask=ask).batches()
    if extra and not stop():
        yield from walk(ask=scripts.extra, stage=Stage.EXTRA).batches()


def _refuse_odd_options(batch_size: int, settle: float) -> None:
    if not 1 <= batch_size <= LARGEST_BATCH:
        raise UsageError(f"the batch size must be from 1 to {LARGEST_BATCH}, not {batch_size}")
    if not 0 <= settle <= LONGEST_SETTLE:
        raise UsageError(f"the seconds to settle must be from 0 to {LONGEST_SETTLE}, not {settle}")
