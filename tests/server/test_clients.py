"""Clients: who waits, whose connections are closed, and that what is held of them is never carried out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import redis

from luamigrate import Error
from luamigrate.model.cutover import Kill
from luamigrate.server.clients import Killed, kill, waiting_clients
from luamigrate.server.connection import Connection
from luamigrate.server.listener import Listeners
from tests.clusters import wait_until
from tests.freezing import LONG_MS, connected, frozen
from tests.instances import Instance
from tests.liar import Lie, encoded, lying

pytestmark = pytest.mark.single_server("each server knows its own clients")


class Held:
    """Clients of which each waits for the answer to a command."""

    def __init__(self, server: Instance) -> None:
        self._server = server
        self._threads: list[threading.Thread] = []
        self._clients: list[redis.Redis] = []
        self.ended: dict[str, Any] = {}
        """What became of each: an answer, or the error."""

    def send(self, name: str, *commands: tuple[str | int, ...], **options: Any) -> None:
        """Send commands in one packet on a connection of this name, and wait until it is blocked."""
        client = self._server.another_client(client_name=name, socket_timeout=60, **options)
        self._clients.append(client)
        connection: Any = client.connection_pool.get_connection()
        connection.send_packed_command(connection.pack_commands(commands))
        thread = threading.Thread(target=self._wait, args=(name, connection, len(commands)), daemon=True)
        thread.start()
        self._threads.append(thread)
        wait_until(lambda: self._is_blocked(name))

    def _is_blocked(self, name: str) -> bool:
        return any(each["name"] == name and "b" in each["flags"] for each in self._server.client.client_list())

    def _wait(self, name: str, connection: Any, answers: int) -> None:
        try:
            self.ended[name] = [connection.read_response() for _ in range(answers)]
        except redis.RedisError as error:
            self.ended[name] = error
        connection.disconnect()

    def wait_for_all(self) -> None:
        """Wait until each is answered, or closed."""
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()
        for client in self._clients:
            client.close()


@contextmanager
def idle(server: Instance, name: str, **options: Any) -> Iterator[redis.Redis]:
    """Give a client with a connection that does nothing."""
    with server.another_client(client_name=name, single_connection_client=True, **options) as client:
        client.ping()
        yield client


def closed(client: redis.Redis) -> bool:
    """Tell whether the client's one connection is closed."""
    connection: Any = client.connection
    with suppress(redis.RedisError):
        return bool(connection.can_read(timeout=5)) and connection.read_response() is None
    return True


def kill_here(main: Connection, kind: Kill = Kill.ALL, user: str | None = None, *ours: int | None) -> Killed:
    """Close connections in the database of the connection."""
    return kill([main], kind=kind, user=user, databases={main.database}, ours={main: ours})


