"""Following: what is copied at the start, how changes come through, and what is refused before anything is written."""

from __future__ import annotations

from typing import Any

import pytest

from luamigrate import Command, Limits, Refused, Summary, UsageError, Word, connect, follow, plan
from luamigrate.migration import throttle
from luamigrate.model.following import Phase, digest_of, lease_of
from tests.clusters import wait_until
from tests.conftest import luamigrate as command_line
from tests.following import PLAN, Following, assert_in_step
from tests.instances import Instance, expires_at, snapshot
from tests.judge import assert_alike
from tests.preflight.test_preflight import busy_client, limited, need

RULE = ("--map", "job:*=step:*")


def fill(server: Instance, count: int = 20) -> Any:
    """Write sources of all types; return a client."""
    client: Any = server.client
    for number in range(count):
        client.hset(f"job:{number}", mapping={"a": number, "b": "x"})
    client.set("job:string", "text", px=10**8)
    client.rpush("job:list", 1, 2, 3)
    client.sadd("job:set", "a", "b")
    client.zadd("job:zset", {"a": 1, "b": 2})
    client.xadd("job:stream", {"a": 1})
    return client


@pytest.mark.single_server("renames do not reach across slots")
def test_it_copies_what_is_there_and_then_every_change(server: Instance) -> None:
    """Values, expiries to the millisecond, deletions, renames; and sources stay as they are."""
    client = fill(server)
    with Following(server.url) as following:
        following.wait_until_in_step()
        assert_in_step(server)
        assert following.now.copies == 25
        client.hset("job:1", "a", "other")
        client.pexpire("job:2", 12_345_678)
        client.delete("job:3")
        client.rename("job:4", "job:new")
        client.eval("redis.call('SET', 'job:' .. ARGV[1], 1)", 0, "undeclared")
        client.lpop("job:list", 3)
        client.persist("job:string")
        client.hset("job:long", "a", "x" * 1000)
        following.wait_until_in_step()
        assert expires_at(client, "step:2") == expires_at(client, "job:2") > 0
        assert not client.exists("step:3", "step:4", "step:list")
        assert_in_step(server)
        client.hdel("job:long", "a")
        following.wait_until_in_step()
        assert_in_step(server)
    assert following.error is None
    assert following.summary.exit_code == 0
    assert following.summary.totals.counts[Word.COPIED] == 25
    assert following.keys == []
    assert following.now.phase is Phase.FOLLOWING
    assert not client.exists("luamigrate:follow", lease_of(digest_of(PLAN)))


def test_a_source_of_another_type_counts_as_none(server: Instance) -> None:
    """Its target is deleted when the type changes, and made when it changes back."""
    client = fill(server, 3)
    hashes = plan([("job:*", "step:*", "hash")])
    with Following(server.url, hashes) as following:
        following.wait_until_in_step()
        assert sorted(client.keys("step:*")) == [b"step:0", b"step:1", b"step:2"]
        client.set("job:1", "text")
        following.wait_until_in_step()
        assert not client.exists("step:1")
        client.delete("job:1")
        client.hset("job:1", "b", "2")
        following.wait_until_in_step()
        assert client.hgetall("step:1") == {b"b": b"2"}
    assert following.summary.exit_code == 0


@pytest.mark.single_server("a cluster has one database")
def test_names_outside_the_plan_are_left_alone(server: Instance) -> None:
    """Excepts, other prefixes, and the same names in another database."""
    client: Any = server.client
    chosen = plan([("job:<id>:x", "step:<id>:x", "any")], excepts=["job:no:x"])
    for name in ("job:1:x", "job:no:x", "job:1:y", "jobs:1:x"):
        client.set(name, "1")
    with Following(server.url, chosen) as following:
        following.wait_until_in_step()
        with server.another_client(db=2) as other:
            other.set("job:2:x", "1")
        for name in ("job:1:x", "job:no:x", "job:1:y", "jobs:1:x"):
            client.set(name, "2")
        following.wait_until_in_step()
        assert client.keys("step*") == [b"step:1:x"]
        assert client.get("step:1:x") == b"2"
    assert following.summary.exit_code == 0


