"""Which side of a cut-over the application is on: every combination of flag and record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import luamigrate
from luamigrate import Deployment, Plan, Refused, UsageError, connect
from luamigrate.migration.lease import Lease
from luamigrate.migration.options import FollowOptions
from luamigrate.migration.sides import Found
from luamigrate.migration.survey import Survey
from luamigrate.model.control import NOBODY
from luamigrate.model.cutover import CUTOVERS, CutoverNote, CutoverOptions, Side
from luamigrate.model.following import LEASES, LeaseNote
from luamigrate.model.limits import Limits
from tests.flipping import FLAG, VALUE, flip, state_of, write_record
from tests.following import PLAN
from tests.instances import Instance

pytestmark = pytest.mark.oldest_and_newest

TAGGED = b"{app}:names"
ELSEWHERE = luamigrate.plan([("job:*", "step:*", "any")], database=5)


@pytest.fixture
def deployment(server: Instance) -> Iterator[Deployment]:
    """Connect to the server, or cluster."""
    with connect(server.url) as found:
        yield found


@pytest.mark.parametrize("flag", [FLAG, TAGGED])
@pytest.mark.parametrize("former", [None, b"job:", b""])
def test_without_a_record_and_with_another_value_it_is_before_a_cutover(
    server: Instance, deployment: Deployment, flag: bytes, former: bytes | None
) -> None:
    """Whatever the flag has, or if there is none: that is what it will have again."""
    if former is not None:
        server.client.set(flag, former)
    assert state_of(deployment, PLAN, flag).find() == Found(Side.SOURCES, None, former)


@pytest.mark.parametrize("flag", [FLAG, TAGGED])
@pytest.mark.parametrize("former", [None, b"job:"])
def test_where_flag_and_record_agree_it_is_after_a_cutover(
    server: Instance, deployment: Deployment, flag: bytes, former: bytes | None
) -> None:
    """The record says what the flag will have again."""
    state = state_of(deployment, PLAN, flag)
    server.client.set(flag, VALUE)
    write_record(server, state, **({} if former is None else {"former": former}))
    found = state.find()
    assert (found.side, found.former) == (Side.TARGETS, former)
    assert found.record
    assert (found.record.flag, found.record.value) == (flag, VALUE)


def test_the_value_without_a_record_is_refused(server: Instance, deployment: Deployment) -> None:
    """It may be left of a rehearsal, and live names must not be written because of that."""
    server.client.set(FLAG, VALUE)
    with pytest.raises(Refused, match="the flag 'app:names' is 'step:' already, and no record says"):
        state_of(deployment, PLAN).find()


@pytest.mark.parametrize(("value", "told"), [(None, "is absent"), (b"job:", "is 'job:'"), (b"x\n", r"is 'x\\x0a'")])
def test_a_record_whose_flag_is_something_else_is_refused(
    server: Instance, deployment: Deployment, value: bytes | None, told: str
) -> None:
    """With what was found."""
    state = state_of(deployment, PLAN)
    flip(server, state)
    if value is None:
        server.client.delete(FLAG)
    else:
        server.client.set(FLAG, value)
    with pytest.raises(Refused, match=f"the flag 'app:names' {told}, and its record says .* 'step:'"):
        state.find()


def test_another_value_than_the_one_that_was_flipped_is_refused(server: Instance, deployment: Deployment) -> None:
    """It names the one to give."""
    flip(server, state_of(deployment, PLAN))
    with pytest.raises(Refused, match="this plan was cut over by --flip 'app:names=step:'"):
        state_of(deployment, PLAN, value=b"other").find()


@pytest.mark.single_server("in a cluster the record of another flag has another name: the index tells of it")
def test_another_flag_than_the_one_that_was_flipped_is_refused(server: Instance, deployment: Deployment) -> None:
    """Even where that has the value already."""
    flip(server, state_of(deployment, PLAN))
    for value in (b"old", VALUE):
        server.client.set("other", value)
        with pytest.raises(Refused, match="this plan was cut over by --flip 'app:names=step:'"):
            state_of(deployment, PLAN, flag=b"other").find()


def test_an_odd_record_is_refused(server: Instance, deployment: Deployment) -> None:
    """A hash that no flip has written, and a key of another type."""
    state = state_of(deployment, PLAN)
    client: Any = server.client
    for command in (("HSET", state.record, "flag", FLAG), ("SET", state.record, "x")):
        client.delete(state.record)
        client.execute_command(*command)
        for value in (b"job:", VALUE):
            client.set(FLAG, value)
            with pytest.raises(Refused, match="is no record of a flip"):
                state.find()
    client.delete(state.record)
    client.set(FLAG, b"job:")
    assert state.find().side is Side.SOURCES


def test_a_flag_that_cannot_serve_is_refused(server: Instance, deployment: Deployment) -> None:
    """One that expires, or is no string; the connection goes on afterwards."""
    client: Any = server.client
    state = state_of(deployment, PLAN)
    client.set(FLAG, b"job:", ex=1000)
    with pytest.raises(Refused, match="the flag 'app:names' expires"):
        state.find()
    client.delete(FLAG)
    client.hset(FLAG, "a", "1")
    with pytest.raises(Refused, match="the flag 'app:names' is a hash, not a string"):
        state.find()
    client.delete(FLAG)
    assert state.find() == Found(Side.SOURCES, None, None)


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        (b"job:flag", VALUE, "is a source of the plan"),
        (b"step:flag", VALUE, "is a target of the plan"),
        (b"luamigrate:flag", VALUE, "is under luamigrate:"),
        (b"", VALUE, "needs a name and a value"),
        (FLAG, b"", "needs a name and a value"),
    ],
)
def test_a_name_that_cannot_be_a_flag_is_a_usage_error(
    deployment: Deployment, flag: bytes, value: bytes, told: str
) -> None:
    """Nothing is asked of the server."""
    with pytest.raises(UsageError, match=told):
        state_of(deployment, PLAN, flag, value)


def test_a_name_that_an_except_leaves_out_can_be_a_flag(deployment: Deployment) -> None:
    """Of a plan that takes all other names."""
    everything = luamigrate.plan([("*", "app:*", "any")], excepts=["app:*", "flag"])
    assert state_of(deployment, everything, b"flag").find().side is Side.SOURCES
    with pytest.raises(UsageError, match="is a target of the plan"):
        state_of(deployment, everything, b"app:names")


@pytest.mark.single_server("a cluster has one database")
def test_a_name_of_the_targets_can_be_a_flag_where_they_are_in_another_database(deployment: Deployment) -> None:
    """The flag is in the database of the sources."""
    assert state_of(deployment, ELSEWHERE, b"step:flag").find().side is Side.SOURCES
    with pytest.raises(UsageError, match="is a source of the plan"):
        state_of(deployment, ELSEWHERE, b"job:flag")


@pytest.mark.cluster
def test_a_flag_with_a_slot_of_its_own_is_a_usage_error(deployment: Deployment) -> None:
    """Flag and record could not be written in one step."""
    with pytest.raises(UsageError, match="can share its slot with no other key"):
        state_of(deployment, PLAN, b"a}b")


def test_the_index_points_to_the_record_until_that_is_withdrawn(server: Instance, deployment: Deployment) -> None:
    """Once it was flipped, only when the record is gone."""
    state = state_of(deployment, PLAN)
    state.announce()
    client: Any = server.client
    (text,) = client.hvals(CUTOVERS)
    note = CutoverNote.read(text)
    assert note
    assert (note.flag, note.value, note.record, note.database) == (FLAG, VALUE, state.record, 0)
    assert (note.sources, note.targets) == ((b"job:",), (b"step:",))
    state.withdraw()
    assert not client.exists(CUTOVERS)
    flip(server, state)
    state.withdraw()
    assert client.exists(CUTOVERS)
    client.delete(state.record)
    state.withdraw()
    assert not client.exists(CUTOVERS)


@pytest.mark.single_server("a cluster has one database")
def test_both_databases_have_the_index(server: Instance, deployment: Deployment) -> None:
    """Each with what is there; other plans' entries stay."""
    state = state_of(deployment, ELSEWHERE)
    with server.another_client(db=5) as other:
        other.flushdb()
        other.hset(CUTOVERS, "another@0", "x")
        state.announce()
        here = CutoverNote.read(server.client.hvals(CUTOVERS)[0])
        there = [note for note in map(CutoverNote.read, other.hvals(CUTOVERS)) if note]
        assert here
        assert (here.sources, here.targets) == ((b"job:",), ())
        assert [(note.sources, note.targets, note.database) for note in there] == [((), (b"step:",), 0)]
        state.withdraw()
        assert not server.client.exists(CUTOVERS)
        assert other.hkeys(CUTOVERS) == [b"another@0"]
        other.flushdb()


