"""The scripts alone, called as anybody could call them."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from luamigrate import scripts
from tests.instances import Instance

COMPARED = ("1", "0")


def ask(server: Instance, script: str, keys: list[str], *arguments: str) -> Any:
    """Run a script on keys, all of them declared."""
    return server.client.eval(scripts.source(script), len(keys), *keys, *arguments)


def test_one_keys_trouble_does_not_cost_the_batch_its_answers(server: Instance) -> None:
    """A pair that the ACL forbids answers `failed` in the server's words, those around it as ever."""
    client = server.client
    client.hset("a:1", "f", "1")
    client.hset("b:1", "f", "1")
    client.acl_setuser("careful", enabled=True, nopass=True, categories=["+@all"], keys=["a:*", "x:*"], reset=True)
    careful = redis.Redis.from_url(server.url, username="careful", password="x", protocol=2)
    try:
        # Undeclared, so that it is the script that meets the refusal.
        text = scripts.source("copy").replace("KEYS", "KEYS_")
        text = "local KEYS_ = { 'a:1', 'x:1', 'b:1', 'x:2', 'a:1', 'x:3', 'a:0', 'x:0' }\n" + text
        answers: Any = careful.eval(text, 0, "hash", *COMPARED)
    finally:
        careful.close()
        client.acl_deluser("careful")
    assert [answers[0], *answers[2:]] == [b"copied", b"copied", b"gone"]
    assert answers[1].startswith(b"failed ")
    assert client.exists("x:1", "x:2", "x:3") == 2


@pytest.mark.parametrize(
    ("kind", "source", "target", "word"),
    [
        ("hash", {"a": "1", "b": "2"}, {"b": "2", "a": "1"}, "same"),
        ("hash", {"a": "1", "b": "2"}, {"b": "2"}, "partial"),
        ("hash", {"a": "1", "b": "2"}, {"b": "1", "a": "2"}, "differs"),
        ("hash", {"a": "1"}, {"a": "1", "b": "2"}, "differs"),
        ("hash", {"a": "01"}, {"a": "1"}, "differs"),
        ("hash", {"a": "1", "b": "1"}, {"a": "1", "c": "1"}, "differs"),
        ("set", ["a", "b"], ["b", "a"], "same"),
        ("set", ["1", "2"], ["2"], "partial"),
        ("set", ["1"], ["1", "2"], "differs"),
        ("set", ["1", "2"], ["1", "3"], "differs"),
        ("zset", {"a": 1, "b": 2}, {"b": 2, "a": 1}, "same"),
        ("zset", {"a": 1, "b": 2}, {"b": 2}, "partial"),
        ("zset", {"a": 1, "b": 2}, {"a": 2, "b": 1}, "differs"),
        ("zset", {"a": 0.1 + 0.2}, {"a": 0.3}, "differs"),
        ("zset", {"1": 2}, {"2": 1}, "differs"),
    ],
)
@pytest.mark.parametrize("wide", [False, True], ids=["compact", "wide"])
def test_values_are_compared_exactly(
    server: Instance, kind: str, source: Any, target: Any, word: str, wide: bool
) -> None:
    """In the compact encodings, and in those of large keys."""
    for key, content in (("s", source), ("t", target)):
        write(server.client, kind, key, content, padding=600 if wide else 0)
    size = len(source) + (600 if wide else 0), len(target) + (600 if wide else 0)
    assert ask(server, "compare", ["s", "t"], kind, *COMPARED) == [f"{word} {size[0]} {size[1]}".encode()]
    assert ask(server, "copy", ["s", "t"], kind, *COMPARED) == [word.encode()]


def write(client: redis.Redis, kind: str, key: str, content: Any, padding: int) -> None:
    """Write a key, with so many more elements that both sides have."""
    more = [f"padding-{number}" for number in range(padding)]
    if kind == "hash":
        client.hset(key, items=[word for pair in [*content.items(), *((name, "x") for name in more)] for word in pair])
    elif kind == "set":
        client.sadd(key, *content, *more)
    else:
        client.zadd(key, {**content, **dict.fromkeys(more, 5.0)})


def test_many_field_expiries_are_compared(server: Instance) -> None:
    """More fields than one call takes; the last of them decides."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    fields: Any = {f"field-{number}": "1" for number in range(9_500)}
    server.client.hset("s", mapping=fields)
    server.client.execute_command("HPEXPIREAT", "s", 32503680000000, "FIELDS", 1, "field-9499")
    server.client.copy("s", "t")
    assert ask(server, "copy", ["s", "t"], "hash", *COMPARED) == [b"same"]
    server.client.execute_command("HPEXPIREAT", "t", 32503680002000, "FIELDS", 1, "field-9499")
    assert ask(server, "copy", ["s", "t"], "hash", *COMPARED) == [b"expiry"]
    assert ask(server, "copy", ["s", "t"], "hash", "1", "1") == [b"same"]


def test_without_info_field_expiries_are_compared_all_the_same(server: Instance) -> None:
    """A careful user may not call INFO; then every hash is asked."""
    client = server.client
    client.hset("s", "a", "1")
    client.hset("t", "a", "1")
    word = b"same"
    if server.has_field_expiries:
        client.execute_command("HPEXPIRE", "s", 100_000, "FIELDS", 1, "a")
        word = b"expiry"
    client.acl_setuser("careful", enabled=True, nopass=True, categories=["+@all"], commands=["-info"], keys=["*"])
    careful = redis.Redis.from_url(server.url, username="careful", password="x", protocol=2)
    try:
        answers: Any = careful.eval(scripts.source("copy"), 2, "s", "t", "hash", *COMPARED)
    finally:
        careful.close()
        client.acl_deluser("careful")
    assert answers == [word]


def test_a_target_that_has_logically_expired_counts_as_absent(server: Instance) -> None:
    """Whether or not the server has reaped it."""
    server.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "0")
    server.client.hset("s", "a", "1")
    server.client.hset("t", "a", "2")
    server.client.pexpire("t", 1)
    server.client.execute_command("DEBUG", "SLEEP", "0.01")
    try:
        assert ask(server, "copy", ["s", "t"], "hash", *COMPARED) == [b"copied"]
    finally:
        server.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")
    assert server.client.hgetall("t") == {b"a": b"1"}
