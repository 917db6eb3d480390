"""What a follow survives: writers at full speed beside lost connections, restarts, emptied databases, evictions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import redis

from luamigrate import Limits
from luamigrate.cli.embedded import free_port
from luamigrate.migration import lease
from luamigrate.model.following import Rescan
from tests.clusters import wait_until
from tests.following import Following, Writer, assert_in_step
from tests.instances import Instance, start
from tests.proxies import cutting
from tests.sentinels import watched

pytestmark = pytest.mark.single_server("the faults are of one server")

SECONDS_BETWEEN = 0.25


def fill(server: Instance, count: int = 60) -> Any:
    """Write sources; return a client."""
    client: Any = server.client
    for number in range(count):
        client.hset(f"job:{number}", mapping={"a": number, "b": "x"})
    return client


def answers(server: Instance) -> bool:
    """Tell whether a server that was started again has loaded its keys."""
    with suppress(redis.RedisError), server.another_client() as client:
        return bool(client.ping())
    return False


def survive(server: Instance, following: Following, faults: Sequence[Callable[[], object]], *, seed: int) -> None:
    """Have writers write while one thing happens after the other; then all is in step."""
    following.wait_until_in_step()
    with Writer(server, seed), Writer(server, seed + 1):
        for fault in faults:
            time.sleep(SECONDS_BETWEEN)
            with suppress(redis.RedisError):
                fault()
    wait_until(partial(answers, server))
    with suppress(AssertionError):
        assert_in_step(server)  # once nothing is about to expire
    following.wait_until_in_step()
    assert_in_step(server)
    assert following.error is None
    assert following.keys == [], following.now


def test_it_converges_beside_writers_and_faults(server: Instance) -> None:
    """All commands of all types, connections killed, scripts forgotten, databases emptied, the own one among them."""
    client = fill(server)
    chance = random.Random(11)

    def kill() -> None:
        client.client_kill_filter(_type="pubsub")
        for each in client.client_list():
            if chance.random() < 0.5:
                client.client_kill_filter(_id=each["id"], skipme=True)

    def empty_another() -> None:
        with server.another_client(db=3) as other:
            other.set("job:1", "1")
            other.flushdb()

    faults = (kill, client.script_flush, empty_another, client.flushall, kill)
    with Following(server.url) as following:
        survive(server, following, faults, seed=3)
        assert following.now.copies > 0
    assert set(following.now.rescans) >= {Rescan.EMPTIED, Rescan.LOST}
    assert following.summary.exit_code == 0


def test_a_server_that_is_killed_and_comes_back(server_name: str) -> None:
    """From its AOF, which may lack the last writes of both sides."""
    with start(server_name, "--appendonly", "yes") as server:
        fill(server)

        def restart() -> None:
            server.kill()
            server.start_again("--appendonly", "yes")

        with Following(server.url) as following:
            survive(server, following, (restart, restart), seed=5)
        assert following.now.rescans[Rescan.OTHER_SERVER] >= 1
        assert following.summary.exit_code == 0


def test_a_primary_that_becomes_a_replica_is_left(server_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody closes the connection, but the lease cannot be renewed there: who is at the address now is followed."""
    monkeypatch.setattr(lease, "SECONDS_TO_RENEW", 0.1)
    port = free_port()
    with start(server_name) as former, start(server_name, "--port", str(port), "--bind", "127.0.0.1") as server:
        at = [former]
        for each in (former, server):
            fill(each)
        with cutting(lambda: at[0].url.removeprefix("unix://")) as url, Following(url) as following:
            following.wait_until_in_step()
            at[0] = server
            former.client.replicaof("127.0.0.1", str(port))
            following.wait_until(lambda now: now.rescans.get(Rescan.OTHER_SERVER, 0) > 0)
            server.client.hset("job:1", "a", "changed")
            wait_until(lambda: server.client.hget("step:1", "a") == b"changed")
            following.wait_until_in_step()
            assert_in_step(server)
        assert following.error is None


def test_evictions_are_followed(server: Instance) -> None:
    """Sources that the server evicts take their targets along; a target that it evicts is copied again."""
    client = fill(server, 2000)
    ignored = frozenset(("eviction", "memory"))
    evicted = client.info("stats")["evicted_keys"]
    with Following(server.url, ignored_checks=ignored) as following:
        following.wait_until_in_step()
        client.config_set("maxmemory-policy", "allkeys-random")
        try:
            client.config_set("maxmemory", client.info("memory")["used_memory"] - 100_000)
            wait_until(lambda: client.info("stats")["evicted_keys"] > evicted)
        finally:
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")
        following.wait_until_in_step()
        assert_in_step(server)
    assert {key.word for key in following.keys} <= {"foreign", "failed"}


def test_too_many_changes_are_scanned_for(any_server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of remembering more names than there is room for."""
    monkeypatch.setattr("luamigrate.migration.dirty.MOST_NAMES", 500)
    client = fill(any_server)
    with Following(any_server.url, limits=Limits(max_rate=400)) as following:
        following.wait_until_in_step()
        pipeline = client.pipeline()
        for number in range(1000):
            pipeline.hset(f"job:{number}", "a", "new")
        pipeline.execute()
        following.wait_until(lambda now: now.rescans.get(Rescan.TOO_MANY, 0) > 0)
        following.wait_until_in_step()
        assert_in_step(any_server)
    assert following.summary.exit_code == 0


def test_a_primary_that_is_replaced_is_followed_to_the_next(server_name: str) -> None:
    """Behind Sentinels: it registers again there, and scans again."""
    with watched(server_name) as servers:
        for number in range(50):
            servers.primary.hset(f"job:{number}", "a", number)
        with Following(servers.url, limits=Limits(patience=20)) as following:
            following.wait_until_in_step()
            assert servers.primary.execute_command("WAIT", 1, 10_000) == 1
            servers.fail_over()
            wait_until(servers.is_failed_over)
            servers.replica.hset("job:1", "a", "changed")
            following.wait_until(lambda now: now.rescans.get(Rescan.OTHER_SERVER, 0) > 0)
            wait_until(lambda: servers.replica.hget("step:1", "a") == b"changed")
            following.wait_until_in_step()
            jobs = {name.decode(): servers.replica.hgetall(name) for name in servers.replica.scan_iter("job:*")}
            assert len(jobs) == 50
            assert all(servers.replica.hgetall(name.replace("job", "step")) == value for name, value in jobs.items())
    assert following.error is None
