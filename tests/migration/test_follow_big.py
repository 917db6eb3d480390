"""Big keys in a follow: they go in chunks beside all others, and are as exact and as guarded as small ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from luamigrate import Limits, Word, plan
from luamigrate.migration import follower, lease, standing
from luamigrate.migration.large_key_verbs import LIFETIME_MS
from luamigrate.migration.large_mirror import BUSY, LargeMirror
from luamigrate.model.following import digest_of, lease_of
from tests.clusters import wait_until
from tests.following import PLAN, Following, assert_in_step
from tests.instances import Instance, expires_at, read_value
from tests.migration.test_big import (
    COMPARING,
    FAR,
    NAMES,
    STAGING,
    VALUES,
    calls_of,
    expire_fields,
    field_expiries,
    logged,
    write,
    write_all,
    write_stream,
)
from tests.migration.test_big_live import CHANGES
from tests.migration.test_big_trouble import LARGE, staging_key
from tests.migration.test_follow_owner import kill, start
from tests.migration.test_run import assert_equal

pytestmark = pytest.mark.oldest_and_newest

GENTLE = Limits(max_pause=0.1)
LEASE = lease_of(digest_of(PLAN))
Step = Callable[[bytes, float], object]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what failed be tried again soon, and leases expire soon."""
    monkeypatch.setattr(lease, "SECONDS", 1.5)
    monkeypatch.setattr(lease, "SECONDS_TO_LOOK", 0.05)
    monkeypatch.setattr(standing, "FIRST_RETRY", 0.1)
    monkeypatch.setattr(follower, "SECONDS_TO_TEND", 0.05)


class Steps:
    """Has somebody step in after each chunk, given the source and the share that is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step: Step | None = None
        self.taken: list[tuple[bytes, float]] = []
        advance = LargeMirror.advance

        def advance_and_step(large: LargeMirror) -> object:
            arrived = advance(large)
            if large.progress:
                self.taken.append(large.progress)
                if self.step:
                    self.step(*large.progress)
            return arrived

        monkeypatch.setattr(LargeMirror, "advance", advance_and_step)

    def once(self, share: float, act: Callable[[], object]) -> None:
        """Act once, when this share of a big key is done."""

        def step(_: bytes, done: float) -> None:
            if done >= share:
                self.step = None
                act()

        self.step = step


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Return what steps in after each chunk."""
    return Steps(monkeypatch)


def follow(server: Instance, **limits: Any) -> Following:
    """Return a follow for which keys of some hundred parts are big."""
    return Following(server.url, limits=replace(GENTLE, **limits))


def staging_keys(server: Instance) -> list[bytes]:
    """Return the names of all staging keys."""
    return list(server.client.scan_iter("luamigrate:staging:*"))


def test_every_type_is_copied_in_chunks_and_then_every_change(server: Instance) -> None:
    """Values and expiries; nothing of it is taken for somebody else's, and no staging key is left."""
    write_all(server)
    server.client.pexpire("job:set", 10**8 + 123)
    with logged(server), follow(server) as following:
        following.wait_until_in_step()
        assert len(calls_of(server, STAGING)) > 2 * len(VALUES)
        assert_in_step(server)
        assert following.now.copies == len(VALUES)
        for kind in VALUES:
            CHANGES[kind](server.client, b"changed")
        following.wait_until_in_step()
        assert_in_step(server)
        assert following.now.copies == 2 * len(VALUES)
    assert (following.error, following.keys, following.summary.exit_code) == (None, [], 0)
    assert following.summary.totals.counts[Word.COPIED] == len(VALUES)
    assert not staging_keys(server)


def test_what_is_equal_to_the_millisecond_is_not_copied_again(server: Instance) -> None:
    """A millisecond in the expiry of the key or of one field is a difference."""
    client: Any = server.client
    write(server, "job:hash", VALUES["hash"])
    client.pexpireat("job:hash", FAR)
    if server.has_field_expiries:
        expire_fields(server, "job:hash", *NAMES[::2])
    with follow(server) as following:
        following.wait_until_in_step()
        client.hset("job:hash", NAMES[1], VALUES["hash"][NAMES[1]])
        following.wait_until_in_step()
        assert following.now.copies == 1
        client.pexpireat("job:hash", FAR + 1)
        following.wait_until_in_step()
        assert following.now.copies == 2
        assert expires_at(client, "step:hash") == FAR + 1
        if server.has_field_expiries:
            expire_fields(server, "job:hash", NAMES[4], at=FAR - 1)
            following.wait_until_in_step()
            assert following.now.copies == 3
            assert field_expiries(server, "step:hash") == field_expiries(server, "job:hash")
    assert following.keys == []


