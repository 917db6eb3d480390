"""Big keys, copied in chunks while nobody else writes: what is copied, and how much a script goes through."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from luamigrate.scripts import library
from tests.conftest import luamigrate, run
from tests.instances import Instance, expires_at
from tests.migration.test_run import assert_equal

GENTLY = ("--max-pause", "0.1")
"""A script goes through 20,000 bytes then: what has some hundred parts is big."""
ANY = ("--map", "job:*=step:*")
EACH = (*ANY, *GENTLY, "--json")

FAR = 32_503_680_000_000
MANY = 600
NAMES = [b"%d-\x00\xff\r\n" % number for number in range(MANY)]
EVERY_BYTE = bytes(range(256))
SCORES = [1 / 3, 0.1 + 0.2, float("inf"), float("-inf"), 1e300, -1e-300, 2**53 + 1, -17]

VALUES: dict[str, Any] = {
    "hash": {name: b"v" + name for name in NAMES} | {EVERY_BYTE: EVERY_BYTE, b"": b""},
    "set": {*NAMES, EVERY_BYTE, b""},
    "zset": {name: number / 7 for number, name in enumerate(NAMES)} | {b"s%d" % n: s for n, s in enumerate(SCORES)},
    "list": [*NAMES, EVERY_BYTE, b"", *NAMES[:3]],
    "string": EVERY_BYTE * 400,
}
PARTED = ("hash", "set", "zset")


def write(server: Instance, key: str, content: Any, kind: str = "") -> None:
    """Write a key by ordinary commands."""
    pipeline = server.client.pipeline()
    match kind or key.partition(":")[2]:
        case "hash":
            pipeline.hset(key, mapping=content)
        case "set":
            pipeline.sadd(key, *content)
        case "zset":
            pipeline.zadd(key, content)
        case "list":
            pipeline.rpush(key, *content)
        case "string":
            pipeline.set(key, content)
    pipeline.execute()


def write_all(server: Instance) -> None:
    """Write a big key of each type."""
    for kind, content in VALUES.items():
        write(server, f"job:{kind}", content)


def without(kind: str, names: list[bytes]) -> Any:
    """Return the big value of a type without these fields or members."""
    content = VALUES[kind]
    return content - set(names) if kind == "set" else {name: content[name] for name in content if name not in names}


@contextmanager
def configured(server: Instance, **parameters: int) -> Iterator[None]:
    """Have the server configured otherwise for a while."""
    names = {name.replace("_", "-"): value for name, value in parameters.items()}
    before = {name: server.client.config_get(name)[name] for name in names}
    for name, value in names.items():
        server.client.config_set(name, value)
    try:
        yield
    finally:
        for name, former in before.items():
            server.client.config_set(name, former or "")


STAGING = ("chunk/stage", "chunk/append")
COMPARING = ("chunk/compare", "chunk/compare_elements")
FILLING = ("chunk/add_fields",)
"""Scripts that go through a part of a big key: where both are on one server, and across slots."""


def calls_of(server: Instance, names: tuple[str, ...]) -> list[bytes]:
    """Return the calls of scripts that the slow log holds, which is told to hold all."""
    digests = [library.digest(name).encode() for name in names]
    calls = [entry["command"] for entry in server.client.slowlog_get(100_000)]
    return [call for call in calls if call.split(maxsplit=2)[1:2] in [[digest] for digest in digests]]


@contextmanager
def logged(server: Instance) -> Iterator[None]:
    """Have every command in the slow log."""
    with configured(server, slowlog_log_slower_than=0, slowlog_max_len=100_000):
        server.client.slowlog_reset()
        yield


def has_staging_keys(server: Instance) -> bool:
    """Tell whether there are keys of our own."""
    return bool(server.client.keys("luamigrate:*"))


def expire_fields(server: Instance, key: str, *names: bytes, at: int = FAR) -> None:
    """Have fields of a hash expire."""
    server.client.execute_command("HPEXPIREAT", key, at, "FIELDS", len(names), *names)


def field_expiries(server: Instance, key: str) -> list[int]:
    """Return when each field expires."""
    answer: list[int] = server.client.execute_command("HPEXPIRETIME", key, "FIELDS", MANY, *NAMES)
    return answer


def test_every_type_is_copied_in_chunks_and_equals_its_source(server: Instance) -> None:
    """By a client, by the server's digest and by expiry; the second run finds them the same, and so does verify."""
    write_all(server)
    for kind in ("hash", "list", "string"):
        server.client.pexpire(f"job:{kind}", 123_456)
    with logged(server):
        result = run(server, *EACH)
        chunks = len(calls_of(server, STAGING))
    assert (result.code, result.totals) == (0, {"found": 5, "copied": 5, "ignored": 0})
    assert chunks > 2 * len(VALUES)
    for kind in VALUES:
        assert_equal(server, f"job:{kind}", f"step:{kind}")
    assert server.client.pttl("step:set") == server.client.pttl("step:zset") == -1
    assert server.client.dbsize() == 10
    digest = server.digest()
    for command in ("run", "verify"):
        again = luamigrate(command, *EACH, url=server.url)
        assert (again.code, again.totals) == (0, {"found": 5, "same": 5, "ignored": 0})
    assert server.digest() == digest


