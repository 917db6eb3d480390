"""`luamigrate run`: what it copies, what it leaves, and what it says about each key."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
import redis

from luamigrate import Limits, connect, migrate
from luamigrate.scripts import library
from tests.conftest import luamigrate, run
from tests.instances import Instance, assert_same_expiry, read_expiry, read_value

HASHES = ("--map", "job:*=step:*", "--type", "hash")
SETS = ("--map", "job:*=step:*", "--type", "set")
ZSETS = ("--map", "job:*=step:*", "--type", "zset")

COLLECTIONS = ("active", "completed", "failed", "pending")


def fill(client: redis.Redis, jobs: int = 250) -> None:
    """Write the jobs and the four collections of the built-in plan."""
    pipeline = client.pipeline(transaction=False)
    for number in range(jobs):
        pipeline.hset(f"job:{number}", mapping={"id": number, "status": "pending", "payload": "x" * (number % 100)})
        pipeline.zadd("jobs:pending", {f"{number}": number / 7})
    for name in COLLECTIONS[:3]:
        pipeline.sadd(f"jobs:{name}", *(f"{name}-{number}" for number in range(20)))
    pipeline.execute()


def assert_equal(server: Instance, source: bytes | str, target: bytes | str) -> None:
    """Two keys are equal by their values as a client reads them, by the server's digest and by expiry."""
    source, target = (key.encode() if isinstance(key, str) else key for key in (source, target))
    assert server.client.exists(source)
    assert read_value(server.client, source) == read_value(server.client, target)
    assert server.digest_value(source) == server.digest_value(target)
    assert_same_expiry(read_expiry(server.client, source), read_expiry(server.client, target), target)


def test_the_built_in_plan_copies_jobs_and_their_collections_to_steps(server: Instance) -> None:
    """Every key of the job system has an equal twin, and nothing else has appeared."""
    fill(server.client)
    server.client.set("unrelated", "1")

    result = run(server, "--json")

    assert result.code == 0
    assert result.totals == {"found": 254, "copied": 254, "ignored": 0}
    assert [rule["copied"] for rule in result.document["rules"]] == [250, 1, 1, 1, 1]
    for number in range(250):
        assert_equal(server, f"job:{number}", f"step:{number}")
    for name in COLLECTIONS:
        assert_equal(server, f"jobs:{name}", f"steps:{name}")
    assert server.client.dbsize() == 2 * 254 + 1


def test_queues_are_copied_after_the_hashes_they_name(server: Instance) -> None:
    """Rules run in their order, each one to its end."""
    fill(server.client, jobs=20)
    with connect(server.url) as connection:
        rules = [batch.rule for batch in migrate(connection, limits=Limits(batch_size=3)) if batch.tally.counts]
    order = list(dict.fromkeys(str(rule.source) for rule in rules))
    assert order == ["job:*", "jobs:active", "jobs:completed", "jobs:failed", "jobs:pending"]


def test_running_again_copies_nothing_and_finds_everything_the_same(server: Instance) -> None:
    """The second run compares what the first one made."""
    fill(server.client)
    run(server)
    digest = server.digest()

    result = run(server, "--json")

    assert (result.code, result.totals) == (0, {"found": 254, "same": 254, "ignored": 0})
    assert server.digest() == digest


def test_expiries_come_along(server: Instance) -> None:
    """A copy expires when its source does; the copy of a key without expiry has none."""
    for name, value in (("job:1", "1"), ("job:2", "x" * 100)):
        server.client.hset(name, "a", value)
        server.client.pexpire(name, 123_456)
    server.client.hset("job:3", "a", "1")

    assert run(server, *HASHES).code == 0

    assert_equal(server, "job:1", "step:1")
    assert_equal(server, "job:2", "step:2")
    assert server.client.ttl("step:3") == -1


