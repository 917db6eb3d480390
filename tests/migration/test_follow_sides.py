"""A follow asks flag and record again wherever somebody else may have flipped meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import luamigrate
from luamigrate import Control, Deployment, Error, Stopped, connect, follow
from luamigrate.migration import follower
from luamigrate.migration.survey import Survey
from luamigrate.model.cutover import CUTOVERS, CutoverOptions, Side, Wish
from luamigrate.model.following import TAG, digest_of, lease_of
from luamigrate.model.summary import Batch
from tests.flipping import FLAG, VALUE, flip, state_of
from tests.following import PLAN, Following
from tests.instances import Instance

pytestmark = pytest.mark.oldest_and_newest

CUTOVER = CutoverOptions(flag=FLAG, value=VALUE)
BESIDE = luamigrate.plan([("x:*", "y:*", "any")])


@pytest.fixture
def deployment(server: Instance, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Connect to the server, or cluster, that has an equal pair."""
    monkeypatch.setattr(follower, "SECONDS_TO_TEND", 0.1)
    server.client.hset("job:1", "a", "1")
    server.client.hset("step:1", "a", "1")
    with connect(server.url) as found:
        yield found


def lease(deployment: Deployment) -> bytes:
    """Return the name of the lease."""
    return lease_of(digest_of(PLAN)) + (TAG if deployment.slots else b"")


def wished(deployment: Deployment, wish: Wish, before: Callable[[], object]) -> str:
    """Follow until a wish has its answer, and return that; something happens right before the wish is heard."""
    answers: list[str] = []
    moments = [before]

    def hear() -> Wish | None:
        if moments:
            moments.pop()()
        return None if answers else wish

    control = Control(wish=hear, granted=lambda _, why: answers.append(why), stop=lambda: bool(answers))
    for _ in follow(deployment, PLAN, settle=0.0, cutover=CUTOVER, operator=control):
        pass
    return answers[0]


@pytest.mark.single_server("in a cluster a lease is held until a moment, and is not missed before that")
def test_one_that_has_lost_its_lease_does_not_write_live_names(server: Instance, deployment: Deployment) -> None:
    """It hung; another process of the plan has cut over meanwhile, with the same flag, and ended."""
    client: Any = server.client
    with Following(server.url, cutover=CUTOVER) as following:
        following.wait_until_in_step()
        flip(server, state_of(deployment, PLAN))
        client.hset("step:1", "live", "1")
        client.delete(lease(deployment))
        client.hset("job:1", "a", "too late")
        following.join(20)
    assert isinstance(following.error, Stopped)
    assert "flag and record have changed" in str(following.error)
    assert client.hgetall("step:1") == {b"a": b"1", b"live": b"1"}


def test_one_that_has_lost_its_lease_before_it_begins_does_not_begin(
    server: Instance, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It compared for longer than the lease lives."""
    client: Any = server.client
    batches = Survey.batches

    def slow(survey: Survey) -> Iterator[Batch]:
        yield from batches(survey)
        flip(server, state_of(deployment, PLAN))
        client.hset("step:1", "live", "1")
        client.delete(lease(deployment))

    monkeypatch.setattr(Survey, "batches", slow)
    with pytest.raises(Error, match="cut-over: flag and record have changed meanwhile: start again"):
        list(follow(deployment, PLAN, settle=0.0, cutover=CUTOVER))
    assert client.hgetall("step:1") == {b"a": b"1", b"live": b"1"}


def test_after_a_flip_the_pointer_is_written_again(server: Instance, deployment: Deployment) -> None:
    """It may have gone with a node of a cluster; others would not know of the flip."""
    flip(server, state_of(deployment, PLAN))
    server.client.delete(CUTOVERS)
    with Following(server.url, cutover=CUTOVER) as following:
        following.wait_until_in_step()
        assert following.now.side is Side.TARGETS
        assert server.client.exists(CUTOVERS)
    assert following.error is None


def test_a_flag_that_another_plan_has_flipped_meanwhile_is_left(server: Instance, deployment: Deployment) -> None:
    """Neither plan could go back otherwise."""
    other = state_of(deployment, BESIDE, value=b"theirs")
    why = wished(deployment, Wish.CUTOVER, lambda: flip(server, other))
    assert "other names were cut over by the same flag" in why
    assert server.client.get(FLAG) == b"theirs"
    assert not server.client.exists(state_of(deployment, PLAN).record)


def test_a_flag_that_somebody_has_set_meanwhile_is_left(server: Instance, deployment: Deployment) -> None:
    """It is refused with what was found, and the follow goes on."""
    why = wished(deployment, Wish.CUTOVER, lambda: server.client.set(FLAG, VALUE))
    assert "the flag 'app:names' is 'step:' already, and no record says" in why
    assert not server.client.exists(CUTOVERS)