def test_an_index_that_cannot_be_written_is_refused(server: Instance, deployment: Deployment) -> None:
    """Before anything is flipped."""
    server.client.set(CUTOVERS, "somebody else's")
    with pytest.raises(Refused, match=r"the index luamigrate:cutover cannot be written: .*WRONGTYPE"):
        state_of(deployment, PLAN).announce()


def test_the_lease_tells_on_which_side_it_is(server: Instance, deployment: Deployment) -> None:
    """From the next renewal on."""
    client: Any = server.client

    def side() -> str:
        note = LeaseNote.read(client.hvals(LEASES)[0].partition(b" ")[2])
        assert note
        return note.side

    lease = Lease(deployment, PLAN, NOBODY, 1.0)
    lease.take()
    assert side() == "sources"
    lease.side = Side.TARGETS
    lease.renew("")
    assert side() == "targets"
    lease.release("")


def survey(
    deployment: Deployment,
    plan: Plan = PLAN,
    *,
    confirmed: bool = False,
    ignored: frozenset[str] = frozenset(),
) -> Survey:
    """Make a survey after a flip."""
    cutover = CutoverOptions(flag=FLAG, value=VALUE, confirmed=confirmed)
    options = FollowOptions(
        limits=Limits(), settle=0.0, ignored_checks=ignored, every_key=False, replace=True, cutover=cutover
    )
    return Survey(deployment, plan, options, NOBODY, owned=True, side=Side.TARGETS)