def test_no_chunk_is_more_than_a_small_part(server: Instance) -> None:
    """Of 5,000 fields a script takes up a few dozen, whether it compares or copies; the clock is asked beside that."""
    names = [b"field-%d" % number for number in range(5000)]
    write(server, "job:hash", dict.fromkeys(names, b"value"))
    least = 5000 // 100
    with logged(server), follow(server) as following:
        following.wait_until_in_step()
        assert len(calls_of(server, STAGING)) >= least
        assert len(calls_of(server, COMPARING)) >= least
        server.client.slowlog_reset()
        server.client.hset("job:hash", names[0], "value")
        following.wait_until_in_step()
        assert not calls_of(server, STAGING)
        assert len(calls_of(server, COMPARING)) >= least


def test_small_keys_are_mirrored_between_the_chunks_of_a_hot_one(
    server: Instance, steps: Steps, impatient: None
) -> None:
    """It is named, comes behind a big one that is quiet, and keeps the follow out of step until it is quiet too."""
    client: Any = server.client
    behind: list[int] = []
    with follow(server, max_lag_ms=0) as following:
        following.wait_until_in_step()

        def write_both(source: bytes, _: float) -> None:
            if source == b"job:hash":
                client.hset("job:hash", NAMES[0], len(steps.taken))
            client.set(f"job:{len(steps.taken)}", "small")
            behind.append(len(steps.taken) - sum(1 for _ in client.scan_iter("step:[0-9]*", count=10_000)))

        steps.step = write_both
        write(server, "job:hash", VALUES["hash"])
        write(server, "job:set", VALUES["set"])
        following.wait_until(lambda now: now.failed == 1)
        wait_until(lambda: bool(client.exists("step:set")))
        following.wait_until(lambda now: now.told > 100)
        assert not client.exists("step:hash")
        assert not following.now.in_step
        assert max(behind) <= 5
        steps.step = None
        following.wait_until_in_step()
        assert_in_step(server)
    assert [(key.source, key.text) for key in following.keys] == [(b"job:hash", BUSY)]
    assert following.summary.exit_code == 0


def test_a_source_that_is_replaced_in_mid_copy_changes_its_way(server: Instance, steps: Steps) -> None:
    """Deleted, small or of another type, and big again: the copy that was under way ends with its source."""
    client: Any = server.client

    def make_small() -> None:
        client.delete("job:hash")
        client.hset("job:hash", "a", "1")

    def become_another() -> None:
        client.delete("job:hash")
        write(server, "job:hash", VALUES["set"], "set")

    with follow(server) as following:
        for was_there in (False, True):
            for act in (lambda: client.delete("job:hash"), make_small, become_another):
                client.delete("job:hash")
                following.wait_until_in_step()
                if was_there:
                    write(server, "job:hash", VALUES["hash"])
                    following.wait_until_in_step()
                steps.once(0.3, act)
                steps.taken.clear()
                write(server, "job:hash", {**VALUES["hash"], b"more": b"1"})
                wait_until(lambda: steps.step is None)
                chunks = len(steps.taken)
                following.wait_until_in_step()
                assert_in_step(server)
                assert not staging_keys(server)
                assert act is become_another or len(steps.taken) <= chunks + 5
    assert following.keys == []
    assert following.summary.exit_code == 0


def test_a_target_that_is_somebody_elses_is_foreign_unless_it_is_equal(server: Instance, steps: Steps) -> None:
    """Written before its source is there, in mid-copy or in step: it is left, until somebody deletes it."""
    client: Any = server.client
    with follow(server) as following:
        following.wait_until_in_step()
        client.hset("step:hash", "theirs", "1")
        write(server, "step:set", VALUES["set"])
        following.wait_until(lambda now: now.extra == 2)
        write(server, "job:hash", VALUES["hash"])
        write(server, "job:set", VALUES["set"])
        following.wait_until(lambda now: (now.foreign, now.extra, now.dirty, now.in_flight) == (1, 0, 0, 0))
        client.hset("job:hash", "a", "changed")
        following.wait_until(lambda now: not now.dirty and not now.in_flight)
        assert client.hgetall("step:hash") == {b"theirs": b"1"}
        client.delete("step:hash")
        following.wait_until_in_step()
        steps.once(0.5, lambda: client.hset("step:hash", "theirs", "2"))
        client.hset("job:hash", "a", "changed again")
        following.wait_until(lambda now: now.foreign == 1)
        assert client.hget("step:hash", "theirs") == b"2"
        client.delete("step:hash")
        following.wait_until_in_step()
        assert_in_step(server)
        client.srem("step:set", NAMES[0])
        following.wait_until(lambda now: now.foreign == 1)
        assert not client.sismember("step:set", NAMES[0])
    assert {key.word for key in following.keys} == {Word.EXTRA, Word.FOREIGN}


@pytest.mark.single_server("the lease has another name in a cluster")
def test_nothing_is_published_without_the_lease(server: Instance, steps: Steps) -> None:
    """Somebody else has taken it when the copy is finished: the target stays as it is, and the follow ends."""
    client: Any = server.client
    write(server, "job:hash", VALUES["hash"])
    with follow(server) as following:
        following.wait_until_in_step()
        steps.once(0.7, lambda: client.set(LEASE, "somebody else's"))
        client.hset("job:hash", "a", "changed")
        wait_until(lambda: not following.is_alive())
    assert "meanwhile another follow has begun" in str(following.error)
    assert not client.hexists("step:hash", "a")
    assert not staging_keys(server)
    assert client.get(LEASE) == b"somebody else's"


