"""Clients that wait for something that a copy would make: a run is refused."""

from __future__ import annotations

import pytest
import redis

from tests.conftest import luamigrate
from tests.instances import Instance
from tests.migration.test_run import HASHES, fill
from tests.preflight.test_preflight import QUEUE, assert_refused, busy_client, checks


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("zset", ("BZPOPMIN", "line", 0)),
        ("list", ("BLPOP", "line", 0)),
        ("list", ("BLMOVE", "line", "{line}done", "LEFT", "LEFT", 0)),
        ("stream", ("XREAD", "BLOCK", 0, "STREAMS", "line", "$")),
        ("stream", ("BLPOP", "nothing", 0)),
    ],
)
def test_a_client_that_waits_is_refused_where_something_to_wait_for_would_be_made(
    server: Instance, kind: str, command: tuple[str | int, ...]
) -> None:
    """With its name, address and command; the server does not tell what it waits for, so any of them counts."""
    write(server.client, kind)
    with busy_client(server, *command) as address:
        verdict, text = checks(server, "--map", "queue=line", "--type", kind, code=4)["blocked"]
    assert verdict == "refused"
    assert f"worker-7 at {address} in {command[0]}" in text
    assert "line" in text


def write(client: redis.Redis, kind: str) -> None:
    """Write a queue of this type."""
    if kind == "zset":
        client.zadd("queue", {"1": 1})
    elif kind == "list":
        client.rpush("queue", "1")
    else:
        client.xadd("queue", {"id": "1"})


def test_a_worker_on_the_new_name_is_not_handed_what_is_still_in_the_old_one(server: Instance) -> None:
    """What the check is for: without it, this job would run twice."""
    fill(server.client, jobs=3)
    with busy_client(server, "BZPOPMIN", "steps:pending", 0):
        assert_refused(server, ("run",), "blocked", "steps:pending", "BZPOPMIN")
        assert luamigrate("run", "--ignore-check", "blocked", url=server.url).code == 0
        assert server.client.zcard("steps:pending") == 2
        assert server.client.zcard("jobs:pending") == 3


def test_a_client_that_waits_does_not_matter_where_the_targets_are_there(server: Instance) -> None:
    """Nothing that could be waited for would be made."""
    server.client.rpush("queue", "1")
    server.client.rpush("line", "1")
    with busy_client(server, "BLPOP", "nothing", 0):
        assert checks(server, *QUEUE)["blocked"][0] == "ok"


def test_a_client_that_waits_does_not_matter_where_only_hashes_are_made(server: Instance) -> None:
    """Nobody can wait for those; nor for a queue that is not there."""
    fill(server.client, jobs=3)
    with busy_client(server, "BLPOP", "nothing", 0):
        assert checks(server, *HASHES)["blocked"][0] == "ok"
        assert checks(server, *QUEUE, code=3)["blocked"][0] == "ok"


@pytest.mark.single_server("a cluster has one database")
def test_a_client_that_waits_in_another_database_does_not_matter(server: Instance) -> None:
    """Only in the one that is worked on, whichever that is."""
    server.client.rpush("queue", "1")
    with busy_client(server, "BLPOP", "line", 0, database=3):
        assert checks(server, *QUEUE)["blocked"][0] == "ok"
        with redis.Redis.from_url(f"{server.url}?db=3") as client:
            client.rpush("queue", "1")
        assert checks(server, *QUEUE, url=f"{server.url}?db=3", code=4)["blocked"][0] == "refused"


@pytest.mark.parametrize(
    ("command", "flag"),
    [(("WAIT", 1, 0), "b"), (("WAITAOF", 0, 1, 0), "b"), (("SUBSCRIBE", "news"), "P"), (("MONITOR",), "O")],
)
def test_a_client_that_waits_for_no_key_does_not_matter(
    server: Instance, command: tuple[str | int, ...], flag: str
) -> None:
    """Though the server calls some of them blocked."""
    if command[0] == "WAITAOF" and server.version < (7, 2):
        pytest.skip("this server has no WAITAOF")
    server.client.rpush("queue", "1")
    with busy_client(server, *command, flag=flag):
        assert checks(server, *QUEUE)["blocked"][0] == "ok"


def test_a_queue_among_many_other_keys_is_not_overlooked(any_server: Instance) -> None:
    """Some lists beside thousands of hashes are found, though a small sample of names may lack them."""
    fill(any_server.client, jobs=4000)
    for number in range(3):
        any_server.client.rpush(f"queue:{number}", "1")
    with busy_client(any_server, "BLPOP", "line:1", 0):
        found = checks(any_server, "--map", "job:*=step:*", "--map", "queue:*=line:*", code=4)
    assert found["blocked"][0] == "refused"
