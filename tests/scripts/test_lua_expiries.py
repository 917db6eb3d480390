"""What the scripts make of expiries: of fields, in tables too, and of keys that have logically expired."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from luamigrate.scripts import library
from tests.instances import Instance
from tests.scripts.test_lua import COMPARED, LIMITS, ask

pytestmark = pytest.mark.single_server("scripts are called by themselves, with keys of several slots")


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
    (answer,) = ask(server, "copy", ["s", "t"], "hash", *COMPARED)
    assert answer == [b"expiry", b"expiring_apart", 1, b"expiring_apart_names", [b"field-9499"]]
    assert ask(server, "copy", ["s", "t"], "hash", "1", "1", "0") == [b"same"]


def test_field_expiries_of_hashtables_are_compared(server: Instance) -> None:
    """Also where hashtables are read instead of dumped, because payloads have differed before."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    keys = []
    for number in range(20):
        for name in (f"s{number}", f"t{number}"):
            order = ("a", "b") if name.startswith("s") else ("b", "a")
            server.client.hset(name, mapping=dict.fromkeys(order, "x" * 100))
            server.client.hset(name, mapping={f"field-{each}": "1" for each in range(20)})
            server.client.execute_command("HPEXPIREAT", name, 32503680000000, "FIELDS", 1, "a")
            keys.append(name)
    for number in (0, 1, 7, 19):
        server.client.execute_command("HPEXPIREAT", f"t{number}", 32503680009000, "FIELDS", 1, "a")
    answers = ask(server, "compare", keys, "hash", *COMPARED)
    words = [answer if isinstance(answer, bytes) else answer[0] for answer in answers]
    assert words == [b"expiry" if number in (0, 1, 7, 19) else b"same" for number in range(20)]


def test_without_info_field_expiries_are_compared_all_the_same(server: Instance) -> None:
    """A careful user may not call INFO; then every hash is asked."""
    client = server.client
    client.hset("s", "a", "1")
    client.hset("t", "a", "1")
    expected: Any = b"same"
    if server.has_field_expiries:
        client.execute_command("HPEXPIRE", "s", 100_000, "FIELDS", 1, "a")
        expected = [b"expiry", b"expiring_apart", 1, b"expiring_apart_names", [b"a"]]
    client.acl_setuser("careful", enabled=True, nopass=True, categories=["+@all"], commands=["-info"], keys=["*"])
    careful = redis.Redis.from_url(server.url, username="careful", password="x", protocol=2)
    try:
        answers: Any = careful.eval(library.source("copy"), 2, "s", "t", *LIMITS, "hash", *COMPARED)
    finally:
        careful.close()
        client.acl_deluser("careful")
    assert answers[:-1] == [expected]


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