def test_a_copy_expires_in_the_millisecond_in_which_its_source_does(server: Instance) -> None:
    """On Redis 6.2, which tells moments only as time left, at most two milliseconds apart."""
    for kind, content in VALUES.items():
        write(server, f"job:{kind}", content)
        server.client.pexpire(f"job:{kind}", 100_000 + len(kind))
    assert run(server, *EACH).code == 0
    for kind in VALUES:
        moments = [expires_at(server.client, f"{name}:{kind}") for name in ("job", "step")]
        assert moments[1] > 0
        assert abs(moments[0] - moments[1]) <= (0 if server.version >= (7, 0) else 2)


def test_a_score_of_minus_zero_is_zero(server: Instance) -> None:
    """Compact encodings lose its sign: the copy may have it or not, and is the same."""
    write(server, "job:zset", VALUES["zset"] | {b"minus zero": -0.0})
    assert run(server, *EACH).totals == {"found": 1, "copied": 1, "ignored": 0}
    assert server.client.zscore("step:zset", "minus zero") == 0.0
    assert luamigrate("verify", *EACH, url=server.url).totals == {"found": 1, "same": 1, "ignored": 0}


def test_expiries_of_fields_come_along_and_are_compared(server: Instance) -> None:
    """More than a second apart in a field is `expiry`, and named; less is `same`."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    write(server, "job:hash", VALUES["hash"])
    expire_fields(server, "job:hash", *NAMES[::2])
    assert run(server, *EACH).totals["copied"] == 1
    assert field_expiries(server, "step:hash") == field_expiries(server, "job:hash") == [FAR, -1] * (MANY // 2)
    expire_fields(server, "step:hash", NAMES[4], at=FAR + 900)
    assert run(server, *EACH).totals["same"] == 1
    expire_fields(server, "step:hash", NAMES[1], at=FAR)
    expire_fields(server, "step:hash", NAMES[2], at=FAR - 2000)
    assert run(server, *EACH).totals["expiry"] == 1
    assert run(server, *EACH, "--ignore-expiry").totals["same"] == 1


def test_a_hash_whose_fields_have_all_expired_is_gone(server: Instance) -> None:
    """As a small one is, to a run as to the others; nothing is made of it."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    server.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    try:
        write(server, "job:hash", dict.fromkeys(NAMES, "1"))
        expire_fields(server, "job:hash", *NAMES, at=int(time.time() * 1000) + 5)
        time.sleep(0.02)
        for command in (("run",), ("verify",), ("rollback", "--yes")):
            result = luamigrate(*command, *EACH, "--allow-empty", url=server.url)
            assert result.totals.items() <= {"found": 1, "gone": 1, "ignored": 0}.items() | {("found", 0)}
        assert not server.client.exists("step:hash")
    finally:
        server.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")


