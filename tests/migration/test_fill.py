"""`luamigrate run --on-existing fill`: half-written targets get what they lack, and nothing else is touched."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from luamigrate import connect, migrate, plan
from tests.conftest import Result, luamigrate
from tests.instances import Instance, Value, read_value, snapshot
from tests.migration.test_run import HASHES, assert_equal, fill
from tests.preflight.test_checks import RUN as PERMITTED
from tests.preflight.test_checks import commands, user

FILL = ("run", "--on-existing", "fill")
JOBS = plan([("job:*", "step:*", "hash")])


def filled(server: Instance, *options: str) -> Result:
    """Fill and hold it to its promises: sources are as they were, and targets have all they had."""
    before = snapshot(server.client)
    result = luamigrate(*FILL, *options, url=server.url)
    after = snapshot(server.client)
    for key, (value, expiry) in before.items():
        assert holds(after[key][0], value), f"{key!r} has lost something"
        assert key.startswith(b"step") or after[key][0] == value, f"{key!r} has changed"
        assert (after[key][1] is None) == (expiry is None)
    return result


def holds(now: Value, before: Value) -> bool:
    """Tell whether a key has all that it had."""
    if now[0] != before[0] or now[0] not in ("hash", "set", "zset"):
        return now == before
    return bool(before[1] <= now[1] if now[0] == "set" else before[1].items() <= now[1].items())


def prepare(server: Instance) -> None:
    """Write a job system in which dual-writing has begun long ago."""
    fill(server.client, jobs=30)
    client = server.client
    for number in range(1, 11):
        client.hset(f"step:{number}", mapping={"status": "pending"})
    client.hset("step:11", mapping={"status": "done"})
    client.hset("step:12", mapping={"status": "pending", "more": "1"})
    client.sadd("steps:active", "active-1", "active-2")
    client.zadd("steps:pending", {"1": 1 / 7})


def test_what_is_missing_is_added(server: Instance) -> None:
    """A hash and a set that are a true subset become equal to their source; all else stays and is named."""
    prepare(server)
    result = filled(server, "--json")
    assert result.code == 3
    assert result.totals == {"found": 34, "copied": 20, "filled": 11, "partial": 1, "differs": 2, "ignored": 0}
    for number in (*range(1, 11), 13):
        assert_equal(server, f"job:{number}", f"step:{number}")
    assert_equal(server, "jobs:active", "steps:active")
    assert server.client.hgetall("step:11") == {b"status": b"done"}
    assert server.client.hgetall("step:12") == {b"status": b"pending", b"more": b"1"}
    assert server.client.zcard("steps:pending") == 1
    again = filled(server, "--json")
    assert again.totals == {"found": 34, "same": 31, "partial": 1, "differs": 2, "ignored": 0}


def test_queues_are_filled_only_when_asked_for(server: Instance) -> None:
    """Members that consumers took meanwhile would come back."""
    prepare(server)
    result = filled(server, "--fill-queues", "--json")
    assert (result.totals["filled"], result.totals.get("partial", 0)) == (12, 0)
    assert_equal(server, "jobs:pending", "steps:pending")


def test_the_words_of_a_fill_are_told(server: Instance) -> None:
    """In the classic block a filled key counts as migrated."""
    prepare(server)
    out = filled(server).out
    assert "Successfully migrated             31" in out
    assert "job:* -> step:*: 18 copied, 10 filled, 2 differs" in out
    assert "jobs:pending -> steps:pending: 1 partial" in out
    assert "Do not run this again after cut-over" in out


def test_a_fill_that_leaves_nothing_exits_0(server: Instance) -> None:
    """Every source has an equal target."""
    server.client.hset("job:1", mapping={"a": "1", "b": "2"})
    server.client.hset("step:1", mapping={"a": "1"})
    result = filled(server, *HASHES)
    assert result.code == 0
    assert "Every source that was found has an equal target." in result.out


def test_a_dry_run_says_how_many_would_be_filled(server: Instance) -> None:
    """It writes nothing and exits as the fill will."""
    prepare(server)
    digest = server.digest()
    dry = luamigrate(*FILL, "--dry-run", "--json", url=server.url)
    assert server.digest() == digest
    assert dry.totals == {"found": 34, "missing": 20, "partial": 12, "differs": 2, "fillable": 11, "ignored": 0}
    out = luamigrate(*FILL, "--dry-run", url=server.url).out
    assert "Would be filled                   11" in out
    assert "would copy 20 keys and fill 11 targets" in out
    assert "lacks 2 (id, payload); would be filled" in out
    assert filled(server, "--json").code == dry.code == 3

    server.client.delete("step:11", "step:12", "steps:pending")
    server.client.hdel("step:1", "id")
    assert luamigrate(*FILL, "--dry-run", url=server.url).code == filled(server).code == 0


def test_a_target_that_expires_at_another_time_is_not_touched(server: Instance) -> None:
    """It differs in more than what it lacks; --ignore-expiry accepts that, and its expiry stays."""
    server.client.hset("job:1", mapping={"a": "1", "b": "2"})
    server.client.hset("step:1", mapping={"a": "1"})
    server.client.expire("step:1", 1000)
    assert filled(server, *HASHES, "--json").totals == {"found": 1, "partial": 1, "ignored": 0}
    assert server.client.hlen("step:1") == 1
    assert filled(server, *HASHES, "--ignore-expiry", "--json").totals == {"found": 1, "filled": 1, "ignored": 0}
    assert server.client.hgetall("step:1") == {b"a": b"1", b"b": b"2"}
    assert 990 < server.client.ttl("step:1") <= 1000


def test_expiries_of_the_filled_fields_come_along(server: Instance) -> None:
    """Those of the fields that were there stay, and where one of them differs nothing is filled."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    client = server.client
    fields: Any = {f"f{number}": "1" for number in range(5)}
    client.hset("job:1", mapping=fields)
    client.execute_command("HPEXPIREAT", "job:1", 32503680000000, "FIELDS", 2, "f1", "f3")
    client.hset("step:1", mapping={"f0": "1", "f1": "1"})
    assert filled(server, *HASHES, "--json").totals["partial"] == 1
    client.execute_command("HPEXPIREAT", "step:1", 32503680000000, "FIELDS", 1, "f1")
    assert filled(server, *HASHES, "--json").totals["filled"] == 1
    expiries = client.execute_command("HPEXPIRETIME", "step:1", "FIELDS", 5, *fields)
    assert expiries == [-1, 32503680000000, -1, 32503680000000, -1]


