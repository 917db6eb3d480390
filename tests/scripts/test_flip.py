"""The script that flips the flag: what it refuses, what it writes, and that it writes both keys or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from luamigrate import Error, connect
from luamigrate.scripts.cutover_calls import FlipReply, finish, flip, flip_back
from luamigrate.server.changes import read_changes
from luamigrate.server.connection import Connection
from luamigrate.server.info import read_time_ms
from tests.instances import Instance

FLAG, RECORD = b"flag:{f}", b"luamigrate:cutover:x:{f}"
OTHER = FlipReply.OTHER
VALUE = b"step:\x00\xff"


@pytest.fixture
def home(server: Instance) -> Iterator[Connection]:
    """Give a connection to the server that has the flag."""
    with connect(server.url) as deployment:
        yield deployment.node_for(FLAG)


def record_of(server: Instance) -> dict[bytes, bytes]:
    """Return the record; empty where there is none."""
    fields: dict[bytes, bytes] = server.client.hgetall(RECORD)  # type: ignore[assignment]
    return fields


@pytest.mark.parametrize("former", [None, b"", b"job:\r\n"])
def test_there_and_back(server: Instance, home: Connection, former: bytes | None) -> None:
    """The flag gets its value, the record says what it was, and the way back leaves all as it was."""
    if former is not None:
        server.client.set(FLAG, former)
    began = read_time_ms(home)
    assert flip(home, FLAG, RECORD, value=VALUE, former=former) is FlipReply.FLIPPED
    record = record_of(server)
    assert began <= int(record.pop(b"moment")) <= read_time_ms(home)
    expected = {b"flag": FLAG, b"value": VALUE}
    assert record == (expected if former is None else expected | {b"former": former})
    assert (server.client.get(FLAG), server.client.ttl(FLAG)) == (VALUE, -1)
    assert flip_back(home, FLAG, RECORD, value=VALUE) is FlipReply.FLIPPED
    assert (server.client.get(FLAG), record_of(server)) == (former, {})
    assert flip(home, FLAG, RECORD, value=VALUE, former=former) is FlipReply.FLIPPED


def test_finished(server: Instance, home: Connection) -> None:
    """The flag stays, the record goes, and there is no way back."""
    assert finish(home, FLAG, RECORD, value=VALUE) is OTHER
    assert flip(home, FLAG, RECORD, value=VALUE, former=None) is FlipReply.FLIPPED
    assert finish(home, FLAG, RECORD, value=b"another") is OTHER
    assert finish(home, FLAG, RECORD, value=VALUE) is FlipReply.FLIPPED
    assert (server.client.get(FLAG), record_of(server)) == (VALUE, {})
    assert finish(home, FLAG, RECORD, value=VALUE) is OTHER
    assert flip_back(home, FLAG, RECORD, value=VALUE) is OTHER
    assert server.client.get(FLAG) == VALUE


def test_too_late(server: Instance, home: Connection) -> None:
    """After the moment, by the server's clock, neither way is gone; before it both are."""
    past, future = read_time_ms(home) - 1, read_time_ms(home) + 60_000
    assert flip(home, FLAG, RECORD, value=VALUE, former=None, deadline=past) is FlipReply.LATE
    assert not server.client.dbsize()
    assert flip(home, FLAG, RECORD, value=VALUE, former=None, deadline=future) is FlipReply.FLIPPED
    assert flip_back(home, FLAG, RECORD, value=VALUE, deadline=past) is FlipReply.LATE
    assert (server.client.get(FLAG), len(record_of(server))) == (VALUE, 3)
    assert flip_back(home, FLAG, RECORD, value=VALUE, deadline=future) is FlipReply.FLIPPED
    assert not server.client.dbsize()


def test_written_meanwhile(server: Instance, home: Connection) -> None:
    """Neither way is gone where anybody has written since the changes were read, whatever it was."""
    for _ in range(3):
        changes = read_changes(home)
        server.client.incr("other:{f}")
        assert flip(home, FLAG, RECORD, value=VALUE, former=None, changes=changes) is FlipReply.WRITTEN
        assert not server.client.exists(FLAG)
        assert flip(home, FLAG, RECORD, value=VALUE, former=None, changes=read_changes(home)) is FlipReply.FLIPPED
        changes = read_changes(home)
        server.client.delete("other:{f}")
        assert flip_back(home, FLAG, RECORD, value=VALUE, changes=changes) is FlipReply.WRITTEN
        assert server.client.get(FLAG) == VALUE
        assert flip_back(home, FLAG, RECORD, value=VALUE, changes=read_changes(home)) is FlipReply.FLIPPED
    assert flip(home, FLAG, RECORD, value=VALUE, former=None, changes=b"unknown") is FlipReply.WRITTEN