def test_what_is_held_is_never_carried_out(server: Instance) -> None:
    """Whether it is a write, a script, a transaction or a pop; each client is told by a closed connection."""
    held = Held(server)
    with connected(server.url) as main, frozen(main) as freeze:
        held.send("web", ("SET", "a", 1))
        held.send("script", ("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "b"))
        held.send("transaction", ("MULTI",), ("SET", "c", 1), ("EXEC",))
        held.send("worker", ("BLPOP", "d", 0))
        own = [*freeze.client_ids.values(), int(server.client.client_id())]
        killed = kill_here(main, Kill.HELD, None, *own)
        assert (killed.count, killed.names) == (4, dict.fromkeys(("web", "script", "transaction", "worker"), 1))
        held.wait_for_all()
        freeze.confirm()
    assert all(isinstance(end, redis.ConnectionError) for end in held.ended.values())
    server.client.rpush("d", 1)
    assert server.client.llen("d") == 1
    assert not server.client.exists("a", "b", "c")


def test_held_leaves_those_who_wait_for_nothing(server: Instance) -> None:
    """A client that has read and not yet written stays."""
    held = Held(server)
    with connected(server.url) as main, idle(server, "reader") as reader, frozen(main) as freeze:
        held.send("web", ("SET", "a", 1))
        assert kill_here(main, Kill.HELD, None, *freeze.client_ids.values()).names == {"web": 1}
        assert reader.ping()
        assert kill_here(main, Kill.NONE).count == 0
        assert reader.ping()
        ours = *freeze.client_ids.values(), int(server.client.client_id())
        # Those of other tests on this server may still be going.
        assert kill_here(main, Kill.ALL, None, *ours).names["reader"] == 1
        assert closed(reader)
    held.wait_for_all()


def test_only_those_of_the_databases_and_of_the_user(server: Instance) -> None:
    """A client of another database, a subscriber and another user stay; one without a name counts as its user."""
    server.client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">secret", "~*", "+@all")
    login = {"username": "app", "password": "secret"}
    try:
        with (
            connected(server.url) as main,
            idle(server, "elsewhere", db=3) as elsewhere,
            idle(server, "other") as other,
            idle(server, "", **login) as meant,
            server.another_client().pubsub() as subscriber,
        ):
            subscriber.subscribe("channel")
            assert subscriber.get_message(timeout=5)
            assert kill_here(main, Kill.ALL, "nobody").count == 0
            assert kill_here(main, Kill.ALL, "app").names == {"app": 1}
            assert closed(meant)
            assert kill_here(main, Kill.ALL, None, int(server.client.client_id())).names == {"other": 1}
            assert closed(other)
            assert elsewhere.ping()
            server.client.publish("channel", "still there")
            assert subscriber.get_message(timeout=5)
            assert kill([main], kind=Kill.ALL, user=None, databases={3}, ours={}).names == {"elsewhere": 1}
    finally:
        server.client.acl_deluser("app")


def test_each_of_our_connections_knows_its_number(server: Instance) -> None:
    """As the server lists it: those that work, that listen and that freeze; after a reconnection too."""
    with connected(server.url) as main, connected(server.url) as second:
        listeners = Listeners([main], [b"job:"], b"luamigrate:follow")
        with frozen(main) as freeze:
            ours = [main.client_id, second.client_id, listeners.client_ids[main], freeze.client_ids[main]]
            listed = {int(each["id"]) for each in server.client.client_list()}
            assert {*ours} <= listed
            assert len({*ours}) == len(ours)
            assert kill_here(main, Kill.ALL, None, *ours, int(server.client.client_id())).count == 0
            main.call("SET", "a", 1).answer()
            freeze.confirm()
            assert freeze.left_ms > LONG_MS / 2
        listeners.close()


def test_many_are_closed(server: Instance) -> None:
    """More than fit into one packet, in the middle of a freeze that goes on."""
    many = [server.another_client(client_name="many", single_connection_client=True) for _ in range(500)]
    with connected(server.url) as main, frozen(main) as freeze:
        ours = *freeze.client_ids.values(), int(server.client.client_id())
        assert kill_here(main, Kill.ALL, None, *ours).names == {"many": 500}
        freeze.confirm()
        assert freeze.problem is None
    for each in many:
        each.close()


def test_who_waits_for_something(server: Instance) -> None:
    """Blocked in a pop or a read, in that database; not who waits for replicas, nor whose write is held."""
    held = Held(server)
    with connected(server.url) as main:
        assert not list(waiting_clients(main))
        for name, command in {
            "list": ("BLPOP", "q", 0),
            "move": ("BLMOVE", "q", "r", "LEFT", "LEFT", 0),
            "set": ("BZPOPMIN", "z", 0),
            "stream": ("XREAD", "BLOCK", 0, "STREAMS", "x", "$"),
            "replicas": ("WAIT", 1, 0),
        }.items():
            held.send(name, command)
        held.send("elsewhere", ("BLPOP", "q", 0), db=3)
        with frozen(main):
            held.send("web", ("SET", "a", 1))
            assert sorted(waiting_clients(main)) == [0, 0, 0, 0, 3]
        kill([main], kind=Kill.HELD, user=None, databases={0, 3}, ours={})
        assert not list(waiting_clients(main))
    held.wait_for_all()


def test_a_server_that_hides_our_numbers_has_nobody_killed(any_server: Instance) -> None:
    """Otherwise we might close our own connections; nor is an odd list taken for an empty one."""

    def hide(words: list[bytes]) -> Lie | None:
        if words == [b"HELLO"]:
            hello = [b"server", b"redis", b"version", b"7.2.0", b"proto", 2, b"mode", b"standalone", b"role", b"master"]
            return Lie(encoded(hello))
        return Lie(encoded(b"id=nobody")) if words[:2] == [b"CLIENT", b"LIST"] else None

    with lying(any_server.url.removeprefix("unix://"), hide) as url, connected(url) as main:
        assert main.client_id is None
        with pytest.raises(Error, match="HELLO says no id"):
            kill_here(main)
        with pytest.raises(Error, match="does not answer CLIENT LIST as it should"):
            list(waiting_clients(main))
