"""Whose targets they are: leases, records, and writes of targets by others."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from luamigrate import Word, plan
from luamigrate.cli.options import environment
from luamigrate.migration import follower, lease, standing
from luamigrate.model.following import Phase, digest_of, lease_of, record_of
from tests.clusters import wait_until
from tests.conftest import luamigrate
from tests.following import PLAN, Following, Writer, assert_in_step
from tests.instances import Instance
from tests.processes import of_this_test

RULE = ("--map", "job:*=step:*")
LEASE, RECORD = lease_of(digest_of(PLAN)), record_of(digest_of(PLAN))
QUICK = """
import sys
from luamigrate.migration import follower, lease
lease.SECONDS, lease.SECONDS_TO_LOOK, follower.SECONDS_TO_TEND = 1.5, 0.05, 0.1
sys.argv = ['luamigrate', *sys.argv[1:]]
from luamigrate.cli.commands import main
main()
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have leases of this process expire soon."""
    monkeypatch.setattr(lease, "SECONDS", 1.5)
    monkeypatch.setattr(lease, "SECONDS_TO_LOOK", 0.05)
    monkeypatch.setattr(follower, "SECONDS_TO_TEND", 0.1)


def fill(server: Instance, count: int = 10) -> Any:
    """Write sources; return a client."""
    client: Any = server.client
    for number in range(count):
        client.hset(f"job:{number}", "a", number)
    return client


def test_a_target_that_somebody_writes_is_named_and_left(server: Instance, quick: None) -> None:
    """Out of step until it is deleted, and then made anew; and the next follow asks again."""
    client = fill(server)
    with Following(server.url) as following:
        following.wait_until_in_step()
        client.hset("step:1", "mine", "1")
        following.wait_until(lambda now: now.foreign == 1 and not now.in_step)
        client.hset("job:1", "a", "changed")
        client.hset("job:2", "a", "changed")
        following.wait_until(lambda now: now.told >= 2 and not now.dirty and not now.in_flight)
        assert client.hget("step:1", "mine") == b"1"
        assert client.hget("step:2", "a") == b"changed"
        wait_until(lambda: not client.exists(RECORD))
        client.delete("step:1")
        following.wait_until_in_step()
        assert_in_step(server)
    assert [(key.source, key.word, key.text) for key in following.keys] == [(b"job:1", "foreign", standing.WRITTEN)]
    assert following.summary.exit_code == 3


def test_a_target_that_somebody_deletes_is_copied_again_and_named(server: Instance) -> None:
    """So is one that the server has evicted."""
    client = fill(server)
    with Following(server.url) as following:
        following.wait_until_in_step()
        client.delete("step:1")
        following.wait_until(lambda now: now.foreign_seen == 1)
        following.wait_until_in_step()
        assert_in_step(server)
    assert [(key.source, key.text) for key in following.keys] == [(b"job:1", standing.DELETED)]
    assert following.summary.exit_code == 3


@pytest.mark.single_server("COPY does not reach across slots")
def test_a_target_that_is_written_as_its_source_is_nobodys_business(server: Instance) -> None:
    """What equals its source is in step, whoever wrote it."""
    client = fill(server)
    with Following(server.url) as following:
        following.wait_until_in_step()
        client.copy("job:1", "step:1", replace=True)
        client.expire("step:2", 100)
        client.persist("step:2")
        following.wait_until_in_step()
    assert following.keys == []
    assert following.summary.exit_code == 0


def test_a_new_source_does_not_overwrite_what_somebody_else_has_at_its_target(server: Instance) -> None:
    """Nor is that deleted when the source goes again."""
    client: Any = server.client
    client.set("app:1", "1")
    stripped = plan([("app:*", "*", "any")], excepts=["app:app:*"])
    with Following(server.url, stripped) as following:
        following.wait_until_in_step()
        client.set("other", "precious")
        following.wait_until(lambda now: now.extra == 1)
        client.set("app:other", "new")
        following.wait_until(lambda now: now.foreign == 1)
        client.delete("app:other")
        following.wait_until(lambda now: now.extra == 1 and not now.foreign)
        assert client.get("other") == b"precious"
        client.delete("other")
        following.wait_until_in_step()
    assert [key.word for key in following.keys] == [Word.EXTRA, Word.FOREIGN, Word.EXTRA]


@pytest.mark.single_server("what is written together is of many slots")
def test_no_unrelated_key_is_lost(server: Instance) -> None:
    """Beside ten thousand of them, through scans, databases that are emptied, and lost connections."""
    client: Any = server.client
    others = {f"other:{number}": str(number) for number in range(10_000)}
    stripped = plan([("app:*", "*", "any")], excepts=["app:app:*"])

    def write_again() -> None:
        pipeline = client.pipeline(transaction=False)
        pipeline.flushall()
        for number in range(300):
            pipeline.set(f"app:{number}", number)
        pipeline.mset(others)
        pipeline.execute()

    write_again()
    with Following(server.url, stripped, ignored_checks=frozenset(("targets",))) as following:
        following.wait_until(lambda now: now.extra == 10_000)
        for _ in range(3):
            client.delete(*(f"app:{number}" for number in range(100)))
            write_again()
            client.client_kill_filter(_type="pubsub")
            with server.another_client(db=3) as other:
                other.flushdb()
            wait_until(lambda: client.mget(*range(300)) == [str(number).encode() for number in range(300)])
            following.wait_until(lambda now: now.extra == 10_000 and not now.dirty)
            assert client.mget(list(others)) == [value.encode() for value in others.values()]


def test_while_it_lives_nobody_else_may_work_on_its_names(any_server: Instance, quick: None) -> None:
    """A run, a fill, a rollback, a check, and a follow: exit code 4, and nothing is written."""
    fill(any_server)
    with Following(any_server.url) as following:
        following.wait_until_in_step()
        for words in (
            ("run", *RULE),
            ("run", *RULE, "--on-existing", "fill"),
            ("run", "--map", "a:*=job:*"),
            ("rollback", "--yes", *RULE),
            ("rollback", "--yes", "--map", "step:*=job:*"),
            ("check", *RULE),
            ("follow", *RULE),
            ("follow", "--map", "step:*=x:*"),
        ):
            result = luamigrate(*words, url=any_server.url)
            assert result.code == 4, words
            assert "is under way" in result.err + result.out
        assert luamigrate("verify", *RULE, url=any_server.url).code == 0
        assert luamigrate("run", "--map", "job:*=copy:*", url=any_server.url).code == 0
    assert following.error is None
    assert luamigrate("run", *RULE, url=any_server.url).code == 0


def start(server: Instance, *options: str) -> subprocess.Popen[str]:
    """Start a follow in a process of its own, and wait until it has copied what is there."""
    process = subprocess.Popen(
        (sys.executable, "-c", QUICK, "follow", *RULE, "--settle", "0", *options),
        env=environment(REDIS_URL=server.url, PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return of_this_test(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill it with -9."""
    process.kill()
    process.communicate()