def test_field_expiries_come_along_and_are_compared(server: Instance) -> None:
    """A field expires in the copy when it does in the source; one that does not makes `expiry`."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    for value in ("1", "x" * 100):
        server.client.flushall()
        for number in range(3):
            server.client.hset(f"job:{number}", mapping={"a": value, "b": "2"})
        server.client.execute_command("HPEXPIRE", "job:1", 100_000, "FIELDS", 1, "a")
        server.client.execute_command("HPEXPIRE", "job:2", 100_000, "FIELDS", 1, "a")
        server.client.hset("step:2", mapping={"a": value, "b": "2"})

        result = run(server, *HASHES, "--json")

        assert result.totals == {"found": 3, "copied": 2, "expiry": 1, "ignored": 0}
        when = [server.client.execute_command("HPEXPIRETIME", key, "FIELDS", 1, "a") for key in ("job:1", "step:1")]
        assert when[0] == when[1] != [-1]
        assert run(server, *HASHES, "--json", "--ignore-expiry").totals == {"found": 3, "same": 3, "ignored": 0}


def test_a_hash_whose_fields_have_all_expired_is_gone(server: Instance) -> None:
    """It is not copied as an empty hash, even where the server would do so."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    server.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    try:
        for options in ((), ("--no-validate",)):
            server.client.hset("job:1", mapping={"a": "1", "b": "2"})
            server.client.execute_command("HPEXPIRE", "job:1", 1, "FIELDS", 2, "a", "b")
            time.sleep(0.02)
            result = run(server, *HASHES, "--json", "--allow-empty", *options)
            assert result.totals.get("copied", 0) == 0
            assert not server.client.exists("step:1")
    finally:
        server.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def test_each_relation_of_a_hash_to_its_target_has_its_word(server: Instance) -> None:
    """Targets that exist are told apart, and none is changed."""
    client = server.client
    for name in ("copied", "same", "expiry", "partial", "value", "more", "type"):
        client.hset(f"job:{name}", mapping={"a": "1", "b": "2", "c": "3"})
    client.hset("step:same", mapping={"c": "3", "b": "2", "a": "1"})
    client.hset("step:expiry", mapping={"a": "1", "b": "2", "c": "3"})
    client.expire("step:expiry", 1000)
    client.hset("step:partial", mapping={"a": "1", "c": "3"})
    client.hset("step:value", mapping={"a": "1", "b": "other"})
    client.hset("step:more", mapping={"a": "1", "b": "2", "c": "3", "d": "4"})
    client.set("step:type", "a string")
    client.set("job:string", "ignored")
    client.rpush("job:list", "ignored")

    result = run(server, *HASHES, "--json")

    counts = {"found": 7, "copied": 1, "same": 1, "expiry": 1, "partial": 1, "differs": 3}
    assert result.totals == {**counts, "ignored": 2}
    assert result.document["rules"][0]["ignored"] == {"string": 1, "list": 1}
    assert result.code == 3


@pytest.mark.parametrize("wide", [False, True], ids=["compact", "hashtable"])
def test_sets_and_sorted_sets_are_told_apart_likewise(server: Instance, wide: bool) -> None:
    """Members and scores decide, in both encodings."""
    client = server.client
    members = [f"{'x' * 100 if wide else ''}{number}" for number in range(5)]
    scores = {member: number / 3 for number, member in enumerate(members)}
    for name in ("copied", "same", "partial", "differs"):
        client.sadd(f"job:{name}", *members)
        client.zadd(f"queue:{name}", scores)
    client.sadd("step:same", *reversed(members))
    client.zadd("line:same", scores)
    client.sadd("step:partial", *members[:2])
    client.zadd("line:partial", dict(list(scores.items())[:2]))
    client.sadd("step:differs", *members[:2], "another")
    client.zadd("line:differs", {**scores, members[0]: 77})

    sets = run(server, *SETS, "--json")
    zsets = run(server, "--map", "queue:*=line:*", "--type", "zset", "--json")

    words = {"found": 4, "copied": 1, "same": 1, "partial": 1, "differs": 1, "ignored": 0}
    assert sets.totals == words
    assert zsets.totals == words
    assert_equal(server, "job:copied", "step:copied")
    assert_equal(server, "queue:copied", "line:copied")


def test_expiries_within_a_second_of_each_other_are_the_same(server: Instance) -> None:
    """Two EXPIRE of one dual write are not a difference; two seconds are."""
    for name, target_ms in (("near", 100_500), ("far", 102_000)):
        server.client.hset(f"job:{name}", "a", "1")
        server.client.hset(f"step:{name}", "a", "1")
        server.client.pexpire(f"job:{name}", 100_000)
        server.client.pexpire(f"step:{name}", target_ms)
    assert run(server, *HASHES, "--json").totals == {"found": 2, "same": 1, "expiry": 1, "ignored": 0}
    assert run(server, *HASHES, "--ignore-expiry").code == 0