def test_big_keys_in_compact_encodings_are_copied_and_compared_likewise(server: Instance) -> None:
    """One side compact, the other a table: what counts is what they hold."""
    compact = {f"{kind}_max_ziplist_entries": 10_000 for kind in ("hash", "zset")}
    with configured(server, **compact, set_max_intset_entries=10_000):
        for kind in ("hash", "zset"):
            write(server, f"job:{kind}", {b"%040d" % number: number for number in range(2 * MANY)})
        write(server, "job:set", {2**40 + number for number in range(5 * MANY)})
    assert server.client.object("encoding", "job:set") == b"intset"
    assert run(server, *EACH).totals == {"found": 3, "copied": 3, "ignored": 0}
    for kind in PARTED:
        assert server.client.object("encoding", f"job:{kind}") != server.client.object("encoding", f"step:{kind}")
        assert_equal(server, f"job:{kind}", f"step:{kind}")
    assert run(server, *EACH).totals == {"found": 3, "same": 3, "ignored": 0}


def test_few_large_parts_are_copied_one_by_one(server: Instance) -> None:
    """What cannot be cut is told of, because it holds the server for longer than a chunk may."""
    large: Any = {b"%d" % number + b"x" * 50_000: number for number in range(20)}
    write(server, "job:hash", {b"%d" % number: value for number, value in enumerate(large)})
    for kind in ("set", "zset", "list"):
        write(server, f"job:{kind}", large)
    with logged(server):
        result = run(server, *EACH)
        # A hash or a set is read by the bucket, which may hold several.
        assert len(calls_of(server, STAGING)) >= 2 * len(large) + 6
    assert result.totals == {"found": 4, "copied": 4, "ignored": 0}
    for kind in (*PARTED, "list"):
        assert_equal(server, f"job:{kind}", f"step:{kind}")
        assert f"job:{kind} has an element of 50,00" in " ".join(result.document["warnings"])


def test_without_validation_a_big_key_is_copied_and_not_compared(server: Instance) -> None:
    """And of a target that is there it is only said that it exists."""
    write_all(server)
    write(server, "step:hash", {b"another": b"1"}, "hash")
    with logged(server):
        result = run(server, *EACH, "--no-validate")
        assert not calls_of(server, COMPARING)
    assert result.totals == {"found": 5, "copied": 4, "exists": 1, "ignored": 0}
    for kind in ("set", "zset", "list", "string"):
        assert_equal(server, f"job:{kind}", f"step:{kind}")


def write_stream(server: Instance, key: str, entries: int) -> None:
    """Write a stream."""
    pipeline = server.client.pipeline()
    for number in range(1, entries + 1):
        pipeline.xadd(key, {"field": "x" * 40}, id=f"{number}-1")
    pipeline.execute()


def test_a_stream_that_is_too_big_fails_and_is_copied_whole_on_request(server: Instance) -> None:
    """Exit 1 with the size and the way out; the others are copied all the same."""
    write_stream(server, "job:stream", 1000)
    write(server, "job:hash", VALUES["hash"])
    result = run(server, *EACH)
    assert (result.code, result.totals) == (1, {"found": 2, "copied": 1, "failed": 1, "ignored": 0})
    assert result.document["rules"][0]["failed_reasons"] == {"too-big": 1}
    human = run(server, *ANY, *GENTLY).out
    assert "too-big: a stream of 100,000 bytes cannot go in chunks; --allow-long-pause" in human
    assert not server.client.exists("step:stream")
    result = run(server, *EACH, "--allow-long-pause")
    assert (result.code, result.totals) == (0, {"found": 2, "copied": 1, "same": 1, "ignored": 0})
    assert server.client.xrange("step:stream") == server.client.xrange("job:stream")


