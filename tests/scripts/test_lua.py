"""The scripts alone, called as anybody could call them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import redis

from luamigrate.scripts import library
from tests.instances import Instance, expires_at

pytestmark = pytest.mark.single_server("scripts are called by themselves, with keys of several slots")

COMPARED = ("1", "0", "0")


LIMITS = ("1000000", "100000000")
"""A second, and a hundred megabytes: as good as none."""


def ask(server: Instance, script: str, keys: list[str], *arguments: str) -> Any:
    """Run a script on keys, all of them declared, and return its answers without the time taken."""
    *answers, microseconds = call(server, script, keys, *LIMITS, *arguments)
    assert microseconds >= 0
    return answers


def call(server: Instance, script: str, keys: list[str], *arguments: str) -> Any:
    """Run a script on keys, all of them declared."""
    return server.client.eval(library.source(script), len(keys), *keys, *arguments)


JUMPING_CLOCK = """
local milliseconds_gone = 0
local redis = {
  pcall = function() return { err = 'ERR unknown command' } end,
  call = function(command)
    milliseconds_gone = milliseconds_gone + 1
    return command == 'TIME' and { milliseconds_gone, 0 } or 5
  end,
}
"""


def test_a_clock_that_never_stands_still_is_not_read_for_ever(any_server: Instance) -> None:
    """As Redis 6.2 would have to be asked, if its clock were moved all the time."""
    expiry = f"local expiry = (function() {library.source('lib/expiry')} end)() "
    with pytest.raises(redis.ResponseError, match="does not stand still"):
        any_server.client.eval(f"{JUMPING_CLOCK}{expiry}return expiry.at('job:1')", 0)


def test_one_keys_trouble_does_not_cost_the_batch_its_answers(server: Instance) -> None:
    """A pair that the ACL forbids answers `failed` in the server's words, those around it as ever."""
    client = server.client
    client.hset("a:1", "f", "1")
    client.hset("b:1", "f", "1")
    client.acl_setuser("careful", enabled=True, nopass=True, categories=["+@all"], keys=["a:*", "x:*"], reset=True)
    careful = redis.Redis.from_url(server.url, username="careful", password="x", protocol=2)
    try:
        # Undeclared, so that it is the script that meets the refusal.
        text = library.source("copy").replace("KEYS", "KEYS_")
        text = "local KEYS_ = { 'a:1', 'x:1', 'b:1', 'x:2', 'a:1', 'x:3', 'a:0', 'x:0' }\n" + text
        answers: Any = careful.eval(text, 0, *LIMITS, "hash", *COMPARED)
    finally:
        careful.close()
        client.acl_deluser("careful")
    assert [answers[0], *answers[2:-1]] == [b"copied", b"copied", b"gone"]
    assert answers[1].startswith(b"failed ")
    assert client.exists("x:1", "x:2", "x:3") == 2


