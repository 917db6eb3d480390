"""The shortcut of the scripts for equal pairs: taken behind others of their type, in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from luamigrate.scripts import library
from tests.instances import Instance, expires_at, read_value
from tests.scripts.test_lua import COMPARED, LIMITS, ask, notes_of

pytestmark = pytest.mark.single_server("scripts are called by themselves, with keys of several slots")

PLAIN: dict[str, tuple[Any, ...]] = {
    "hash": ("HSET", "f", "1"),
    "set": ("SADD", "a"),
    "zset": ("ZADD", "1", "a"),
    "list": ("RPUSH", "a"),
    "string": ("SET", "a"),
    "stream": ("XADD", "1-1", "a", "1"),
}
"""How the shortest key of a type is written: the command, and what follows the name."""
LONG = "x" * 100
"""Makes a hashtable of a hash or a set."""
FAR_OFF = 32503680000000
MEMBERS = [f"member-{number}" for number in range(100)]
NUMBERS = [str(7 * number) for number in range(100)]

Write = Callable[[redis.Redis, str], Any]


def plain(client: redis.Redis, kind: str, *names: str) -> None:
    """Write keys of a type that are equal."""
    command, *rest = PLAIN[kind]
    for name in names:
        client.delete(name)
        client.execute_command(command, name, *rest)


def words(answers: list[Any]) -> list[str]:
    """Return the word of each answer."""
    return [(answer if isinstance(answer, bytes) else answer[0]).decode() for answer in answers]


def behind_equal_ones(server: Instance, script: str, kind: str, *arguments: str) -> Any:
    """Return the answer for `s` and `t`, whose pair stands behind two that are equal: the shortcut is open."""
    plain(server.client, kind, "s1", "t1", "s2", "t2")
    *others, answer = ask(server, script, ["s1", "t1", "s2", "t2", "s", "t"], kind, *arguments)
    assert words(others) == ["same", "same"]
    return answer


def fields(*pairs: tuple[str, str], detour: bool = False) -> Write:
    """Return how to write a hash, which a detour makes a hashtable for good."""

    def write(client: redis.Redis, name: str) -> None:
        for field, value in [*pairs, *([("detour", LONG)] if detour else [])]:
            client.hset(name, field, value)
        client.hdel(name, "detour")

    return write


def members(*names: str, detour: str | None = None) -> Write:
    """Return how to write a set, which a detour gives another encoding."""

    def write(client: redis.Redis, name: str) -> None:
        for member in names:
            client.sadd(name, member)
        if detour:
            client.sadd(name, detour)
            client.srem(name, detour)

    return write


def scores(*pairs: tuple[str, str], detour: bool = False) -> Write:
    """Return how to write a sorted set, which a detour makes a skip list."""

    def write(client: redis.Redis, name: str) -> None:
        for member, score in [*pairs, *([(LONG, "1")] if detour else [])]:
            client.execute_command("ZADD", name, score, member)
        client.zrem(name, LONG)

    return write


def command(*words: Any) -> Write:
    """Return how to write a key by one command."""
    return lambda client, name: client.execute_command(words[0], name, *words[1:])


A, B = ("a", "1"), ("b", "2")


@pytest.mark.parametrize(
    ("kind", "source", "target", "word"),
    [
        ("hash", fields(A, B), fields(B, A), "same"),
        ("hash", fields(A, B), fields(A, B, detour=True), "same"),
        ("hash", fields(A, B, detour=True), fields(B, A, detour=True), "same"),
        ("hash", fields(A, B), fields(("a", "2"), ("b", "1")), "differs"),
        ("hash", fields(A, B), fields(("a", "1"), ("b", "3")), "differs"),
        ("hash", fields(A, B), fields(A, B, ("c", "3")), "differs"),
        ("hash", fields(A, B), fields(A), "partial"),
        ("set", members(*MEMBERS), members(*reversed(MEMBERS)), "same"),
        ("set", members(*MEMBERS), members(*MEMBERS, detour=LONG), "same"),
        ("set", members(*NUMBERS), members(*reversed(NUMBERS)), "same"),
        ("set", members(*NUMBERS), members(*NUMBERS, detour="word"), "same"),
        ("set", members(*NUMBERS, detour="word"), members(*NUMBERS), "same"),
        ("set", members("1", "2"), members("1", "3"), "differs"),
        ("set", members("1", "2"), members("1", "02"), "differs"),
        ("set", members(*MEMBERS), members(*MEMBERS[:-1], "member-9x"), "differs"),
        ("set", members(*MEMBERS), members(*MEMBERS[1:], detour=LONG), "partial"),
        ("zset", scores(("a", "1"), ("b", "1")), scores(("b", "1"), ("a", "1")), "same"),
        ("zset", scores(("a", "1")), scores(("a", "1"), detour=True), "same"),
        ("zset", scores(("a", "1")), scores(("a", "2")), "differs"),
        ("zset", scores(("a", "inf")), scores(("a", "inf")), "same"),
        ("zset", scores(("a", "inf")), scores(("a", "-inf")), "differs"),
        ("zset", scores(("a", "-0")), scores(("a", "-0")), "same"),
        ("zset", scores(("a", "1"), ("b", "2")), scores(("a", "2"), ("b", "1")), "differs"),
        ("list", command("RPUSH", "a", "b"), command("LPUSH", "b", "a"), "same"),
        ("list", command("RPUSH", "a", "b"), command("RPUSH", "b", "a"), "differs"),
        ("string", command("SET", "12"), command("APPEND", "12"), "same"),
        ("string", command("SET", "12"), command("SET", "21"), "differs"),
        ("string", command("SET", ""), command("SET", ""), "same"),
        ("string", command("SET", "a"), command("SADD", "a"), "differs"),
        ("set", members("a"), fields(("a", "")), "differs"),
        ("hash", fields(("a", "1")), members("a", "1"), "differs"),
        ("stream", command("XADD", "1-1", "a", "1"), command("XADD", "1-1", "a", "1"), "same"),
        ("stream", command("XADD", "1-1", "a", "1"), command("XADD", "1-1", "a", "2"), "differs"),
    ],
)
def test_behind_equal_pairs_others_are_compared_as_exactly(
    server: Instance, kind: str, source: Write, target: Write, word: str
) -> None:
    """In another order or encoding they are the same, in another value of the same length they are not."""
    source(server.client, "s")
    target(server.client, "t")
    before = read_value(server.client, b"t")
    for script, arguments in (("compare", (*COMPARED, "", "0")), ("copy", COMPARED), ("fill", ("0", "0", "sets"))):
        assert words([behind_equal_ones(server, script, kind, *arguments)]) == [word]
    assert read_value(server.client, b"t") == before


def test_among_hashtables_one_field_makes_the_difference(server: Instance) -> None:
    """Where fields are asked for by name: too many, too few, another value, another type, and none of that."""
    table: Any = {"a": "1", "b": "2", "long": LONG}
    targets: list[tuple[str, Any]] = [
        ("same", table),
        ("same", dict(reversed(table.items()))),
        ("differs", {**table, "c": ""}),
        ("partial", {"a": "1", "long": LONG}),
        ("differs", {"b": "2", "a": "1", "long": LONG[:-1] + "y"}),
        ("differs", {"b": "2", "c": "1", "long": LONG}),
        ("partial", {"a": "1", "b": "2"}),
    ]
    keys, expected = [], []
    for number in range(40):
        word, target = targets[number * number % len(targets) if number % 3 == 2 else 0]
        server.client.hset(f"s{number}", mapping=table)
        server.client.hset(f"t{number}", mapping=target)
        keys += [f"s{number}", f"t{number}"]
        expected.append(word)
    assert words(ask(server, "compare", keys, "hash", *COMPARED, "", "0")) == expected
    assert words(ask(server, "copy", keys, "hash", *COMPARED)) == expected


REFUSING = """
local redis = (function(real)
  local function call(how, name, ...)
    if (%s) and (' %s '):find(' ' .. name .. ' ', 1, true) then return { err = 'ERR not allowed from script' } end
    return how(name, ...)
  end
  return setmetatable({
    pcall = function(...) return call(real.pcall, ...) end,
    call = function(...)
      local reply = call(real.call, ...)
      return type(reply) == 'table' and reply.err and error(reply) or reply
    end,
  }, { __index = real })
end)(redis)
"""


@pytest.mark.parametrize("refused", ["HVALS", "HMGET", "HLEN", "HKEYS HVALS", "HVALS HMGET", "HVALS HMGET HLEN DUMP"])
def test_hashtables_are_compared_exactly_where_some_commands_are_refused(server: Instance, refused: str) -> None:
    """The others tell: a refusal is neither a value nor the lack of one."""
    keys = []
    for number in range(40):
        server.client.hset(f"s{number}", mapping={"a": "1", "long": LONG})
        server.client.hset(f"t{number}", mapping={"long": LONG, "a": "1" if number % 4 else "2"})
        keys += [f"s{number}", f"t{number}"]
    text = REFUSING % ("true", refused) + library.source("copy")
    answers: Any = server.client.eval(text, len(keys), *keys, *LIMITS, "hash", *COMPARED)
    assert words(answers[:-1]) == ["same" if number % 4 else "differs" for number in range(40)]


@pytest.mark.parametrize("kind", [*PLAIN])
def test_expiries_behind_equal_pairs_are_compared(server: Instance, kind: str) -> None:
    """Within a second they are the same; more than that, or where only one expires, they are not."""
    moments = [
        (0, 0),
        (FAR_OFF, FAR_OFF),
        (FAR_OFF, FAR_OFF + 900),
        (FAR_OFF, FAR_OFF + 9000),
        (FAR_OFF, 0),
        (0, FAR_OFF),
    ]
    keys = []
    for number, both in enumerate(moments):
        for name, moment in zip((f"s{number}", f"t{number}"), both, strict=True):
            plain(server.client, kind, name)
            if moment:
                server.client.pexpireat(name, moment)
            keys.append(name)
    # So often that the shortcut is tried once more, after others have gone without it.
    in_turn = [key for number in range(len(moments)) for _ in range(17) for key in keys[: 2 * number + 2][-2:]]
    for script, arguments in (("compare", (*COMPARED, "", "0")), ("copy", COMPARED), ("copy", ("1", "1", "0"))):
        expected = [*["same"] * 3, *["expiry" if arguments[1] == "0" else "same"] * 3]
        assert words(ask(server, script, keys, kind, *arguments)) == expected
        assert words(ask(server, script, in_turn, kind, *arguments)) == [word for word in expected for _ in range(17)]


@pytest.mark.parametrize("kind", [*PLAIN])
def test_what_is_copied_behind_other_copies_is_whole(server: Instance, kind: str) -> None:
    """With its expiry; and what is of another type, not there, too big or there already is told as ever."""
    sources = [f"s{number}" for number in range(12)]
    plain(server.client, kind, *sources)
    server.client.delete("s5")
    other = "list" if kind == "set" else "set"
    server.client.delete("s7")
    plain(server.client, other, "s7", "t9")
    server.client.pexpireat("s10", FAR_OFF)
    plain(server.client, kind, "t11")
    keys = [key for number in range(12) for key in (f"s{number}", f"t{number}")]
    answers = ask(server, "copy", keys, kind, *COMPARED)
    expected = ["copied"] * 12
    expected[5], expected[7], expected[9], expected[11] = "gone", f"ignored {other}", "differs", "same"
    assert words(answers) == expected
    assert notes_of(answers[9]) == {"source_type": kind.encode(), "target_type": other.encode()}
    assert set(server.client.keys("t*")) == {b"t%d" % number for number in range(12) if number not in (5, 7)}
    assert [expires_at(server.client, name) for name in ("t8", "t10")] == [0, FAR_OFF]
    for number in (0, 1, 2, 8, 10):
        assert read_value(server.client, b"t%d" % number) == read_value(server.client, b"s0")


def test_what_fails_behind_copies_costs_none_of_them(server: Instance) -> None:
    """A copy that has been found to be equal stays, whatever becomes of the next pair."""
    plain(server.client, "hash", "s1", "s2", "s3")
    text = REFUSING % ("... == 's3'", "COPY") + library.source("copy")
    answers: Any = server.client.eval(text, 6, "s1", "t1", "s2", "t2", "s3", "t3", *LIMITS, "hash", *COMPARED)
    assert answers[:-1] == [b"copied", b"copied", b"failed ERR not allowed from script"]
    assert sorted(server.client.keys("t*")) == [b"t1", b"t2"]


@pytest.mark.parametrize("kind", [*PLAIN])
@pytest.mark.parametrize(
    "spoiling",
    [
        "real.call('DEL', second) real.call('SET', second, 'another')",
        "real.call('DEL', second) real.call('HSET', second, 'f', '2')",
        "real.call('PEXPIREAT', second, 32503680000000)",
    ],
)
def test_a_copy_that_is_not_equal_is_deleted_behind_others_too(server: Instance, kind: str, spoiling: str) -> None:
    """In value, type or expiry: it fails, and nothing of it is left, where the server would not copy as it should."""
    plain(server.client, kind, "s1", "s2", "s3", "s4")
    server.client.pexpireat("s1", FAR_OFF)
    spoiled = f"""
