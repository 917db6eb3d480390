"""Big keys, taken apart into chunks, while nobody else writes: what is said of them and what is made of them."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luamigrate.scripts import library
from tests.conftest import Result, luamigrate, run
from tests.instances import Instance, assert_kept, assert_same_expiry, expires_at, read_expiry, read_value, snapshot
from tests.test_run import assert_equal

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


def reported(server: Instance, file: Path, *arguments: str) -> tuple[Result, dict[str, dict[str, Any]]]:
    """Run a command with a report; return its lines by source too."""
    result = luamigrate(*arguments, "--report", str(file), url=server.url)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return result, {line["source"]: line for line in lines}


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


PAIRS: dict[str, tuple[str, Any, str, Any]] = {
    "part": ("hash", VALUES["hash"], "hash", without("hash", NAMES[:7])),
    "value": ("hash", VALUES["hash"], "hash", VALUES["hash"] | {NAMES[5]: b"another"}),
    "more": ("hash", VALUES["hash"], "hash", VALUES["hash"] | {b"more": b"1"}),
    "both": ("hash", VALUES["hash"], "hash", without("hash", NAMES[:2]) | {b"more": b"1", NAMES[9]: b"another"}),
    "type": ("hash", VALUES["hash"], "set", {b"one"}),
    "no-target": ("hash", VALUES["hash"], "", None),
    "small-source": ("hash", {NAMES[0]: b"v" + NAMES[0]}, "hash", VALUES["hash"]),
    "small-list": ("list", [b"one"], "hash", VALUES["hash"]),
    "set-part": ("set", VALUES["set"], "set", without("set", NAMES[:3])),
    "set-more": ("set", VALUES["set"], "set", VALUES["set"] | {b"more"}),
    "zset-part": ("zset", VALUES["zset"], "zset", without("zset", NAMES[:8])),
    "zset-score": ("zset", VALUES["zset"], "zset", VALUES["zset"] | {NAMES[0]: 1e-9}),
    "list-item": ("list", VALUES["list"], "list", [*NAMES[:77], b"another", *VALUES["list"][78:]]),
    "list-shorter": ("list", VALUES["list"], "list", VALUES["list"][:-1]),
    "list-longer": ("list", VALUES["list"], "list", [*VALUES["list"], b"more"]),
    "string": ("string", VALUES["string"], "string", VALUES["string"][:-1] + b"x"),
    "string-longer": ("string", VALUES["string"], "string", VALUES["string"] + b"x"),
    "string-type": ("string", VALUES["string"], "hash", {b"one": b"1"}),
}
WORDS = {name: "partial" if "part" in name else "differs" for name in PAIRS} | {"no-target": "missing"}


def write_pairs(server: Instance) -> None:
    """Write a pair for each way to differ."""
    for name, (kind, content, target_kind, target_content) in PAIRS.items():
        write(server, f"job:{name}", content, kind)
        write(server, f"step:{name}", target_content, target_kind)


def without_names(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line of the report with how many names it has instead of which: the first come in any order."""
    return {what: len(value) if what.endswith("_names") else value for what, value in line.items()}


def test_of_each_pair_the_same_is_reported_as_if_it_were_taken_whole(server: Instance, tmp_path: Path) -> None:
    """Words, counts, names, sizes and the first difference; and nothing is written."""
    write_pairs(server)
    digest = server.digest()
    whole, expected = reported(server, tmp_path / "whole", "verify", *ANY, "--json", "--max-pause", "500")
    result, lines = reported(server, tmp_path / "chunks", "verify", *EACH)
    assert server.digest() == digest
    assert (result.code, result.totals) == (whole.code, whole.totals)
    assert {name.removeprefix("job:"): line["word"] for name, line in lines.items()} == WORDS
    for name, line in lines.items():
        assert without_names(line) == without_names(expected[name])
    assert lines["job:both"]["missing"] == 2
    assert set(lines["job:both"]["missing_names"]) == {f"{number}-\\x00\\xff\\x0d\\x0a" for number in range(2)}
    assert lines["job:both"]["additional_names"] == ["more"]
    assert lines["job:both"]["contradicting"] == 1
    assert lines["job:list-item"]["first_difference"] == 77