@pytest.mark.parametrize(
    ("kind", "source", "target", "word", "counts"),
    [
        ("hash", {"a": "1", "b": "2"}, {"b": "2", "a": "1"}, "same", ""),
        ("hash", {"a": "1", "b": "2"}, {"b": "2"}, "partial", "missing a"),
        ("hash", {"a": "1", "b": "2"}, {"b": "1", "a": "2"}, "differs", "contradicting a b"),
        ("hash", {"a": "1"}, {"a": "1", "b": "2"}, "differs", "additional b"),
        ("hash", {"a": "01"}, {"a": "1"}, "differs", "contradicting a"),
        ("hash", {"a": "1", "b": "1"}, {"a": "1", "c": "1"}, "differs", "missing b, additional c"),
        ("set", ["a", "b"], ["b", "a"], "same", ""),
        ("set", ["1", "2"], ["2"], "partial", "missing 1"),
        ("set", ["1"], ["1", "2"], "differs", "additional 2"),
        ("set", ["1", "2"], ["1", "3"], "differs", "missing 2, additional 3"),
        ("zset", {"a": 1, "b": 2}, {"b": 2, "a": 1}, "same", ""),
        ("zset", {"a": 1, "b": 2}, {"b": 2}, "partial", "missing a"),
        ("zset", {"a": 1, "b": 2}, {"a": 2, "b": 1}, "differs", "contradicting a b"),
        ("zset", {"a": 0.1 + 0.2}, {"a": 0.3}, "differs", "contradicting a"),
        ("zset", {"1": 2}, {"2": 1}, "differs", "missing 1, additional 2"),
    ],
)
@pytest.mark.parametrize("wide", [False, True], ids=["compact", "wide"])
def test_elements_are_compared_exactly(
    server: Instance, kind: str, source: Any, target: Any, word: str, counts: str, wide: bool
) -> None:
    """In the compact encodings, and in those of large keys; what differs is counted and named."""
    for key, content in (("s", source), ("t", target)):
        write(server.client, kind, key, content, padding=600 if wide else 0)
    expected = Counted(word, counts)
    (answer,) = ask(server, "compare", ["s", "t"], kind, *COMPARED, "", "1")
    sizes = tuple(len(content) + (600 if wide else 0) for content in (source, target))
    if word == "same":
        assert answer == f"same {sizes[0]} {sizes[1]}".encode()
    else:
        notes = notes_of(answer)
        assert (notes.pop("source_size"), notes.pop("target_size")) == sizes
        assert Counted.of(answer[0], notes) == expected
    for script, arguments in (("copy", COMPARED), ("fill", ("0", "0", "sets"))):
        (answer,) = ask(server, script, ["s", "t"], kind, *arguments)
        assert (answer if isinstance(answer, bytes) else answer[0]) == word.encode()


@dataclass(frozen=True)
class Counted:
    """A word and what differs, as `missing a b, additional c`."""

    word: str
    differing: str

    @classmethod
    def of(cls, word: bytes, notes: dict[str, Any]) -> Counted:
        """Read a script's notes; a count is that of its names."""
        parts = []
        for name in ("missing", "additional", "contradicting"):
            if notes[name]:
                names = sorted(each.decode() for each in notes[f"{name}_names"])
                assert notes[name] == len(names)
                parts.append(" ".join((name, *names)))
        return cls(word.decode(), ", ".join(parts))


def notes_of(answer: list[Any]) -> dict[str, Any]:
    """Return the notes of an answer that has some, but for the digest."""
    notes = {name.decode(): value for name, value in zip(answer[1::2], answer[2::2], strict=True)}
    notes.pop("digest", None)
    return notes


def test_only_the_first_names_are_told_and_long_ones_are_cut(server: Instance) -> None:
    """However many differ, and however long they are, an answer stays small."""
    server.client.sadd("s", *(f"{number:0300}" for number in range(1000)))
    server.client.sadd("t", "x")
    (answer,) = ask(server, "compare", ["s", "t"], "set", *COMPARED)
    notes = notes_of(answer)
    assert (notes["missing"], notes["additional"]) == (1000, 1)
    assert [len(name) for name in notes["missing_names"]] == [200] * 5


def test_values_are_told_only_when_asked_for(server: Instance) -> None:
    """Name, the source's value and the target's; nothing where there is none."""
    server.client.hset("s", mapping={"a": "1", "b": "2", "c": "3"})
    server.client.hset("t", mapping={"a": "1", "b": "9", "d": "x" * 999})
    (without,) = ask(server, "compare", ["s", "t"], "hash", "1", "0", "0")
    (shown,) = ask(server, "compare", ["s", "t"], "hash", "1", "0", "1")
    assert "values" not in notes_of(without)
    expected = [[b"c", b"3", None], [b"d", None, b"x" * 200], [b"b", b"2", b"9"]]
    assert notes_of(shown)["values"] == expected
    server.client.zadd("zs", {"a": 1.5})
    server.client.zadd("zt", {"a": 2})
    (shown,) = ask(server, "compare", ["zs", "zt"], "zset", "1", "0", "1")
    assert notes_of(shown)["values"] == [[b"a", b"1.5", b"2"]]