def test_it_ends_at_once_in_mid_copy(any_server: Instance, steps: Steps) -> None:
    """And leaves no staging key; the next one copies what is left."""
    write(any_server, "job:hash", VALUES["hash"])
    with follow(any_server) as following:
        steps.once(0.3, following.ask_to_stop)
        wait_until(lambda: not following.is_alive())
    assert following.error is None
    assert not any_server.client.exists("step:hash")
    assert not staging_keys(any_server)
    with follow(any_server) as again:
        again.wait_until_in_step()
        assert_in_step(any_server)


def test_killed_in_mid_copy_it_goes_on_where_it_was(server: Instance, impatient: None) -> None:
    """The target is what it was until then, and the staging key that is left lives for a minute at most."""
    client: Any = server.client
    write(server, "job:hash", LARGE)
    for has_target in (False, True):
        process = start(server, "--max-pause", "0.1")
        wait_until(lambda: bool(staging_keys(server)))
        kill(process)
        assert 0 < client.pttl(staging_key(server)) <= LIFETIME_MS
        assert client.hlen("step:hash") == (len(LARGE) if has_target else 0)
        with follow(server) as following:
            following.wait_until_in_step()
            assert_equal(server, "job:hash", "step:hash")
            assert following.now.copies == 1
        client.delete(staging_key(server))
        client.hset("job:hash", "more", "1")
    assert following.keys == []


def test_lost_connections_and_an_emptied_database_in_mid_copy(server: Instance, steps: Steps) -> None:
    """The copy begins anew; what is gone is gone on both sides."""
    client: Any = server.client
    write(server, "job:hash", VALUES["hash"])

    def write_anew() -> None:
        client.flushall()
        write(server, "job:set", VALUES["set"])

    with follow(server) as following:
        for act in (lambda: client.client_kill_filter(_type="normal", skipme=True), write_anew):
            following.wait_until_in_step()
            steps.once(0.3, act)
            client.hset("job:hash", "a", len(steps.taken))
            wait_until(lambda: steps.step is None)
            following.wait_until_in_step()
            assert_in_step(server)
        assert client.keys("step:*") == [b"step:set"]
    assert (following.error, following.keys) == (None, [])


@pytest.mark.single_server("a cluster has one database")
@pytest.mark.parametrize("prefix", ["job:", "step:"])
def test_big_targets_in_another_database(server: Instance, prefix: str) -> None:
    """Also where they have the names of their sources: made, made again, and deleted."""
    rules = plan([("job:*", f"{prefix}*", "any")], database=5)
    client: Any = server.client
    with server.another_client(db=5) as other:
        other.flushdb()
        write_all(server)
        with Following(server.url, rules, limits=GENTLE) as following:
            following.wait_until_in_step()
            for kind in VALUES:
                CHANGES[kind](client, b"changed")
            following.wait_until_in_step()
            for kind in VALUES:
                theirs = read_value(other, f"{prefix}{kind}".encode())
                assert theirs == read_value(client, f"job:{kind}".encode())
                client.pexpire(f"job:{kind}", 10**8)
            following.wait_until_in_step()
            assert [expires_at(other, f"{prefix}{kind}") for kind in VALUES] == [
                expires_at(client, f"job:{kind}") for kind in VALUES
            ]
            assert not client.keys("step:*")
        assert following.keys == []
        other.flushdb()


def test_a_stale_target_of_yesterday_is_made_anew_late_too(server: Instance, steps: Steps) -> None:
    """The claim on a target outlives the scan, until its big source has been answered for."""
    client: Any = server.client
    write(server, "job:hash", VALUES["hash"])
    with follow(server) as following:
        following.wait_until_in_step()
    client.hset("job:hash", "a", "changed")
    steps.once(0.7, lambda: client.hset("job:hash", "a", "changed when the scan was over"))
    with follow(server) as again:
        again.wait_until_in_step()
        assert steps.step is None
        assert_in_step(server)
    assert again.keys == []


def test_a_stream_too_big_for_one_script_fails(server: Instance, impatient: None) -> None:
    """It cannot go in chunks; it is named once, tried again, and keeps the follow out of step."""
    client: Any = server.client
    with follow(server) as following:
        following.wait_until_in_step()
        # All of it at once, or its beginning would be copied.
        write_stream(server, "{job:stream}", 1000)
        client.rename("{job:stream}", "job:stream")
        following.wait_until(lambda now: now.failed == 1 and not now.in_step)
        client.xadd("job:stream", {"a": "1"})
        following.wait_until(lambda now: not now.dirty and not now.in_flight)
        assert not client.exists("step:stream")
        client.xtrim("job:stream", maxlen=3, approximate=False)
        following.wait_until_in_step()
        assert_equal(server, "job:stream", "step:stream")
    assert [(key.source, key.reason) for key in following.keys] == [(b"job:stream", "too-big")]