def test_many_missing_parts_are_added(server: Instance) -> None:
    """More than a call takes."""
    many: Any = {f"field-{number}": "x" * 70 for number in range(9_000)}
    server.client.hset("job:1", mapping=many)
    server.client.hset("step:1", mapping={"field-17": "x" * 70})
    server.client.sadd("jobs:active", *many)
    server.client.sadd("steps:active", "field-17")
    assert filled(server, "--json").totals["filled"] == 2
    assert_equal(server, "job:1", "step:1")
    assert_equal(server, "jobs:active", "steps:active")


def words_of(server: Instance, between: Callable[[int], object], **options: Any) -> Counter[str]:
    """Fill while a second client steps in after each look that is not the last; return the words."""
    words: Counter[str] = Counter()
    looks = 0
    with connect(server.url) as connection:
        for batch in migrate(connection, JOBS, **{"on_existing": "fill", "settle": 0.05, **options}):
            if batch.tally.waiting >= 0 and not batch.tally.counts and (batch.tally.waiting or batch.seconds):
                looks += 1
                between(looks)
            words.update(batch.tally.counts)
    return words


def test_what_both_sides_delete_between_the_looks_stays_deleted(server: Instance) -> None:
    """HDEL on the target; first check; HDEL on the source; second check."""
    server.client.hset("job:1", mapping={"a": "1", "b": "2"})
    server.client.hset("step:1", mapping={"a": "1"})
    assert words_of(server, lambda _: server.client.hdel("job:1", "b")) == {"same": 1}
    assert server.client.hgetall("step:1") == {b"a": b"1"}