def test_a_flag_that_somebody_else_has_set(server: Instance, home: Connection) -> None:
    """It is there, or another one, or gone, or no string: nothing is written."""
    for kind, former in ((b"job:", None), (b"job:", b"another"), (None, b"job:"), (VALUE, b"job:"), (VALUE, None)):
        server.client.flushall()
        if kind is not None:
            server.client.set(FLAG, kind)
        assert flip(home, FLAG, RECORD, value=VALUE, former=former) is OTHER
        assert (server.client.get(FLAG), record_of(server)) == (kind, {})
    server.client.delete(FLAG)
    server.client.rpush(FLAG, "job:")
    for former in (None, b"job:"):
        assert flip(home, FLAG, RECORD, value=VALUE, former=former) is OTHER
    assert (server.client.lrange(FLAG, 0, -1), record_of(server)) == ([b"job:"], {})


def test_a_record_that_is_not_the_one(server: Instance, home: Connection) -> None:
    """A second flip finds the first one's; the way back needs its own, and the flag as it was left."""
    assert flip(home, FLAG, RECORD, value=VALUE, former=None) is FlipReply.FLIPPED
    assert flip(home, FLAG, RECORD, value=b"another", former=VALUE) is OTHER
    assert flip_back(home, FLAG, RECORD, value=b"another") is OTHER
    server.client.set(FLAG, "another")
    assert flip_back(home, FLAG, RECORD, value=VALUE) is OTHER
    assert flip_back(home, FLAG, RECORD, value=b"another") is OTHER
    server.client.set(FLAG, VALUE)
    server.client.hset(RECORD, "flag", "another")
    assert flip_back(home, FLAG, RECORD, value=VALUE) is OTHER
    assert finish(home, FLAG, RECORD, value=VALUE) is OTHER
    server.client.delete(RECORD)
    server.client.set(RECORD, "no hash")
    assert flip_back(home, FLAG, RECORD, value=VALUE) is OTHER
    assert (server.client.get(FLAG), server.client.get(RECORD)) == (VALUE, b"no hash")


READING = ("+hello", "+info", "+evalsha", "+script|load", "+get", "+type", "+exists", "+hget", "+time")
DENIED = "can't run this command|no permissions to run"


@contextmanager
def careful(server: Instance, *granted: str) -> Iterator[Connection]:
    """Give a connection of a user who may do no more than that."""
    server.client.execute_command("ACL", "SETUSER", "careful", "reset", "on", ">secret", "~*", *READING, *granted)
    try:
        with connect(server.url_for("careful", "secret")) as deployment:
            yield deployment.primaries[0]
    finally:
        server.client.acl_deluser("careful")


@pytest.mark.single_server("users are of one server here")
@pytest.mark.parametrize("granted", [("+set", "+del"), ("+hset", "+del")])
def test_who_may_write_one_of_both_flips_nothing(server: Instance, granted: tuple[str, ...]) -> None:
    """A user who may not write the flag, or the record, writes neither."""
    server.client.set(FLAG, "job:")
    with careful(server, *granted) as user, pytest.raises(Error, match=DENIED):
        flip(user, FLAG, RECORD, value=VALUE, former=b"job:")
    assert (server.client.get(FLAG), record_of(server)) == (b"job:", {})


@pytest.mark.single_server("users are of one server here")
@pytest.mark.parametrize("granted", ["+set", "+del"])
def test_who_may_write_one_of_both_leaves_the_flip(server: Instance, home: Connection, granted: str) -> None:
    """The same of the way back."""
    server.client.set(FLAG, "job:")
    assert flip(home, FLAG, RECORD, value=VALUE, former=b"job:") is FlipReply.FLIPPED
    record = record_of(server)
    with careful(server, granted) as user, pytest.raises(Error, match=DENIED):
        flip_back(user, FLAG, RECORD, value=VALUE)
    assert (server.client.get(FLAG), record_of(server)) == (VALUE, record)


@pytest.mark.single_server("memory is of one server here")
def test_a_server_out_of_memory_flips_nothing(server: Instance, home: Connection) -> None:
    """Neither way, where it takes memory: the error says why, and all is as it was."""
    server.client.set(FLAG, "job:")
    assert flip(home, FLAG, RECORD, value=VALUE, former=b"job:") is FlipReply.FLIPPED
    assert flip_back(home, FLAG, RECORD, value=VALUE) is FlipReply.FLIPPED
    server.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(Error, match="OOM"):
            flip(home, FLAG, RECORD, value=VALUE, former=b"job:")
    finally:
        server.client.config_set("maxmemory", 0)
    assert (server.client.get(FLAG), record_of(server)) == (b"job:", {})


def test_it_is_carried_out_in_another_database(server: Instance) -> None:
    """Flag and record live in the database of the connection."""
    if server.mode == "cluster":
        pytest.skip("a cluster has one database")
    with connect(f"{server.url}?db=3") as deployment:
        assert flip(deployment.primaries[0], FLAG, RECORD, value=VALUE, former=None) is FlipReply.FLIPPED
    assert not server.client.exists(FLAG, RECORD)
    with server.another_client(db=3) as client:
        assert client.get(FLAG) == VALUE