def test_the_screen_tells_of_a_big_pair_what_it_tells_of_a_small_one(server: Instance) -> None:
    """Line by line, but for the names, whose order is the server's."""
    write_pairs(server)

    def told(*options: str) -> list[str]:
        out = luamigrate("verify", *ANY, *options, "--verbose", url=server.url).out
        return sorted(line.partition(" (")[0] for line in out.splitlines() if " -> step:" in line and "*" not in line)

    assert told(*GENTLY) == told("--max-pause", "500")


def test_a_target_that_expires_at_another_time_is_told_apart(server: Instance, tmp_path: Path) -> None:
    """By more than a second; --ignore-expiry takes it for the same."""
    write_all(server)
    assert run(server, *EACH).code == 0
    server.client.pexpire("job:hash", 100_000)
    server.client.pexpire("step:hash", 100_500)
    server.client.pexpire("job:set", 100_000)
    server.client.pexpire("step:set", 102_000)
    server.client.pexpire("step:string", 50_000)
    result, lines = reported(server, tmp_path / "report", "verify", *EACH)
    assert (result.code, result.totals) == (3, {"found": 5, "same": 3, "expiry": 2, "ignored": 0})
    assert 99_000 < lines["job:set"]["source_ttl_ms"] < lines["job:set"]["target_ttl_ms"] - 1900
    assert lines["job:string"]["source_ttl_ms"] is None
    assert luamigrate("verify", *EACH, "--ignore-expiry", url=server.url).totals["same"] == 5


def test_a_dry_run_says_what_a_run_will_do_and_writes_nothing(server: Instance) -> None:
    """Missing, fillable, and how many fields there are."""
    for number in range(3):
        write(server, f"job:{number}", VALUES["hash"], "hash")
    write(server, "step:0", without("hash", NAMES[:7]), "hash")
    write(server, "step:1", VALUES["hash"], "hash")
    digest = server.digest()
    options = (*ANY, "--type", "hash", "--on-existing", "fill", "--dry-run")
    result = luamigrate("run", *options, *GENTLY, "--json", url=server.url)
    expected = {"found": 3, "missing": 1, "partial": 1, "same": 1, "fillable": 1, "ignored": 0}
    assert (result.code, result.totals) == (0, expected)
    out = luamigrate("run", *options, *GENTLY, url=server.url).out
    assert server.digest() == digest
    assert "would copy 1 key and fill 1 target" in out
    size = len(VALUES["hash"])
    assert f"{3 * size:,} fields, {2 * size - 7:,} in the target" in out


def test_a_verify_reads_and_the_server_holds_it_to_that(server: Instance) -> None:
    """Where there is EVALSHA_RO, big pairs are only ever looked at through it."""
    if server.version < (7, 0):
        pytest.skip("this server has no EVALSHA_RO")
    write_pairs(server)
    server.client.config_resetstat()
    luamigrate("verify", *EACH, url=server.url)
    calls: Any = server.client.info("commandstats")
    assert "cmdstat_evalsha" not in calls
    assert calls["cmdstat_evalsha_ro"]["calls"] > len(PAIRS)


def filled(server: Instance, *options: str) -> Result:
    """Fill and hold it to its promise: no source has changed, and no target has lost anything."""
    before = snapshot(server.client)
    result = luamigrate("run", *EACH, "--on-existing", "fill", *options, url=server.url)
    after = snapshot(server.client)
    assert_kept({key: held for key, held in before.items() if key.startswith(b"job")}, after)
    for key, ((kind, content), _) in before.items():
        if kind in PARTED:
            now: Any = after[key][0][1]
            assert content <= now if kind == "set" else content.items() <= now.items()
    assert not has_staging_keys(server)
    return result


def test_big_targets_that_lack_something_are_filled(server: Instance) -> None:
    """Hashes and sets; sorted sets on request only; then they are the same."""
    for kind in PARTED:
        write(server, f"job:{kind}", VALUES[kind])
        write(server, f"step:{kind}", without(kind, NAMES[:400]))
    result = filled(server)
    assert (result.code, result.totals) == (3, {"found": 3, "filled": 2, "partial": 1, "ignored": 0})
    for kind in ("hash", "set"):
        assert_equal(server, f"job:{kind}", f"step:{kind}")
    assert read_value(server.client, b"step:zset")[1].keys() == without("zset", NAMES[:400]).keys()
    assert filled(server, "--fill-queues").totals == {"found": 3, "filled": 1, "same": 2, "ignored": 0}
    assert_equal(server, "job:zset", "step:zset")