@pytest.mark.parametrize(
    ("kind", "source", "target", "notes"),
    [
        ("string", "abc", "abc", None),
        ("string", "1", "01", {"source_size": 1, "target_size": 2}),
        ("string", "a\0b", "a\0c", {"source_size": 3, "target_size": 3}),
        ("list", ["a", "b"], ["a", "b"], None),
        ("list", ["a", "b"], ["b", "a"], {"source_size": 2, "target_size": 2, "first_difference": 0}),
        ("list", ["a", "b"], ["a"], {"source_size": 2, "target_size": 1, "first_difference": 1}),
        ("list", ["a"], ["a", "b"], {"source_size": 1, "target_size": 2, "first_difference": 1}),
        ("list", ["x"] * 9000 + ["a"], ["x"] * 9000 + ["b"], {"first_difference": 9000}),
    ],
)
@pytest.mark.parametrize("wanted", ["kind", "any"])
def test_strings_and_lists_are_compared_exactly(
    server: Instance, kind: str, source: Any, target: Any, notes: dict[str, int] | None, wanted: str
) -> None:
    """Whether the rule asks for their type or for any."""
    for key, content in (("s", source), ("t", target)):
        if kind == "string":
            server.client.set(key, content)
        else:
            server.client.rpush(key, *content)
    (answer,) = ask(server, "copy", ["s", "t"], kind if wanted == "kind" else "any", *COMPARED)
    if notes is None:
        assert answer == b"same"
    else:
        assert answer[0] == b"differs"
        assert notes.items() <= notes_of(answer).items()


def stream(client: redis.Redis, key: str) -> None:
    """Write a stream with two entries, a group that has read one of them, and a deleted third."""
    for number in (1, 2, 3):
        client.xadd(key, {"field": f"value-{number}"}, id=f"{number}-1")
    client.xdel(key, "3-1")
    client.xgroup_create(key, "group", id="0")
    client.xreadgroup("group", "worker", {key: ">"}, count=1)


def changed(client: redis.Redis, part: str) -> None:
    """Change one part of the stream `t`."""
    match part:
        case "entries":
            client.xdel("t", "1-1")
        case "last id":
            client.xadd("t", {"a": "b"}, id="9-9")
            client.xdel("t", "9-9")
        case "acknowledged":
            client.xack("t", "group", "1-1")
        case "delivered":
            client.xreadgroup("group", "worker", {"t": ">"}, count=1)
        case "claimed":
            client.xclaim("t", "group", "other", 0, ["1-1"])
        case "group":
            client.xgroup_create("t", "another", id="0")
        case "consumer":
            client.xgroup_createconsumer("t", "group", "idle")


@pytest.mark.parametrize(
    ("part", "differing"),
    [
        ("nothing", []),
        ("entries", [b"entries"]),
        ("last id", [b"last_id"]),
        ("acknowledged", [b"groups"]),
        ("delivered", [b"groups"]),
        ("claimed", [b"groups"]),
        ("group", [b"groups"]),
        ("consumer", [b"groups"]),
    ],
)
def test_streams_are_compared_with_their_groups(server: Instance, part: str, differing: list[bytes]) -> None:
    """Entries, the last id, and groups with what is pending in them: each alone makes them differ."""
    stream(server.client, "s")
    server.client.copy("s", "t")
    changed(server.client, part)
    (answer,) = ask(server, "copy", ["s", "t"], "stream", *COMPARED)
    if differing:
        assert answer[0] == b"differs"
        assert notes_of(answer)["differing"] == differing
    else:
        assert answer == b"same"


def test_streams_of_another_layout_are_the_same(server: Instance) -> None:
    """Their payloads differ, their entries do not."""
    client = server.client
    for key, size in (("s", 2), ("t", 100)):
        client.config_set("stream-node-max-entries", size)
        for number in range(50):
            client.xadd(key, {"field": number}, id=f"{number + 1}-1")
        client.xgroup_create(key, "group", id="0")
    client.config_set("stream-node-max-entries", 100)
    assert client.dump("s") != client.dump("t")
    assert ask(server, "copy", ["s", "t"], "any", *COMPARED) == [b"same"]