def test_without_validation_nothing_is_compared_and_the_summary_says_so(server: Instance) -> None:
    """COPY's word is taken, and a target that was there is only said to exist."""
    server.client.hset("job:1", "a", "1")
    server.client.hset("job:2", "a", "1")
    server.client.hset("step:2", "a", "other")
    human = run(server, *HASHES, "--no-validate").out
    server.client.delete("step:1")
    result = run(server, *HASHES, "--json", env={"VALIDATE_COPIES": "false"})
    assert (result.code, result.totals) == (0, {"found": 2, "copied": 1, "exists": 1, "ignored": 0})
    assert result.document["validated"] is False
    assert "Copied, not compared" in human
    assert "They were not compared" in human


def test_every_byte_survives(server: Instance) -> None:
    """Names, fields, values, members: all bytes, nothing, and a megabyte."""
    client = server.client
    every_byte = bytes(range(256))
    names = [b"job:" + every_byte, b"job:", b"job:\xff\xfe\r\n\x1b[31m", b"job:" + b"n" * 10_000]
    for name in names:
        client.hset(name, mapping={every_byte: every_byte, b"": b"", b"megabyte": every_byte * 4096, b"n": b"-7"})
    client.sadd(b"set:\x00", *(bytes([byte]) for byte in every_byte), b"")
    client.sadd("set:integers", *range(-300, 300))

    assert run(server, *HASHES).code == 0
    assert run(server, "--map", "set:*=copy:*", "--type", "set").code == 0

    for name in names:
        assert_equal(server, name, b"step:" + name.removeprefix(b"job:"))
    assert_equal(server, b"set:\x00", b"copy:\x00")
    assert_equal(server, "set:integers", "copy:integers")


@pytest.mark.parametrize("members", [5, 500], ids=["compact", "skiplist"])
def test_scores_are_exact(server: Instance, members: int) -> None:
    """Sums that are not round, the largest, the infinite and the negative zero."""
    scores = [0.1 + 0.2, 1e300, -1e-300, float("inf"), float("-inf"), -0.0, 0.0, 2**53 + 1, 1 / 3, -17]
    server.client.zadd("job:1", {f"score-{n}": score for n, score in enumerate(scores)})
    server.client.zadd("job:1", {f"more-{n}": n / 9 for n in range(members)})
    assert run(server, *ZSETS, "--json").totals == {"found": 1, "copied": 1, "ignored": 0}
    assert_equal(server, "job:1", "step:1")
    assert run(server, *ZSETS, "--json").totals == {"found": 1, "same": 1, "ignored": 0}


def test_pattern_characters_in_names_are_literal(server: Instance) -> None:
    r"""A prefix with ?, [, ], ^ or \ matches itself and nothing else; the last one is written twice."""
    prefix = r"a?[b-c]^\x:"
    server.client.hset(f"{prefix}1", "a", "1")
    server.client.hset(r"aZb^\x:1", "a", "1")
    result = run(server, "--map", r"a?[b-c]^\\x:*=copy?[x]:*", "--type", "hash", "--json")
    assert result.totals == {"found": 1, "copied": 1, "ignored": 0}
    assert_equal(server, f"{prefix}1", "copy?[x]:1")


def test_the_star_may_stand_anywhere(server: Instance) -> None:
    """What it matches moves to where the target has its star, and prefix and suffix do not overlap."""
    for name in ("user:1:cart", "user:a:b:cart", "user:cart"):
        server.client.hset(name, "a", name)
    result = run(server, "--map", "user:*:cart=*/basket", "--type", "hash", "--json")
    assert result.totals == {"found": 2, "copied": 2, "ignored": 0}
    assert_equal(server, "user:1:cart", "1/basket")
    assert_equal(server, "user:a:b:cart", "a:b/basket")


def test_rules_come_from_a_plan_file(server: Instance, tmp_path: Path) -> None:
    """Rules with and without a star, each with its type, named by option or environment."""
    file = tmp_path / "plan.toml"
    file.write_text(
        '[[rule]]\nsource = "rq:job:*"\ntarget = "q:job:*"\ntype = "hash"\n'
        '[[rule]]\nsource = "rq:queues"\ntarget = "q:queues"\ntype = "set"\n'
    )
    server.client.hset("rq:job:1", "a", "1")
    server.client.sadd("rq:queues", "default")
    assert run(server, "--plan", str(file), "--json").totals == {"found": 2, "copied": 2, "ignored": 0}
    again = run(server, "--json", env={"LUAMIGRATE_PLAN": str(file)})
    assert again.totals == {"found": 2, "same": 2, "ignored": 0}
    over = run(server, "--map", "none:*=n:*", "--type", "set", "--json", env={"LUAMIGRATE_PLAN": str(file)})
    assert over.totals["found"] == 0