def test_a_fill_copies_what_has_no_target_and_touches_nothing_that_contradicts(server: Instance) -> None:
    """Nor what has more, is of another type or has no parts."""
    write_pairs(server)
    before = snapshot(server.client)
    words = Counter(WORDS.values())
    result = filled(server, "--fill-queues")
    expected = {"copied": words["missing"], "filled": words["partial"], "differs": words["differs"]}
    assert result.totals == {"found": len(PAIRS), **expected, "ignored": 0}
    left = {name.encode() for name, word in WORDS.items() if word == "differs"}
    assert_kept({key: held for key, held in before.items() if key.partition(b":")[2] in left}, snapshot(server.client))


def test_a_target_that_expires_at_another_time_is_not_filled(server: Instance) -> None:
    """It differs in more than what it lacks; --ignore-expiry accepts that, and its expiry stays."""
    write(server, "job:hash", VALUES["hash"])
    write(server, "step:hash", without("hash", NAMES[:7]))
    server.client.expire("step:hash", 1000)
    assert filled(server).totals == {"found": 1, "partial": 1, "ignored": 0}
    assert server.client.hlen("step:hash") == len(VALUES["hash"]) - 7
    assert filled(server, "--ignore-expiry").totals == {"found": 1, "filled": 1, "ignored": 0}
    assert read_value(server.client, b"step:hash") == read_value(server.client, b"job:hash")
    assert 990 < server.client.ttl("step:hash") <= 1000


def test_expiries_of_filled_fields_come_along(server: Instance) -> None:
    """And where one that was there expires at another time, nothing is filled."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    write(server, "job:hash", VALUES["hash"])
    write(server, "step:hash", without("hash", NAMES[:400]))
    expire_fields(server, "job:hash", *NAMES[::2])
    assert filled(server).totals["partial"] == 1
    expire_fields(server, "step:hash", *NAMES[400::2])
    assert filled(server).totals["filled"] == 1
    assert field_expiries(server, "step:hash") == field_expiries(server, "job:hash")


def test_a_rollback_removes_what_equals_its_source_and_nothing_else_changes(server: Instance) -> None:
    """After run and rollback the whole key space is what it was, by the server's own digest."""
    write_all(server)
    server.client.expire("job:hash", 1000)
    if server.has_field_expiries:
        expire_fields(server, "job:hash", *NAMES[:9])
    digest = server.digest()
    assert run(server, *EACH).totals["copied"] == 5
    dry = luamigrate("rollback", "--dry-run", *EACH, url=server.url)
    assert (dry.code, dry.totals) == (0, {"found": 5, "same": 5, "ignored": 0})
    assert server.client.dbsize() == 10
    server.client.config_resetstat()
    result = luamigrate("rollback", "--yes", *EACH, url=server.url)
    calls = server.client.info("commandstats")
    assert (result.code, result.totals) == (0, {"found": 5, "removed": 5, "ignored": 0})
    assert server.digest() == digest
    assert "cmdstat_del" not in calls, "DEL would hold the server"


def test_a_rollback_keeps_what_is_not_the_same(server: Instance, tmp_path: Path) -> None:
    """With the reason; the whole key space is what it was."""
    write_pairs(server)
    digest = server.digest()
    result, lines = reported(server, tmp_path / "report", "rollback", "--yes", *EACH)
    words = Counter(WORDS.values())
    kept = words["partial"] + words["differs"]
    assert (result.code, result.totals) == (3, {"found": kept + 1, "kept": kept, "missing": 1, "ignored": 0})
    assert server.digest() == digest
    reasons = {name.removeprefix("job:"): line["reason"] for name, line in lines.items()}
    assert reasons == {name: word for name, word in WORDS.items() if word != "missing"}


