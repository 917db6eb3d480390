"""A follow at the edges: two at one moment, what was never its own, and a server that is in trouble for a while."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import luamigrate
from luamigrate.migration import around, follow, follower, lease
from luamigrate.migration.survey import Survey
from luamigrate.model.following import LEASES, digest_of, lease_of, notes_of
from luamigrate.model.summary import Batch
from tests.clusters import wait_until
from tests.following import PLAN, Following, assert_in_step
from tests.instances import Instance

pytestmark = [
    pytest.mark.oldest_and_newest,
    pytest.mark.single_server("the same is decided for clusters, and two databases are refused there"),
]

LEASE = lease_of(digest_of(PLAN))
FILES = 1100
HASHES = luamigrate.plan([("job:*", "step:*", "hash")])
BACKWARDS = luamigrate.plan([("step:*", "job:*", "any")])
ELSEWHERE = luamigrate.plan([("job:*", "step:*", "any")], database=5)


@pytest.fixture
def client(server: Instance, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a client, beside fifty sources; leases expire soon."""
    monkeypatch.setattr(lease, "SECONDS", 1.5)
    monkeypatch.setattr(follower, "SECONDS_TO_TEND", 0.1)
    for number in range(50):
        server.client.hset(f"job:{number}", "a", number)
    return server.client