local redis = (function(real)
  return setmetatable({{ pcall = function(name, first, second, ...)
    local reply = second and real.pcall(name, first, second, ...) or real.pcall(name, first)
    if name == 'COPY' and first == 's3' then {spoiling} end
    return reply
  end }}, {{ __index = real }})
end)(redis)
"""
    keys = [name for number in range(1, 5) for name in (f"s{number}", f"t{number}")]
    answers: Any = server.client.eval(spoiled + library.source("copy"), 8, *keys, *LIMITS, kind, *COMPARED)
    assert [answer.partition(b":")[0] for answer in answers[:-1]] == [
        b"copied", b"copied", b"failed the fresh copy is not the same", b"copied"
    ]  # fmt: skip
    assert sorted(server.client.keys("t*")) == [b"t1", b"t2", b"t4"]


@pytest.mark.parametrize("refused", ["PTTL", "DUMP PTTL", "DUMP GET HGETALL HMGET SDIFF ZRANGE LRANGE XINFO"])
@pytest.mark.parametrize("kind", [*PLAIN])
def test_a_copy_that_cannot_be_compared_is_deleted_behind_others_too(server: Instance, kind: str, refused: str) -> None:
    """It fails in the server's words, and nothing of it is left."""
    plain(server.client, kind, "s1", "s2", "s3")
    server.client.pexpireat("s1", FAR_OFF)
    text = REFUSING % ("... == 't3' or ... == 'STREAM' or (name == 'SDIFF' and ... == 's3')", refused)
    keys = ["s1", "t1", "s2", "t2", "s3", "t3"]
    if kind == "stream" and "XINFO" in refused:
        pytest.skip("a refusal of XINFO cannot be told from that of another key here")
    answers: Any = server.client.eval(text + library.source("copy"), 6, *keys, *LIMITS, kind, *COMPARED)
    assert words(answers[:2]) == ["copied", "copied"]
    assert answers[2] == b"failed ERR not allowed from script"
    assert sorted(server.client.keys("t*")) == [b"t1", b"t2"]