def test_a_rollback_keeps_what_lives_longer_than_its_source(server: Instance) -> None:
    """However little: a key, or a field of it."""
    for number in range(5):
        write(server, f"job:{number}", VALUES["hash"], "hash")
        server.client.pexpireat(f"job:{number}", FAR)
        server.client.copy(f"job:{number}", f"step:{number}")
    server.client.pexpireat("step:1", FAR + 1)
    server.client.pexpireat("step:2", FAR - 1)
    server.client.persist("step:3")
    server.client.persist("job:4")
    kept = 2
    if server.has_field_expiries:
        expire_fields(server, "job:4", NAMES[8])
        kept = 3
    result = luamigrate("rollback", "--yes", *EACH, url=server.url)
    assert (result.code, result.totals) == (3, {"found": 5, "removed": 5 - kept, "kept": kept, "ignored": 0})
    assert result.document["rules"][0]["kept_reasons"] == {"expiry": kept}
    assert server.client.exists("step:1", "step:3") == 2


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
    assert "too-big: a stream of 100,000 bytes cannot be taken apart; --allow-long-pause" in human
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
    """To see that, nothing has to be taken apart."""
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


kinds = st.sampled_from(sorted(VALUES))
relations = st.sampled_from(["none", "equal", "part", "more", "other", "type"])
expiries = st.sampled_from([None, None, 1_000_000, 1_000_300, 2_000_000])


@st.composite
def big_pairs(draw: st.DrawFn) -> tuple[str, Any, int | None, str, Any, int | None]:
    """Draw a big source and a target in some relation to it, each with its type and expiry."""
    kind, how, chance = draw(kinds), draw(relations), random.Random(draw(st.integers(0, 2**32)))
    names = [b"%d" % number + b"x" * chance.randrange(90) for number in range(chance.randrange(450, 900))]
    by_kind = {
        "hash": {name: chance.randbytes(20) for name in names},
        "set": set(names),
        "zset": {name: chance.uniform(-1e6, 1e6) for name in names},
        "list": names,
        "string": b"".join(names) * 3,
    }
    content: Any = by_kind[kind]
    odd, kept = chance.choice(names), {name for name in names if chance.random() < 0.9} or set(names)
    target_kind, target = kind, content
    if how == "none":
        target_kind, target = "", None
    elif how == "type":
        target_kind = chance.choice([other for other in by_kind if other != kind])
        target = by_kind[target_kind]
    elif how == "equal" or kind in ("list", "string"):
        target = content if how == "equal" else content[: len(content) * 9 // 10]
    elif kind == "set":
        target = {"part": content & kept, "more": content | {b"more"}, "other": content - {odd} | {b"more"}}[how]
    else:
        part = {name: content[name] for name in content if name in kept}
        value: Any = b"1" if kind == "hash" else 1.0
        target = {"part": part, "more": content | {b"more": value}, "other": part | {odd: value}}[how]
    return kind, content, draw(expiries), target_kind, target, draw(expiries)


def expected_word(pair: tuple[str, Any, int | None, str, Any, int | None]) -> str:
    """Compare the two in plain Python."""
    kind, content, expiry, target_kind, target, target_expiry = pair
    if target_kind == kind and target == content:
        together = expiry == target_expiry or bool(expiry and target_expiry and abs(expiry - target_expiry) <= 1000)
        return "same" if together else "expiry"
    if not target_kind:
        return "missing"
    if target_kind != kind or kind not in PARTED:
        return "differs"
    part = target < content if kind == "set" else target.items() < content.items()
    return "partial" if part else "differs"


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(pair=big_pairs())
def test_the_word_is_that_of_a_plain_comparison(
    server: Instance, pair: tuple[str, Any, int | None, str, Any, int | None]
) -> None:
    """For verify and for run, whatever the two hold; a target that was there stays, one that was not is a copy."""
    server.client.flushall()
    kind, content, expiry, target_kind, target, target_expiry = pair
    now = int(time.time() * 1000)
    write(server, "job:1", content, kind)
    write(server, "step:1", target, target_kind)
    for key, left in (("job:1", expiry), ("step:1", target_expiry)):
        if left:
            server.client.pexpireat(key, now + left)
    word = expected_word(pair)
    verified = luamigrate("verify", *EACH, "--settle", "0", url=server.url)
    assert verified.totals == {"found": 1, word: 1, "ignored": 0}
    done = run(server, *EACH, "--settle", "0")
    assert done.totals == {"found": 1, "copied" if word == "missing" else word: 1, "ignored": 0}
    if word == "missing":
        assert server.digest_value("step:1") == server.digest_value("job:1")
        assert_same_expiry(read_expiry(server.client, b"step:1"), now + expiry if expiry else None, b"step:1")
    assert not has_staging_keys(server)