def test_a_dry_run_says_how_it_would_begin(any_server: Instance) -> None:
    """It writes nothing, not even a lease; and refuses what the follow would refuse."""
    client = fill(any_server, 10)
    before = snapshot(client)
    result = command_line("follow", *RULE, "--dry-run", "--json", url=any_server.url)
    assert (result.code, result.totals) == (0, {"found": 15, "missing": 15, "ignored": 0})
    assert "would copy 15 keys, and follow every change" in result.err
    assert_alike(snapshot(client), before)
    client.hset("step:1", "a", "other")
    refused = command_line("follow", *RULE, "--dry-run", "--json", "--settle", "0", url=any_server.url)
    assert (refused.code, refused.totals["differs"]) == (4, 1)
    replacing = command_line("follow", *RULE, "--dry-run", "--replace", "--settle", "0", url=any_server.url)
    assert replacing.code == 0
    assert "would copy 14 keys, make 1 target equal to its source, and follow every change" in replacing.out


def refusal(server: Instance, **options: Any) -> str:
    """Return why a follow does not begin; assert that nothing is written."""
    before = snapshot(server.client)
    with connect(server.url) as deployment, pytest.raises(Refused) as refused:
        list(follow(deployment, PLAN, settle=0, **options))
    assert_alike(snapshot(server.client), before)
    return str(refused.value)


def test_targets_that_differ_are_refused_unless_they_may_be_replaced(server: Instance) -> None:
    """With the counts; equal ones are fine."""
    client = fill(server, 4)
    client.copy("job:0", "step:0")
    client.hset("step:1", "a", "other")
    client.hset("step:2", "a", 2)
    said = refusal(server)
    assert said.startswith("targets: targets that are not what their sources are: 1 differs, 1 partial (--replace")
    with Following(server.url, replace=True) as following:
        following.wait_until_in_step()
        assert_in_step(server)
    assert following.summary.exit_code == 0


def test_targets_without_a_source_are_refused_in_any_case(server: Instance) -> None:
    """They are not its own; whoever wants it all the same is out of step, and none is lost."""
    client = fill(server, 4)
    client.set("step:nobody", "1")
    for replace in (False, True):
        assert "targets that have no source: 1 extra" in refusal(server, replace=replace)
    with Following(server.url, ignored_checks=frozenset(("targets",))) as following:
        following.wait_until(lambda now: now.phase is Phase.FOLLOWING and now.extra == 1 and not now.dirty)
        client.set("job:4", "new")
        following.wait_until(lambda now: now.told > 0 and not now.dirty and not now.in_flight)
        assert (client.get("step:4"), client.get("step:nobody")) == (b"new", b"1")
        client.delete("step:nobody")
        following.wait_until_in_step()
    assert following.summary.exit_code == 0


def test_streams_with_groups_are_refused_unless_their_entries_are_enough(server: Instance) -> None:
    """Of changes to groups nobody is told."""
    client = fill(server, 2)
    client.xgroup_create("job:stream", "workers")
    assert "the stream job:stream has groups" in refusal(server)
    assert refusal(server, replace=True) == refusal(server)
    with Following(server.url, allow_groups=True) as following:
        following.wait_until_in_step()
        client.xreadgroup("workers", "one", {"job:stream": ">"})
        client.xadd("job:stream", {"b": 2})
        following.wait_until_in_step()
        assert client.xrange("step:stream") == client.xrange("job:stream")
    assert following.summary.exit_code == 0
    assert following.keys == []