def test_what_is_found_missing_at_one_look_only_is_looked_at_once_more(server: Instance) -> None:
    """The second check finds something else missing: a new first check, and the third adds it."""
    server.client.hset("job:1", mapping={"a": "1", "b": "2", "c": "3"})
    server.client.hset("step:1", mapping={"a": "1", "b": "2"})

    def between(look: int) -> None:
        if look == 1:
            server.client.hdel("step:1", "b")

    assert words_of(server, between) == {"filled": 1}
    assert server.client.hgetall("step:1") == server.client.hgetall("job:1")


@pytest.mark.parametrize("mode", ["fill", "skip"])
def test_a_target_that_both_sides_delete_between_the_looks_stays_deleted(server: Instance, mode: str) -> None:
    """DEL on the target; second look; DEL on the source: what was there is not copied at the first sight of a gap."""
    server.client.hset("job:1", mapping={"a": "1", "b": "2"})
    server.client.hset("step:1", mapping={"a": "1"})

    def between(look: int) -> None:
        server.client.delete("step:1" if look == 1 else "job:1")

    assert words_of(server, between, on_existing=mode) == {"gone": 1}
    assert not server.client.exists("step:1")


@pytest.mark.parametrize("mode", ["fill", "skip"])
def test_a_target_that_stays_away_is_copied(server: Instance, mode: str) -> None:
    """When the next look finds it missing again."""
    server.client.hset("job:1", mapping={"a": "1", "b": "2"})
    server.client.hset("step:1", mapping={"a": "1"})

    def between(look: int) -> None:
        if look == 1:
            server.client.delete("step:1")

    assert words_of(server, between, on_existing=mode) == {"copied": 1}
    assert_equal(server, "job:1", "step:1")


def test_a_target_that_goes_on_changing_stays_partial(server: Instance) -> None:
    """After three first checks."""
    fields: Any = {f"f{number}": "1" for number in range(10)}
    server.client.hset("job:1", mapping=fields)
    server.client.hset("step:1", mapping=fields)
    server.client.hdel("step:1", "f9")
    looks = []

    def between(look: int) -> None:
        looks.append(look)
        server.client.hdel("step:1", f"f{look}")

    assert words_of(server, between) == {"partial": 1}
    assert looks == [1, 2, 3]
    assert server.client.hlen("step:1") == 6


def test_without_settling_it_is_added_at_once(server: Instance) -> None:
    """Nobody is waited for."""
    prepare(server)
    began = time.monotonic()
    result = filled(server, "--settle", "0", "--json")
    assert result.totals["filled"] == 11
    assert "would be brought back" in result.document["warnings"][0]
    assert time.monotonic() - began < 5


def test_what_the_user_may_not_write_fails_and_is_as_it_was(server: Instance) -> None:
    """HSETNX is denied: `failed` for `noperm`, with the server's words."""
    server.client.hset("job:1", mapping={"a": "1", "b": "2"})
    server.client.hset("step:1", mapping={"a": "1"})
    allowed = commands(server, [*PERMITTED, *(["hpexpireat"] if server.has_field_expiries else [])])
    with user(server, allowed, ["job:*", "step:*"]) as url:
        # Where it can be tried, the check says so before; this is about what comes if nobody listens.
        result = luamigrate(*FILL, *HASHES, "--ignore-check", "permissions", "--json", url=url)
    assert (result.code, result.document["rules"][0]["failed_reasons"]) == (1, {"noperm": 1})
    assert server.client.hgetall("step:1") == {b"a": b"1"}
    with user(server, [*allowed, "hsetnx"], ["job:*", "step:*"]) as url:
        assert luamigrate(*FILL, *HASHES, url=url).code == 0


def test_types_without_parts_are_left_alone(server: Instance) -> None:
    """A list that is the beginning of its source differs."""
    server.client.rpush("job:1", "a", "b")
    server.client.rpush("step:1", "a")
    server.client.set("job:2", "ab")
    server.client.set("step:2", "a")
    result = filled(server, "--map", "job:*=step:*", "--json")
    assert result.totals == {"found": 2, "differs": 2, "ignored": 0}
    assert read_value(server.client, b"step:1") == ("list", [b"a"])