def vectors(server: Instance, key: str, elements: int) -> None:
    """Write a vector set; skip the test where there is no such type."""
    try:
        for number in range(elements):
            values = [(number * prime) % 19 / 19 for prime in (2, 3, 5, 7)]
            attributes = ("SETATTR", f'{{"n":{number}}}') if number % 2 else ()
            server.client.execute_command("VADD", key, "VALUES", 4, *values, f"element-{number}", *attributes)
    except redis.RedisError:
        pytest.skip("this server has no type of a module")


@pytest.mark.parametrize("elements", [1, 2, 30])
def test_a_type_that_copy_does_not_know_is_copied_with_its_expiry(server: Instance, elements: int) -> None:
    """A vector set, by its payload; where there is a target nothing is written; the copy is the same, both ways."""
    vectors(server, "s", elements)
    server.client.pexpireat("s", 32503680000000)
    assert ask(server, "copy", ["s", "t"], "any", *COMPARED) == [b"copied"]
    assert expires_at(server.client, "t") == 32503680000000
    assert server.digest_value("t") == server.digest_value("s")
    for pair in (["s", "t"], ["t", "s"]):
        assert ask(server, "copy", pair, "vectorset", *COMPARED) == [b"same"]
    server.client.delete("t")
    server.client.set("t", "x")
    (answer,) = ask(server, "copy", ["s", "t"], "any", *COMPARED)
    assert answer[:5] == [b"differs", b"source_type", b"vectorset", b"target_type", b"string"]
    assert server.client.get("t") == b"x"


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        (("VADD", "t", "VALUES", 4, 0, 1, 0, 1, "another"), "additional"),
        (("VADD", "t", "VALUES", 4, 9, 9, 9, -9, "element-2"), "contradicting"),
        (("VSETATTR", "t", "element-1", '{"n":7}'), "contradicting"),
        (("VSETATTR", "t", "element-1", ""), "contradicting"),
        (("VREM", "t", "element-3"), "missing"),
    ],
)
def test_a_vector_set_that_is_another_differs(server: Instance, change: tuple[str | int, ...], noted: str) -> None:
    """In an element, its vector or its attributes; it is never partial, for nothing fills it."""
    vectors(server, "s", 8)
    assert ask(server, "copy", ["s", "t"], "any", *COMPARED) == [b"copied"]
    server.client.execute_command(*change)
    (answer,) = ask(server, "compare", ["s", "t"], "any", *COMPARED)
    assert answer[0] == b"differs"
    assert notes_of(answer)[noted] == 1


def write(client: redis.Redis, kind: str, key: str, content: Any, padding: int) -> None:
    """Write a key, with so many more elements that both sides have."""
    more = [f"padding-{number}" for number in range(padding)]
    if kind == "hash":
        client.hset(key, items=[word for pair in [*content.items(), *((name, "x") for name in more)] for word in pair])
    elif kind == "set":
        client.sadd(key, *content, *more)
    else:
        client.zadd(key, {**content, **dict.fromkeys(more, 5.0)})


def test_hashtables_among_hashtables_are_compared_exactly(server: Instance) -> None:
    """In one script, where the first that are read may decide how the next are."""
    fields: Any = {"a": "1", "b": "2", "long": "x" * 100}
    changes: list[tuple[str, Any]] = [
        ("same", lambda _: None),
        ("partial", lambda key: server.client.hdel(key, "a")),
        ("differs", lambda key: server.client.hset(key, "a", "x")),
        ("differs", lambda key: server.client.hset(key, "c", "x")),
        ("differs", lambda key: server.client.rename("a list", key) and server.client.rpush("a list", "x")),
        ("missing", server.client.delete),
    ]
    server.client.rpush("a list", "x")
    expected, keys = [], []
    for number in range(60):
        word, change = changes[number * 7 % len(changes)]
        source, target = f"s{number}", f"t{number}"
        server.client.hset(source, mapping=fields)
        server.client.hset(target, mapping=dict(reversed(fields.items())))
        change(target)
        keys += [source, target]
        expected.append(word.encode())
    answers = ask(server, "compare", keys, "hash", *COMPARED)
    assert [answer if isinstance(answer, bytes) else answer[0] for answer in answers] == expected