def test_fields_that_expire_are_compared_behind_equal_hashes(server: Instance) -> None:
    """And a hash whose fields have all expired is there for nobody, behind others too."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    server.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    try:
        for name in ("s", "t", "s4"):
            server.client.hset(name, mapping={"a": "1", "b": "2"})
        server.client.execute_command("HPEXPIREAT", "s", FAR_OFF, "FIELDS", 1, "a")
        server.client.execute_command("HPEXPIREAT", "t", FAR_OFF + 9000, "FIELDS", 1, "a")
        answer = behind_equal_ones(server, "copy", "hash", *COMPARED)
        assert answer == [b"expiry", b"expiring_apart", 1, b"expiring_apart_names", [b"a"]]
        server.client.execute_command("HPEXPIRE", "s4", 1, "FIELDS", 2, "a", "b")
        server.client.execute_command("DEBUG", "SLEEP", "0.01")
        answers = ask(server, "copy", ["s1", "t1", "s2", "t2", "s4", "t4"], "hash", *COMPARED)
        assert words(answers) == ["same", "same", "gone"]
        assert server.client.exists("t4") == 0
    finally:
        server.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")


@pytest.mark.parametrize("kind", [*PLAIN])
def test_the_weight_of_equal_pairs_is_kept_to(server: Instance, kind: str) -> None:
    """A script goes through as many as weigh what it may go through, and through the others in the next call."""
    keys = [key for number in range(100, 300) for key in (f"s{number}", f"t{number}")]
    plain(server.client, kind, *keys)
    weight = min(server.client.memory_usage(key) or 0 for key in keys)
    text = library.source("compare")
    limits = ("1000000", str(50 * (2 * weight + 64)))
    answers: Any = server.client.eval(text, len(keys), *keys, *limits, kind, *COMPARED, "", "0")
    assert set(answers[:-1]) == {b"same"}
    # It asks itself once for each sixteenth of that.
    assert 10 < len(answers) - 1 <= 50 + 50 / 16 + 1


def test_equal_pairs_are_not_asked_for_their_types_and_small_sets_not_for_differences(server: Instance) -> None:
    """What that cost was a fifth of a batch of hashes, and most of one of sets."""
    keys = [key for number in range(100) for key in (f"s{number}", f"t{number}")]
    for name in keys[::2]:
        server.client.sadd(name, *NUMBERS)
    for word in (b"copied", b"same"):
        server.client.config_resetstat()
        assert set(ask(server, "copy", keys, "set", *COMPARED)) == {word}
        called: Any = server.client.info("commandstats")
        assert called["cmdstat_type"]["calls"] < 5
        assert "cmdstat_sdiff" not in called


def test_where_types_alternate_no_payload_is_made_in_vain(server: Instance) -> None:
    """A rule for any type does not expect a hash behind each string, nor a string behind each hash."""
    keys = [key for number in range(100) for key in (f"s{number}", f"t{number}")]
    for number in range(100):
        plain(server.client, "string" if number % 2 else "hash", f"s{number}", f"t{number}")
    server.client.config_resetstat()
    assert set(ask(server, "compare", keys, "any", *COMPARED, "", "0")) == {b"same"}
    called: Any = server.client.info("commandstats")
    assert called["cmdstat_dump"]["calls"] < 110
