"""Names that were cut over are nobody's to write, until the way back was gone or given up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import luamigrate
from luamigrate import Command, Deployment, Plan, Refused, connect, follow, migrate, rollback, verify
from luamigrate.migration.lease import Lease
from luamigrate.migration.sides import CutoverState
from luamigrate.model.control import NOBODY
from luamigrate.model.cutover import CUTOVERS, CutoverOptions, Side
from luamigrate.model.following import TAG, digest_of, lease_of
from luamigrate.model.status import Finding, Verdict
from luamigrate.preflight.checks import run_checks
from tests.clusters import ClusterInstance, slot_of
from tests.conftest import luamigrate as command_line
from tests.flipping import FLAG, VALUE, flip, state_of
from tests.following import PLAN, Following
from tests.instances import Instance, snapshot
from tests.preflight.test_checks import KEYS, RUN, commands, user
from tests.slots import Move

pytestmark = pytest.mark.oldest_and_newest

OTHER = 5
BACKWARDS = luamigrate.plan([("step:*", "job:*", "any")])
ONTO_THEM = luamigrate.plan([("x:*", "step:1*", "any")])
FROM_THEM = luamigrate.plan([("job:*", "other:*", "any")])
BESIDE = luamigrate.plan([("x:*", "y:*", "any")])
ELSEWHERE = luamigrate.plan([("job:*", "step:*", "any")], database=OTHER)
TOLD = "such names were cut over at 20.* UTC .flag 'app:names'.: .*--flip 'app:names=step:'.*back.*finish"


@pytest.fixture
def deployment(server: Instance) -> Iterator[Deployment]:
    """Connect to the server, or cluster, on which the plan was cut over."""
    server.client.hset("job:1", "a", "1")
    server.client.hset("step:1", "a", "1")
    with connect(server.url) as found:
        yield found


@pytest.fixture
def flipped(server: Instance, deployment: Deployment) -> CutoverState:
    """Have the plan cut over."""
    state = state_of(deployment, PLAN)
    flip(server, state)
    return state


def found(deployment: Deployment, plan: Plan, command: Command, flag: bytes | None = None) -> list[Finding]:
    """Return what the check finds that is not fine."""
    cutover = CutoverOptions(flag=flag, value=VALUE, freezes=False) if flag else None
    findings = run_checks(deployment, plan, command, cutover=cutover)
    return [one for one in findings if one.name == "follow" and one.verdict is not Verdict.OK]


@pytest.mark.parametrize("plan", [PLAN, BACKWARDS, ONTO_THEM], ids=str)
@pytest.mark.parametrize("command", [Command.RUN, Command.ROLLBACK])
def test_nobody_writes_either_side_after_a_flip(
    server: Instance, deployment: Deployment, flipped: CutoverState, plan: Plan, command: Command
) -> None:
    """Not the new names, which are live, nor the old ones, which the way back needs; then the record goes."""
    before = snapshot(server.client)
    with pytest.raises(Refused, match=TOLD):
        list(migrate(deployment, plan) if command is Command.RUN else rollback(deployment, plan))
    assert snapshot(server.client) == before
    server.client.delete(flipped.record)
    assert not found(deployment, plan, command)


@pytest.mark.parametrize("plan", [FROM_THEM, BESIDE], ids=str)
def test_who_writes_other_names_may_go_on(deployment: Deployment, flipped: CutoverState, plan: Plan) -> None:
    """Whoever only reads the old ones, too."""
    for command in (Command.RUN, Command.ROLLBACK):
        assert not found(deployment, plan, command)


def test_verify_never_minds(deployment: Deployment, flipped: CutoverState) -> None:
    """It writes nothing."""
    assert [batch.tally.found for batch in verify(deployment, PLAN)]


def test_an_entry_alone_says_nothing(deployment: Deployment) -> None:
    """An attempt was under way, and nothing was flipped."""
    state_of(deployment, PLAN).announce()
    for command in (Command.RUN, Command.ROLLBACK, Command.FOLLOW):
        assert not found(deployment, PLAN, command)


@pytest.mark.parametrize("plan", [BACKWARDS, ONTO_THEM, FROM_THEM], ids=str)
def test_another_follow_of_such_names_is_refused(deployment: Deployment, flipped: CutoverState, plan: Plan) -> None:
    """One that copies the old names too: they are written by whoever keeps the way back. With a flag as well."""
    with pytest.raises(Refused, match=TOLD):
        list(follow(deployment, plan))
    assert [one.verdict for one in found(deployment, plan, Command.FOLLOW, FLAG)] == [Verdict.REFUSED]


def test_a_follow_without_the_flag_is_refused_whatever_is_ignored(
    server: Instance, deployment: Deployment, flipped: CutoverState
) -> None:
    """It would make live names what the old ones are."""
    server.client.hset("step:1", "a", "live")
    with pytest.raises(Refused, match=f"follow: {TOLD}"):
        list(follow(deployment, PLAN, replace=True, ignored_checks=frozenset(("follow",))))
    with pytest.raises(Refused, match=f"follow: {TOLD}"):
        found(deployment, PLAN, Command.FOLLOW, b"another:flag")
    assert server.client.hget("step:1", "a") == b"live"
    assert not found(deployment, PLAN, Command.FOLLOW, FLAG)


def test_the_command_line_says_it_in_one_line(server: Instance, deployment: Deployment, flipped: CutoverState) -> None:
    """With exit code 4; check tells it too."""
    for arguments in (("rollback", "--yes"), ("run",), ("follow",), ("check",)):
        result = command_line(*arguments, "--map", "job:*=step:*", url=server.url)
        assert result.code == 4
        assert "such names were cut over at" in result.out + result.err


def test_an_entry_that_nobody_can_read_is_refused(server: Instance, deployment: Deployment) -> None:
    """Whatever names it may be about."""
    client: Any = server.client
    client.hset(CUTOVERS, "of-2030@0", '{"names": "all"}')
    with pytest.raises(Refused, match="nobody can tell which names were cut over by the entry of-2030@0"):
        list(migrate(deployment, BESIDE))
    with pytest.raises(Refused, match="HDEL luamigrate:cutover of-2030@0"):
        list(follow(deployment, BESIDE))


def test_a_record_that_nobody_can_read_is_refused(
    server: Instance, deployment: Deployment, flipped: CutoverState
) -> None:
    """A hash that no flip has written, and a key of another type."""
    client: Any = server.client
    client.hset(flipped.record, "later", "1")
    with pytest.raises(Refused, match=r"luamigrate:cutover:.* is no record of a cut-over"):
        list(migrate(deployment, PLAN))
    client.delete(flipped.record)
    client.set(flipped.record, "x")
    with pytest.raises(Refused, match=r"whether such names were cut over cannot be told, because .*WRONGTYPE"):
        list(migrate(deployment, PLAN))


@pytest.mark.single_server("a cluster has one database")
def test_a_cutover_to_another_database_is_seen_from_there(server: Instance, deployment: Deployment) -> None:
    """The record is in the database of the flag."""
    with server.another_client(db=OTHER) as other:
        other.flushdb()
        state = state_of(deployment, ELSEWHERE)
        flip(server, state)
        with connect(f"{server.url}?db={OTHER}") as there:
            with pytest.raises(Refused, match=TOLD):
                list(migrate(there, luamigrate.plan([("x:*", "step:*", "any")])))
            assert not found(there, luamigrate.plan([("x:*", "job:*", "any")]), Command.RUN)
        with pytest.raises(Refused, match=TOLD):
            list(migrate(deployment, ELSEWHERE))
        with pytest.raises(Refused, match=TOLD):
            list(migrate(deployment, luamigrate.plan([("x:*", "job:*", "any")])))
        assert not found(deployment, luamigrate.plan([("x:*", "step:*", "any")]), Command.RUN)
        server.client.delete(state.record)
        assert not found(deployment, ELSEWHERE, Command.RUN)
        other.flushdb()


def test_a_flag_serves_one_plan_at_a_time(server: Instance, deployment: Deployment, flipped: CutoverState) -> None:
    """Another plan that flipped it would take the way back from the first one."""
    (finding,) = found(deployment, BESIDE, Command.FOLLOW, FLAG)
    assert finding.verdict is Verdict.REFUSED
    assert finding.text.startswith("other names were cut over by the same flag at 20")
    assert not found(deployment, BESIDE, Command.FOLLOW, b"another:flag")
    server.client.delete(flipped.record)
    assert not found(deployment, BESIDE, Command.FOLLOW, FLAG)


def test_what_a_follow_mirrors_back_is_not_followed_by_another(server: Instance, deployment: Deployment) -> None:
    """Before a flip it writes the new names, and after it the old ones."""
    lease = Lease(deployment, PLAN, NOBODY, 1.0)
    lease.take()
    assert not found(deployment, FROM_THEM, Command.FOLLOW)
    lease.side = Side.TARGETS
    lease.renew("")
    (finding,) = found(deployment, FROM_THEM, Command.FOLLOW)
    assert finding.text.startswith("a follow of such names is under way")
    lease.release("")


def test_a_user_who_may_not_ask_is_warned(server: Instance, deployment: Deployment) -> None:
    """As with the leases; a record that may not be read is refused, for its names are known."""
    flip(server, state_of(deployment, luamigrate.BUILT_IN))
    server.client.delete("job:1", "step:1")
    keys = [*KEYS, "luamigrate:follow*"]
    with user(server, [*commands(server, RUN), "hgetall"], keys) as url:
        with connect(url) as limited:
            (finding,) = found(limited, luamigrate.BUILT_IN, Command.RUN)
        assert finding.verdict is Verdict.WARNING
        assert finding.text.startswith("this user may not ask whether such names were cut over: ")
    with (
        user(server, [*commands(server, RUN), "hgetall"], [*keys, "luamigrate:cutover"]) as url,
        connect(url) as limited,
        pytest.raises(Refused, match="whether such names were cut over cannot be told"),
    ):
        list(migrate(limited))


def test_a_follow_that_has_lost_its_lease_sees_that_its_names_were_cut_over(
    server: Instance, deployment: Deployment
) -> None:
    """It hung, and another process of the same plan has flipped meanwhile: nothing live is overwritten."""
    client: Any = server.client
    lease = lease_of(digest_of(PLAN)) + (TAG if deployment.slots else b"")
    with Following(server.url) as following:
        following.wait_until_in_step()
        flip(server, state_of(deployment, PLAN))
        client.delete(lease)
        following.join(20)
    assert "such names were cut over" in str(following.error)
    client.hset("step:1", "a", "live")
    time.sleep(0.1)
    assert client.hget("step:1", "a") == b"live"


@pytest.mark.cluster
def test_while_the_index_is_on_its_way_to_another_node_the_answer_is_no(movable: ClusterInstance) -> None:
    """Nobody can ask it before it has arrived; then it says what it said."""
    movable.client.hset("job:1", "a", "1")
    slot = slot_of(CUTOVERS)
    with connect(movable.url) as deployment:
        flip(movable, state_of(deployment, PLAN))
        target = next(node for node in movable.primaries() if node.id != movable.owner(slot).id)
        move = Move.begin(movable, slot, target)
        move.take()
        (finding,) = found(deployment, PLAN, Command.RUN)
        assert finding.verdict is Verdict.REFUSED
        assert finding.text.startswith("nobody can tell at present whether such names were cut over: try again. ")
        move.finish()
        (finding,) = found(deployment, PLAN, Command.RUN)
        assert finding.text.startswith("such names were cut over at 20")
