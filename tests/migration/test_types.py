"""Keys of every type: copied, compared, looked at and rolled back like hashes."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from luamigrate.model.rules import TYPES
from tests.conftest import luamigrate, run
from tests.instances import Instance
from tests.migration.test_run import assert_equal
from tests.scripts.test_lua import stream

KINDS = [kind for kind in TYPES if kind != "any"]
UNITS = {"hash": "fields", "set": "members", "zset": "members", "list": "items", "string": "bytes", "stream": "entries"}


def write(client: redis.Redis, kind: str, name: str, size: int) -> None:
    """Write a key of a type and size, that expires."""
    numbers = [f"{number:05}" for number in range(size)]
    match kind:
        case "hash":
            client.hset(name, mapping=dict.fromkeys(numbers, "x"))
        case "set":
            client.sadd(name, *numbers)
        case "zset":
            client.zadd(name, {number: float(number) / 3 for number in numbers})
        case "list":
            client.rpush(name, *numbers)
        case "string":
            client.set(name, "x" * size)
        case "stream":
            stream(client, name)
            pipeline = client.pipeline(transaction=False)
            for number in numbers[2:]:
                pipeline.xadd(name, {"n": number})
            pipeline.execute()
    client.pexpireat(name, 32503680000000)


@pytest.fixture
def every_type(server: Instance) -> Instance:
    """Fill a server with a small and a large key of each type."""
    for kind in KINDS:
        write(server.client, kind, f"a:{kind}:small", 3)
        write(server.client, kind, f"a:{kind}:large", 3000)
    return server


def test_a_rule_without_a_type_copies_whatever_there_is(every_type: Instance) -> None:
    """Values, groups of streams and expiries come along; nothing is ignored."""
    result = run(every_type, "--map", "a:*=b:*", "--json")
    assert (result.code, result.totals) == (0, {"found": 12, "copied": 12, "ignored": 0})
    assert result.document["rules"][0]["type"] == "any"
    for kind in KINDS:
        for size in ("small", "large"):
            assert_equal(every_type, f"a:{kind}:{size}", f"b:{kind}:{size}")
    assert every_type.client.xinfo_groups("b:stream:small") == every_type.client.xinfo_groups("a:stream:small")
    again = run(every_type, "--map", "a:*=b:*", "--json")
    assert again.totals == {"found": 12, "same": 12, "ignored": 0}
    verified = luamigrate("verify", "--map", "a:*=b:*", "--extra", "--json", url=every_type.url)
    assert (verified.code, verified.totals) == (0, {"found": 12, "same": 12, "ignored": 0})


@pytest.mark.parametrize("kind", KINDS)
def test_a_rule_with_a_type_copies_that_type_alone(every_type: Instance, kind: str) -> None:
    """The others are counted by theirs; a dry run tells sizes in the type's own unit."""
    options = ("--map", "a:*=b:*", "--type", kind)
    dry = run(every_type, "--dry-run", *options).out
    assert f"found 2: 2 would be copied; ignored {', '.join(others(kind))}; 3,003 {UNITS[kind]}" in dry
    result = run(every_type, *options, "--json")
    assert result.code == 0
    assert result.totals == {"found": 2, "copied": 2, "ignored": 10}
    assert result.document["rules"][0]["ignored"] == {other: 2 for other in KINDS if other != kind}
    rolled_back = luamigrate("rollback", "--yes", *options, "--json", url=every_type.url)
    assert (rolled_back.code, rolled_back.totals) == (0, {"found": 2, "removed": 2, "ignored": 10})


def others(kind: str) -> list[str]:
    """Say what a rule of this type ignores."""
    return sorted(f"2 of type {other}" for other in KINDS if other != kind)


CHANGES: dict[str, Any] = {
    "hash": lambda client, key: client.hset(key, "00000", "y"),
    "set": lambda client, key: client.sadd(key, "more"),
    "zset": lambda client, key: client.zincrby(key, 1, "00000"),
    "list": lambda client, key: client.lset(key, 1, "y"),
    "string": lambda client, key: client.setrange(key, 1, "y"),
    "stream": lambda client, key: client.xadd(key, {"a": "1"}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["small", "large"])
def test_any_change_of_a_target_is_found_and_kept(every_type: Instance, kind: str, size: str) -> None:
    """Wherever in the value it is."""
    options = ("--map", "a:*=b:*")
    run(every_type, *options)
    CHANGES[kind](every_type.client, f"b:{kind}:{size}")
    expected = {"found": 12, "same": 11, "differs": 1, "ignored": 0}
    assert run(every_type, *options, "--json").totals == expected
    assert luamigrate("verify", *options, "--json", url=every_type.url).totals == expected
    rolled_back = luamigrate("rollback", "--yes", *options, "--json", url=every_type.url)
    assert rolled_back.totals == {"found": 12, "removed": 11, "kept": 1, "ignored": 0}
    assert every_type.client.keys("b:*") == [f"b:{kind}:{size}".encode()]