def test_after_a_flip_it_counts_what_would_be_overwritten_and_deleted(server: Instance, deployment: Deployment) -> None:
    """Though the targets were a follow's, and may be replaced; with --yes it goes on."""
    client: Any = server.client
    for number in range(5):
        client.hset(f"job:{number}", "a", number)
        client.hset(f"step:{number}", "a", number)
    client.hset("step:1", "a", "live")
    client.hset("step:2", "b", "live")
    client.delete("step:3")
    client.hset("step:new", "a", "1")
    wanted = (
        "targets: old names that are not what the new ones are, and would be overwritten: 2 differs; "
        "old names without a new one, which would be deleted: 1; new names without an old one, which would be copied "
        "back: 1; --report FILE names them, --yes makes the old names what the new ones are"
    )
    with pytest.raises(Refused) as refused:
        list(survey(deployment).batches())
    assert str(refused.value) == wanted
    confirmed = survey(deployment, confirmed=True)
    list(confirmed.batches())
    assert confirmed.is_clean
    ignored = survey(deployment, ignored=frozenset(("targets",)))
    list(ignored.batches())
    assert not ignored.is_clean


def test_after_a_flip_new_names_alone_need_no_confirmation(server: Instance, deployment: Deployment) -> None:
    """They are copied back, and nothing is lost."""
    client: Any = server.client
    client.hset("job:1", "a", "1")
    client.hset("step:1", "a", "1")
    client.hset("step:new", "a", "1")
    found = survey(deployment)
    list(found.batches())
    assert found.is_clean


def test_after_a_flip_an_old_name_of_another_type_is_not_overwritten_unasked(
    server: Instance, deployment: Deployment
) -> None:
    """It is none of the rule's, and no copy has its name."""
    client: Any = server.client
    client.set("job:1", "precious")
    client.hset("step:1", "a", "1")
    client.hset("step:2", "a", "1")
    with pytest.raises(Refused) as refused:
        list(survey(deployment, luamigrate.plan([("job:*", "step:*", "hash")])).batches())
    assert "old names of another type than their rule's, which would be overwritten: 1;" in str(refused.value)
    assert "copied back: 1;" in str(refused.value)


def test_before_a_cutover_the_survey_is_as_ever(server: Instance, deployment: Deployment) -> None:
    """Targets without a source are nobody's to delete."""
    server.client.hset("step:new", "a", "1")
    options = FollowOptions(limits=Limits(), settle=0.0, ignored_checks=frozenset(), every_key=False)
    with pytest.raises(Refused, match="targets that have no source: 1 extra"):
        list(Survey(deployment, PLAN, options, NOBODY, owned=False).batches())