@pytest.mark.single_server("across slots it goes in pieces")
def test_a_string_is_copied_as_a_block_up_to_a_size(server: Instance) -> None:
    """Above it the pause would be too long, unless that is allowed; compared it is in steps, whatever its size."""
    write(server, "job:string", b"x" * 900_000)
    for options in ((), ("--dry-run",)):
        result = run(server, *EACH, *options)
        assert (result.code, result.document["rules"][0]["failed_reasons"]) == (1, {"too-big": 1})
    assert run(server, *EACH, "--allow-long-pause").totals["copied"] == 1
    assert_equal(server, "job:string", "step:string")
    assert run(server, *EACH).totals["same"] == 1


@pytest.mark.parametrize("big", ["source", "target"])
def test_a_stream_and_a_target_of_another_type_differ_whatever_their_size(server: Instance, big: str) -> None:
    """To see that, nothing has to go in chunks."""
    write_stream(server, "job:stream", 1000 if big == "source" else 3)
    write(server, "step:stream", VALUES["hash"] if big == "target" else {b"one": b"1"}, "hash")
    assert run(server, *EACH).totals == {"found": 1, "differs": 1, "ignored": 0}
    kept = luamigrate("rollback", "--yes", *EACH, url=server.url)
    assert kept.document["rules"][0].get("kept_reasons") == {"differs": 1}


def test_no_call_goes_through_more_than_its_share(server: Instance) -> None:
    """Of 5,000 fields a script takes up a small part, whether it copies, compares, fills or removes."""
    names = [b"field-%d" % number for number in range(5000)]
    write(server, "job:hash", dict.fromkeys(names, b"value"))
    least = 5000 // 250
    with logged(server):
        assert run(server, *EACH).totals["copied"] == 1
        assert len(calls_of(server, STAGING)) >= least
        assert len(calls_of(server, COMPARING)) >= least
        server.client.slowlog_reset()
        luamigrate("rollback", "--yes", *EACH, url=server.url)
        assert len(calls_of(server, COMPARING)) >= least
        write(server, "step:hash", {names[0]: b"value"})
        server.client.slowlog_reset()
        assert luamigrate("run", *EACH, "--on-existing", "fill", url=server.url).totals["filled"] == 1
        assert len(calls_of(server, FILLING)) >= least


@pytest.mark.single_server("a script is called by itself, with keys of two slots")
def test_a_chunk_ends_by_its_weight_where_no_clock_ends_it(server: Instance) -> None:
    """Plenty of time, and still no more than the bytes it was given and one step."""
    write(server, "job:hash", dict.fromkeys(NAMES, b"x" * 100))
    arguments = ("1000000000", "20000", "hash", "0", "10")
    staged: Any = server.client.eval(library.source("chunk/stage"), 2, "job:hash", "staging", *arguments, "60000")
    assert staged[0] != b"0"
    assert 50 < staged[1] < 150
    assert server.client.hlen("staging") == staged[1]
    compared: Any = server.client.eval(
        library.source("chunk/compare"), 2, "job:hash", "staging", *arguments, "different", "5"
    )
    visited = dict(zip(compared[::2], compared[1::2], strict=True))[b"visited"]
    assert 50 < visited < 150


def test_small_keys_beside_a_big_one_are_answered_as_ever(server: Instance) -> None:
    """In the same batch, whatever becomes of the big one; what is of another type is ignored, big or not."""
    write(server, "job:hash", VALUES["hash"])
    write(server, "job:list", VALUES["list"])
    for number in range(50):
        server.client.hset(f"job:{number}", "a", number)
    server.client.hset("step:7", "a", "another")
    result = run(server, *EACH, "--type", "hash")
    assert result.totals == {"found": 51, "copied": 50, "differs": 1, "ignored": 1}
    assert result.document["rules"][0]["ignored"] == {"list": 1}
    assert_equal(server, "job:hash", "step:hash")
