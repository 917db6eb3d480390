"""Following: copy what is absent, then keep every target what its source is, until somebody asks to stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from luamigrate.migration import flipping
from luamigrate.migration.around import check
from luamigrate.migration.cross_slot_mirror import scripts_for
from luamigrate.migration.direction import Direction
from luamigrate.migration.follower import Follower
from luamigrate.migration.lease import Lease, NotWritten
from luamigrate.migration.options import FollowOptions
from luamigrate.migration.sides import CutoverState
from luamigrate.migration.survey import Survey
from luamigrate.migration.throttle import Throttle
from luamigrate.migration.verbs import Copy
from luamigrate.model.control import NOBODY, Control
from luamigrate.model.cutover import CutoverOptions, Side
from luamigrate.model.errors import Error, Refused
from luamigrate.model.limits import SETTLE_SECONDS, Limits
from luamigrate.model.plans import BUILT_IN, Plan
from luamigrate.model.status import Command
from luamigrate.model.summary import Batch
from luamigrate.scripts import library
from luamigrate.server.connection import ReconnectPolicy
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import ConnectionLost, ServerChanged


def follow(
    server: Deployment,
    plan: Plan = BUILT_IN,
    *,
    dry_run: bool = False,
    replace: bool = False,
    allow_groups: bool = False,
    settle: float = SETTLE_SECONDS,
    limits: Limits | None = None,
    ignored_checks: frozenset[str] = frozenset(),
    cutover: CutoverOptions | None = None,
    operator: Control = NOBODY,
) -> Iterator[Batch]:
    """Copy what the plan's rules match to its new names, and then whatever changes, until `operator.stop` says so.

    Each `Batch` has `followed`: how it stands, several times a second, and at once where it has come into step.
    `Batch.keys` are the pairs that need somebody's attention: `foreign`, `extra` and `failed`. Closing the iterator
    ends it in good order.

    With `cutover` it cuts over, goes back and finishes where `operator.wish` says so, and tells `operator.granted` what
    came of that.

    Raises Refused before anything is written where a check says no, or a target is there that is not what its source
    is, unless `replace` makes it so or this plan was followed before; Stopped, Error as `migrate` does.
    """
    options = FollowOptions(
        limits=limits or Limits(),
        settle=settle,
        ignored_checks=ignored_checks,
        every_key=False,
        dry_run=dry_run,
        replace=replace,
        allow_groups=allow_groups,
        cutover=cutover,
    )
    return follow_plan(server, plan, options, operator)


def follow_plan(deployment: Deployment, plan: Plan, options: FollowOptions, control: Control) -> Iterator[Batch]:
    """Check, take the lease, see how the targets stand, and follow."""
    deployment.reconnect_by(ReconnectPolicy(patience=options.limits.patience, control=control, needs_primary=True))
    # Raises Refused before any write.
    yield from check(deployment, plan, Copy(command=Command.FOLLOW, dry_run=options.dry_run), options)
    lease = Lease(deployment, plan, control, options.limits.patience, options.flag)
    state = (
        CutoverState(deployment, plan, options.cutover, control, options.limits.patience) if options.cutover else None
    )
    side = state.find().side if state else Side.SOURCES
    if options.dry_run:
        owned, _ = lease.read_record()
        yield from Survey(deployment, plan, options, control, owned=owned, side=side).batches()
        return
    for server in deployment.primaries:
        for name in (*scripts_for(deployment), *(flipping.SCRIPTS if options.cutover else ())):
            library.register(server, name)
    lease.take()
    try:
        yield from _followed(deployment, plan, options, control, lease=lease, state=state)
    except Refused as problem:
        # That is what checks do, before anything is written.
        raise (Error(str(problem)) if lease.is_used else problem) from None


def _followed(
    deployment: Deployment,
    plan: Plan,
    options: FollowOptions,
    control: Control,
    *,
    lease: Lease,
    state: CutoverState | None,
) -> Iterator[Batch]:
    """Listen first, then compare: what changes meanwhile is told. Then follow."""
    follower = None
    try:
        # Two that have begun at one moment have not seen each other's lease before they took their own.
        lease.refuse_others()
        throttle = Throttle(
            deployment=deployment,
            limits=options.limits,
            verb=Copy(),
            ignored=options.ignored_checks,
            control=control,
        )
        # Asked while the lease is held, so that no other follow flips meanwhile.
        lease.side = state.find().side if state else Side.SOURCES
        if state and lease.side is Side.TARGETS:
            # What others are told by may have gone with a node of a cluster.
            state.announce()
        direction = Direction(plan, deployment.database, lease.side)
        if state and not direction.is_back:
            # What a follow has left that was killed on its way back.
            state.withdraw()
        follower = Follower(deployment, direction, options, control, lease=lease, throttle=throttle, state=state)
        owned, away = lease.read_record()
        survey = Survey(deployment, plan, options, control, owned=owned, side=lease.side)
        for batch in survey.batches():
            follower.survey(batch)
            yield batch
            lease.renew_if_due("")
        if control.stop():
            return
        lease.use()
        if state:
            # It may have been lost, and taken again.
            state.confirm(lease.side)
        yield from follower.run(None if direction.is_back else away, claims=survey.is_clean, owned=owned)
    finally:
        with suppress(ConnectionLost, ServerChanged, NotWritten):
            follower.close() if follower else lease.release("")
