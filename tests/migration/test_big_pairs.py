"""Big keys whose target is there: what is said of the two, and what a fill or a rollback makes of them."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Result, luamigrate, run
from tests.instances import Instance, assert_kept, assert_same_expiry, read_expiry, read_value, snapshot
from tests.migration.test_big import (
    ANY,
    EACH,
    FAR,
    GENTLY,
    NAMES,
    PARTED,
    VALUES,
    expire_fields,
    field_expiries,
    has_staging_keys,
    without,
    write,
    write_all,
)
from tests.migration.test_run import assert_equal


def reported(server: Instance, file: Path, *arguments: str) -> tuple[Result, dict[str, dict[str, Any]]]:
    """Run a command with a report; return its lines by source too."""
    result = luamigrate(*arguments, "--report", str(file), url=server.url)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return result, {line["source"]: line for line in lines}


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
        # Names have every byte, a star too: only what stands before them tells a rule from a pair.
        lines = (line.partition(" (")[0] for line in out.splitlines())
        return sorted(line for line in lines if " -> step:" in line and "*" not in line)

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