def told(process: subprocess.Popen[str], words: str) -> str:
    """Read what it prints until some words come; return that line."""
    assert process.stdout
    for line in process.stdout:
        if words in line and f"not {words}" not in line:
            return line
    raise AssertionError(process.communicate())


def test_killed_at_any_moment_it_goes_on_without_being_asked(server: Instance, quick: None) -> None:
    """Its targets are known again, also where their sources have changed meanwhile; it waits for the old lease."""
    client = fill(server, 2000)
    for delay in (0.4, 0.5, 0.6, 0.9):
        process = start(server)
        time.sleep(delay)
        kill(process)
        for number in range(0, 2000, 7):
            client.hset(f"job:{number}", "a", f"{delay} {number}")
    with Following(server.url) as following:
        following.wait_until_in_step()
        assert_in_step(server)
    assert following.summary.exit_code == 0


def test_after_a_crash_targets_whose_sources_are_gone_are_left_to_the_operator(server: Instance, quick: None) -> None:
    """Nobody remembers whose they are: they are named, and keep it out of step."""
    client = fill(server)
    process = start(server)
    told(process, "in step")
    kill(process)
    client.delete("job:1")
    client.hset("job:2", "a", "changed")
    with Following(server.url) as following:
        following.wait_until(lambda now: now.extra == 1 and now.phase is Phase.FOLLOWING)
        assert client.hget("step:2", "a") == b"changed"
        assert client.exists("step:1")
        client.delete("step:1")
        following.wait_until_in_step()
        assert_in_step(server)


def test_what_was_written_while_nobody_followed_is_told_from_what_is_stale(
    server: Instance, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the source has not been touched since, the target was: it is foreign, and left."""
    monkeypatch.setattr(lease, "SLACK_SECONDS", 1)
    client = fill(server, 3)
    client.config_set("maxmemory-policy", "noeviction")
    with Following(server.url) as following:
        time.sleep(4.1)  # idle times are told in seconds
        following.wait_until(lambda now: now.in_step)
    client.hset("step:1", "mine", "1")
    client.hset("job:2", "a", "changed")
    with Following(server.url) as again:
        again.wait_until(lambda now: now.foreign == 1 and now.phase is Phase.FOLLOWING and not now.dirty)
        assert client.hget("step:1", "mine") == b"1"
        assert client.hget("step:2", "a") == b"changed"
    assert [(key.source, key.word) for key in again.keys] == [(b"job:1", Word.FOREIGN)]


@pytest.mark.single_server("the lease has another name in a cluster")
def test_the_record_does_not_outlive_its_days(any_server: Instance) -> None:
    """And nothing else is left."""
    client = fill(any_server)
    with Following(any_server.url) as following:
        following.wait_until_in_step()
        assert 0 < client.pttl(LEASE) <= lease.SECONDS * 1000
        assert 0 < client.pttl("luamigrate:follow") <= lease.SECONDS * 1000
    assert client.keys("luamigrate:*") == [RECORD]
    assert 0 < client.ttl(RECORD) <= lease.RECORD_SECONDS


def test_one_that_hung_for_longer_than_its_lease_writes_nothing_after_it(server: Instance, quick: None) -> None:
    """Somebody else owns the targets then; it ends, and says why."""
    client = fill(server)
    process = start(server)
    told(process, "in step")
    process.send_signal(signal.SIGSTOP)
    with Following(server.url) as following:
        following.wait_until_in_step()
        client.hset("job:1", "a", "changed")
        following.wait_until_in_step()
        process.send_signal(signal.SIGCONT)
        _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert "meanwhile another follow has begun" in err
        following.wait_until_in_step()
        assert_in_step(server)
    assert following.keys == []


@pytest.mark.single_server("the lease has another name in a cluster")
def test_one_that_hung_goes_on_when_nobody_has_taken_its_place(server: Instance) -> None:
    """It takes its lease again, and scans again."""
    client = fill(server)
    process = start(server, "--json")
    wait_until(lambda: client.dbsize() >= 20)
    with Writer(server, 1):
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: not client.exists(LEASE))
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: bool(client.exists(LEASE)))
    wait_until(lambda: not client.exists(LEASE) or client.get(RECORD) != b"0")
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, (out, err)
    assert "the lease had expired" in err
    assert_in_step(server)