def test_an_evicting_policy_without_room_is_refused(server: Instance) -> None:
    """By the check of a run: copies could push out their own sources."""
    fill(server, 2000)
    # What the checks take when they are made for the first time would push out keys as well.
    assert command_line("check", *RULE, url=server.url).code == 0
    with (
        limited(server, need(server) / 2, "allkeys-lru"),
        connect(server.url) as deployment,
        pytest.raises(Refused, match=r"^eviction: "),
    ):
        list(follow(deployment, PLAN, settle=0))
    assert not server.client.keys("step:*")


@pytest.mark.single_server("the node is named too")
def test_clients_that_wait_are_refused(server: Instance) -> None:
    """A worker that waits on a target would be handed a job that is still in its source."""
    fill(server, 2)
    with busy_client(server, "BLPOP", "step:waits", 0):
        assert refusal(server).startswith("blocked: clients wait in this database: worker-7")


def test_names_that_have_no_beginning_in_common_are_followed_at_a_price(server: Instance) -> None:
    """Which is said: the server tells of everything then."""
    server.client.set("a:jobs", 1)
    with Following(server.url, plan([("<x>:jobs", "<x>:steps", "any")])) as following:
        following.wait_until_in_step()
        server.client.set("b:jobs", 2)
        server.client.set("elsewhere", 3)
        wait_until(lambda: server.client.get("b:steps") == b"2")
        following.wait_until_in_step()
    assert [text for text in following.summary.warnings if "every write of every key" in text]


def test_limits_that_make_no_sense_are_refused(any_server: Instance) -> None:
    """Before anything is asked."""
    with connect(any_server.url) as deployment, pytest.raises(UsageError, match="the lag in milliseconds"):
        follow(deployment, limits=Limits(max_lag_ms=-1))


@pytest.mark.single_server("the configuration is of one server")
def test_a_key_that_the_server_refuses_is_copied_once_it_can_be(server: Instance, watchful: None) -> None:
    """Out of memory: it waits, the others too, and goes on when there is room."""
    client = fill(server, 2)
    ignored = frozenset(("memory", "eviction"))
    with Following(server.url, ignored_checks=ignored) as following:
        following.wait_until_in_step()
        pipeline = client.pipeline()
        pipeline.hset("job:1", "a", "y")
        pipeline.config_set("maxmemory", 1)
        pipeline.execute()
        following.wait_until(lambda now: now.failed == 1)
        client.config_set("maxmemory", 0)
        following.wait_until_in_step()
        assert_in_step(server)
    assert following.keys[0].reason == "oom"
    assert following.summary.exit_code == 0


def test_a_pause_stops_the_copying_and_no_listening(any_server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was told meanwhile is copied afterwards; each key once."""
    client = fill(any_server, 3)
    paused: list[bool] = []
    reason = throttle.Throttle.reason_to_wait
    monkeypatch.setattr(throttle.Throttle, "reason_to_wait", lambda self: "paused" if paused else reason(self))
    with Following(any_server.url) as following:
        following.wait_until_in_step()
        paused.append(True)
        following.wait_until(lambda now: now.waiting_for == "paused")
        copies = following.now.copies
        for number in range(50):
            client.hset("job:1", "a", number)
        following.wait_until(lambda now: now.told >= 50 and now.dirty == 1)
        assert following.now.copies == copies
        paused.clear()
        following.wait_until_in_step()
        assert following.now.copies == copies + 1


def test_the_iterator_ends_in_good_order_when_it_is_closed(any_server: Instance) -> None:
    """From Python: the loop is left, and the lease is given up."""
    fill(any_server, 3)
    summary = Summary(PLAN, Command.FOLLOW)
    with connect(any_server.url) as deployment:
        batches = follow(deployment, PLAN, settle=0)
        for batch in batches:
            summary.add(batch)
            if batch.followed and batch.followed.in_step:
                break
        batches.close()  # type: ignore[attr-defined]
    assert summary.exit_code == 0
    assert_in_step(any_server)
    assert not any_server.client.exists("luamigrate:follow")
