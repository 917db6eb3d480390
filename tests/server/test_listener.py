"""The listening connection: what is told to it, when all is told, and that the server keeps nothing for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from luamigrate import Refused, connect
from luamigrate.server.connection import Connection
from luamigrate.server.errors import ConnectionLost
from luamigrate.server.listener import EVERYTHING, Listener, Listeners
from tests.clusters import wait_until
from tests.instances import Instance

CHANNEL = b"luamigrate:follow"

pytestmark = pytest.mark.single_server("one server tells of its own keys")


@contextmanager
def listening(server: Instance, *prefixes: bytes) -> Iterator[Listeners]:
    """Give a listener that is registered."""
    with connect(server.url) as deployment:
        listener = Listeners(deployment.primaries, prefixes, CHANNEL)
        try:
            yield listener
        finally:
            listener.close()


def told_by(listener: Listeners) -> set[bytes] | None:
    """Return all names that are told until a barrier; None where everything may be different."""
    found: set[bytes] = set()
    everything = False
    ticket = listener.barrier()

    def has_passed() -> bool:
        nonlocal everything
        for names in listener.read():
            everything |= names is EVERYTHING
            found.update(names or ())
        return listener.passed >= ticket

    wait_until(has_passed)
    return None if everything else found


CHANGES: list[tuple[str, tuple[Any, ...]]] = [
    ("job:1", ("HSET", "job:1", "a", "2")),
    ("job:1", ("HDEL", "job:1", "a")),
    ("job:s", ("SETRANGE", "job:s", 3, "x")),
    ("job:s", ("PEXPIRE", "job:s", 100_000)),
    ("job:s", ("PERSIST", "job:s")),
    ("job:s", ("RENAME", "job:s", "job:s2")),
    ("job:s2", ("RENAME", "job:s2", "other")),
    ("job:s3", ("COPY", "other", "job:s3")),
    ("job:s3", ("MOVE", "job:s3", 2)),
    ("job:l", ("RPUSH", "job:l", 1, 2)),
    ("job:l", ("LMOVE", "job:l", "other2", "LEFT", "LEFT")),
    ("job:z", ("ZADD", "job:z", 1, "a")),
    ("job:z", ("ZPOPMIN", "job:z")),
    ("job:x", ("XADD", "job:x", "*", "a", 1)),
    ("job:x", ("XTRIM", "job:x", "MAXLEN", 0)),
    ("job:e", ("EVAL", "return redis.call('SET', 'job:' .. ARGV[1], 1)", 0, "e")),
    ("job:e", ("UNLINK", "job:e")),
]


def test_every_change_is_told(server: Instance) -> None:
    """Whatever the command; and nothing is told of other names."""
    server.client.hset("job:1", "a", "1")
    with listening(server, b"job:", b"step:") as listener:
        assert told_by(listener) == set()
        for name, command in CHANGES:
            server.client.execute_command(*command)
            assert name.encode() in (told_by(listener) or ()), command
        server.client.set("elsewhere", "1")
        assert told_by(listener) == set()


def test_expiries_are_told_and_emptied_databases_are_everything(server: Instance) -> None:
    """Keys that expire by themselves, fields where there are such, FLUSHALL, and FLUSHDB of any database."""
    with listening(server, b"") as listener:
        server.client.set("job:1", "1", px=200)
        told: set[bytes] = set()
        assert told_by(listener) == {b"job:1"}
        wait_until(lambda: b"job:1" in told.union(told_by(listener) or ()))
        if server.has_field_expiries:
            server.client.hset("job:h", "a", "1")
            server.client.execute_command("HPEXPIRE", "job:h", 100_000, "FIELDS", 1, "a")
            assert told_by(listener) == {b"job:h"}
        with server.another_client(db=3) as other:
            other.flushdb()
        assert told_by(listener) is None
        server.client.flushall()
        assert told_by(listener) is None


def test_barriers_follow_one_another(any_server: Instance) -> None:
    """One that is asked for while another is under way begins after it."""
    with listening(any_server, b"job:") as listener:
        assert [listener.barrier(), listener.next_barrier, listener.barrier(), listener.barrier()] == [1, 2, 2, 2]
        wait_until(lambda: not list(listener.read()) and listener.passed == 2)
        assert not listener.is_asked


def read_to_the_end(listener: Listeners) -> None:
    """Read as long as there is a connection."""
    wait_until(lambda: bool([None for _ in listener.read()]) and False)


def test_a_listener_that_does_not_read_is_closed(server: Instance) -> None:
    """By the limit for subscribers: the server's memory does not grow with what is told."""
    server.client.config_set("client-output-buffer-limit", "pubsub 1mb 0 0")
    try:
        with listening(server, b"job:") as listener:
            for first in range(0, 200_000, 1000):
                pipeline = server.client.pipeline(transaction=False)
                for number in range(first, first + 1000):
                    pipeline.set(f"job:{number:0100}", "1")
                    pipeline.delete(f"job:{number:0100}")
                pipeline.execute()
            with pytest.raises(ConnectionLost, match="the listening connection was lost"):
                read_to_the_end(listener)
    finally:
        server.client.config_set("client-output-buffer-limit", "pubsub 32mb 8mb 60")


def test_a_user_who_may_not_be_told_is_refused(server: Instance) -> None:
    """With the server's words; for the tracking, and for the subscription that bounds it."""
    for lacking in ("-client|tracking", "-subscribe"):
        lacking = "-client" if lacking == "-client|tracking" and server.version < (7, 0) else lacking  # noqa: PLW2901
        server.client.execute_command("ACL", "SETUSER", "deaf", "reset", "on", ">secret", "allkeys", "+@all", lacking)
        with (
            connect(server.url_for("deaf", "secret")) as deployment,
            pytest.raises(Refused, match=r"follow: the server does not tell this user of changes: .*permission"),
        ):
            Listener(deployment.primaries[0], [b"job:"], CHANNEL)
    server.client.acl_deluser("deaf")


class Slow:
    """A socket that does something between what it sends and what is read."""

    def __init__(self, socket: Any, act: Callable[[], Any]) -> None:
        self._socket, self._act = socket, act

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendall(self, data: bytes) -> None:
        """Send; what is told of what is done then comes right behind the answer."""
        self._socket.sendall(data)
        if b"TRACKING" in data:
            self._act()


def test_what_is_told_in_one_piece_with_the_answer_is_not_lost(
    server: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a message torn apart, of which only the beginning has come with it."""
    beside = Connection.beside

    def slow(connection: Connection, **settings: Any) -> Any:
        one: Any = beside(connection, **settings)
        connect_it = one.connect

        def connect_slowly() -> None:
            connect_it()
            one._sock = Slow(one._sock, lambda: server.client.set("job:1", "1"))

        monkeypatch.setattr(one, "connect", connect_slowly)
        return one

    monkeypatch.setattr(Connection, "beside", slow)
    with listening(server, b"job:") as listener:
        assert told_by(listener) == {b"job:1"}