@pytest.mark.single_server("it counts what copy.lua is given")
@pytest.mark.parametrize("size", [1, 7, 100])
def test_no_script_gets_more_pairs_than_the_batch_size(server: Instance, size: int) -> None:
    """The server's own record of calls: every source and target is declared, never more than asked for."""
    fill(server.client, jobs=150)
    server.client.config_set("slowlog-log-slower-than", 0)
    server.client.config_set("slowlog-max-len", 10_000)
    server.client.slowlog_reset()
    try:
        # Nothing is to be sent again because a busy machine had no time for it.
        assert run(server, *HASHES, "--batch-size", str(size), "--max-pause", "1000").code == 0
        calls = [entry["command"] for entry in server.client.slowlog_get(10_000)]
    finally:
        server.client.config_set("slowlog-log-slower-than", 10_000)
    digest = hashlib.sha1(library.source("copy").encode(), usedforsecurity=False).hexdigest().encode()
    copied = [int(call.split()[2]) for call in calls if call.startswith(b"EVALSHA " + digest)]
    assert sum(copied) == 2 * 150
    assert max(copied) <= 2 * size


def test_a_key_that_does_not_exist_is_not_found(server: Instance) -> None:
    """A rule without a star whose key is absent counts nothing, and the screen says so."""
    server.client.sadd("jobs:active", "1")
    result = run(server)
    assert result.code == 0
    assert result.out.count("there is no such key") == 2 * 3, "in the sections and in the summary"
    assert "Total keys found                   1" in result.out


def test_no_match_is_loud_and_names_where_the_keys_are(server: Instance) -> None:
    """The wrong database is the usual cause; --allow-empty makes it a success."""
    server.client.hset("step:1", "a", "1")
    result = run(server)
    assert result.code == 3
    assert "NO KEY MATCHED ANY RULE" in result.out
    assert "1 in db0" in result.out
    assert run(server, "--allow-empty").code == 0
    assert run(server, env={"ALLOW_EMPTY": "true"}).code == 0


def test_keys_of_another_type_alone_are_no_match_either(server: Instance) -> None:
    """The screen names the type they have."""
    server.client.set("job:1", "x")
    result = run(server, *HASHES)
    assert result.code == 3
    assert "NO KEY IS OF ITS RULE'S TYPE: ignored 1 of type string" in result.out


def test_reserved_names_are_left_out_where_the_pattern_begins_with_a_star(server: Instance) -> None:
    """A staging key of another run is no source."""
    for name in ("luamigrate:x:job", "a:job"):
        server.client.hset(name, "a", "1")
    assert run(server, "--map", "*:job=*:step", "--type", "hash", "--json").totals["found"] == 1
    assert not server.client.exists("luamigrate:x:step")


def test_reading_does_not_make_sources_look_used(server: Instance) -> None:
    """Where the server can be told so, their idle time goes on."""
    if server.version < (7, 2) or (server.mode == "cluster" and server.name != "valkey-9.1"):
        pytest.skip("this server has no CLIENT NO-TOUCH, or dies of it where slots move")
    server.client.hset("job:1", "a", "1")
    time.sleep(2.1)
    assert run_untouched(server, "--dry-run") == 0
    assert run_untouched(server) == 0
    assert int(server.client.object("idletime", "job:1") or 0) >= 2


def run_untouched(server: Instance, *options: str) -> int:
    """Run without looking at the keys ourselves."""
    return luamigrate("run", *HASHES, *options, url=server.url).code


@pytest.mark.single_server("a cluster has one database")
def test_only_the_database_of_the_url_is_touched(server: Instance) -> None:
    """The URL's number decides."""
    server.client.hset("job:1", "a", "0")
    other = redis.Redis.from_url(f"{server.url}?db=5")
    other.hset("job:1", "a", "5")
    run_in_five = Instance(server.name, f"{server.url}?db=5", server.process, other)
    assert run(run_in_five, *HASHES).code == 0
    assert other.hget("step:1", "a") == b"5"
    assert not server.client.exists("step:1")
    other.close()