def before_the_survey(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Have something happen when a follow listens already and has not begun to compare."""
    batches = Survey.batches

    def late(survey: Survey) -> Iterator[Batch]:
        act()
        yield from batches(survey)

    monkeypatch.setattr(Survey, "batches", late)


def test_of_two_that_begin_at_one_moment_at_most_one_goes_on(
    server: Instance, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have passed the check when neither had a lease."""
    checks, check = threading.Barrier(2), around.check

    def together(*words: Any) -> Iterator[Batch]:
        yield from check(*words)
        checks.wait(10)

    monkeypatch.setattr(follow, "check", together)
    client.delete(*(f"job:{number}" for number in range(50)))
    with Following(server.url) as one, Following(server.url, BACKWARDS) as other:
        both = (one, other)
        for each in both:
            each.join(3)
        assert not all(each.is_alive() for each in both)
        assert any("is under way" in str(each.error) for each in both)


def test_the_same_plan_from_two_databases_into_one_is_refused(server: Instance, client: Any) -> None:
    """It is one plan by its rules, and two by what they write."""
    with server.another_client(db=5) as other, Following(server.url, ELSEWHERE) as one:
        other.flushdb()
        one.wait_until_in_step()
        second = Following(f"{server.url}?db=3", ELSEWHERE)
        second.start()
        second.join(20)
        assert "is under way" in str(second.error)
        other.flushdb()


def test_a_target_of_another_type_is_never_deleted(
    server: Instance, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is told of a name that is no source because of its type."""
    client.set("job:counter", 0)
    client.set("step:counter", "precious")
    with Following(server.url, HASHES) as refused:
        refused.join(20)
    assert "1 extra" in str(refused.error)
    before_the_survey(monkeypatch, lambda: client.incr("job:counter"))
    with Following(server.url, HASHES, ignored_checks=frozenset(("targets",))) as following:
        following.wait_until(lambda now: now.extra == 1 and not now.dirty and now.told >= 1)
    assert client.get("step:counter") == b"precious"


def test_another_database_that_was_emptied_is_forgotten_when_the_lease_expires(server: Instance, client: Any) -> None:
    """A lease that is lost much later has not gone with that database: the targets are still its own."""
    with Following(server.url) as following, server.another_client(db=3) as other:
        following.wait_until_in_step()
        other.flushdb()
        following.wait_until(lambda now: bool(now.rescans))
        following.wait_until_in_step()
        pipeline = client.pipeline(transaction=True)
        pipeline.delete(LEASE)
        for number in range(20):
            pipeline.hset(f"job:{number}", "a", "changed")
        pipeline.delete("job:40").execute()
        following.wait_until(lambda now: now.removed == 1)
        following.wait_until_in_step()
        assert_in_step(server)
    assert following.keys == []


def test_targets_go_with_all_sources_that_were_in_another_database(server: Instance, client: Any) -> None:
    """Only that of the sources, and of the lease, was emptied."""
    with server.another_client(db=5) as other, Following(server.url, ELSEWHERE) as following:
        following.wait_until_in_step()
        client.flushdb()
        following.wait_until(lambda now: now.removed == 50)
        following.wait_until_in_step()
        assert not other.keys("step:*")
    assert following.keys == []


def test_started_again_it_knows_a_target_whose_source_goes_while_it_looks(
    server: Instance, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was told of the source: that is enough."""
    with Following(server.url) as following:
        following.wait_until_in_step()
    before_the_survey(monkeypatch, lambda: client.delete("job:7"))
    with Following(server.url) as following:
        following.wait_until_in_step()
        assert_in_step(server)
    assert not client.exists("step:7")
    assert following.now.extra == 0


def test_a_listening_connection_that_is_lost_while_it_looks_is_made_again(
    server: Instance, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is written then is in the targets."""
    before_the_survey(monkeypatch, lambda: client.client_kill_filter(_type="pubsub"))
    with Following(server.url) as following:
        following.wait_until_in_step()
        client.hset("job:1", "a", "changed")
        following.wait_until_in_step()
        assert_in_step(server)


def test_a_server_out_of_memory_lets_the_lease_be_renewed(server: Instance, client: Any) -> None:
    """And the targets are in step again once there is some."""
    with Following(server.url) as following:
        following.wait_until_in_step()
        client.config_set("maxmemory", "100000")
        try:
            client.pexpire(LEASE, 700)
            wait_until(lambda: client.pttl(LEASE) > 1000)
            client.delete("job:3")
        finally:
            client.config_set("maxmemory", "0")
        client.hset("job:1", "a", "changed")
        wait_until(lambda: client.hget("step:1", "a") == b"changed")
        following.wait_until_in_step()
        assert_in_step(server)
    assert following.summary.exit_code == 0


def test_a_server_that_takes_no_writes_for_a_while_is_waited_for(server: Instance, client: Any) -> None:
    """Also for longer than the lease lives, which cannot be renewed meanwhile."""
    with Following(server.url) as following:
        following.wait_until_in_step()
        client.config_set("min-replicas-to-write", "1")
        try:
            following.wait_until(lambda _: "the server takes none" in " ".join(following.waited_for))
            wait_until(lambda: not client.exists(LEASE))
        finally:
            client.config_set("min-replicas-to-write", "0")
        client.hset("job:1", "a", "changed")
        wait_until(lambda: client.hget("step:1", "a") == b"changed")
        following.wait_until_in_step()
        assert_in_step(server)
    assert following.summary.exit_code == 0


def test_a_lease_that_never_expires_is_not_waited_for(server: Instance, client: Any) -> None:
    """No follow has written it so."""
    client.set(LEASE, "somebody's")
    with Following(server.url) as following:
        following.join(20)
    assert "never expires" in str(following.error)


def test_a_process_may_have_more_than_a_thousand_files_open(server: Instance, client: Any) -> None:
    """The numbers of its connections are higher than select() knows."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most[1] != resource.RLIM_INFINITY and most[1] < FILES + 500:
        pytest.skip("so many files may not be opened here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most[0], FILES + 500), most[1]))
    with ExitStack() as stack:
        for _ in range(FILES):
            stack.enter_context(Path(os.devnull).open())
        with Following(server.url) as following:
            following.wait_until_in_step()
    resource.setrlimit(resource.RLIMIT_NOFILE, most)


def test_a_lease_is_not_taken_again_once_another_plan_has_its_names(server: Instance, client: Any) -> None:
    """One that hung for longer than its lease lived has not kept that one away."""
    other = notes_of(BACKWARDS, 0, "the other one")[0].written()
    with Following(server.url) as following:
        following.wait_until_in_step()
        pipeline = client.pipeline(transaction=True)
        pipeline.hset(LEASES, "other@0", b"%d %b" % (time.time() * 1000 + 60_000, other))
        pipeline.delete(LEASE).execute()
        following.join(20)
    assert "a follow of such names is under way (the other one)" in str(following.error)


def test_a_look_at_a_source_is_not_taken_for_its_use(
    server: Instance, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started again, it sees each pair from both sides; what somebody else has written is left by both looks."""
    monkeypatch.setattr(lease, "SLACK_SECONDS", 1)
    for number in range(300):
        client.hset(f"job:{number}", "a", number)
    with Following(server.url) as following:
        time.sleep(4.1)  # idle times are told in seconds
        following.wait_until_in_step()
    for number in range(300):
        client.hset(f"step:{number}", "mine", "1")
    with Following(server.url) as following:
        following.wait_until(lambda now: now.foreign == 300)
    assert all(client.hexists(f"step:{number}", "mine") for number in range(300))
