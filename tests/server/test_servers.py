"""Connecting: over TCP and a socket; several calls under way; who the server is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from luamigrate import UsageError, connect
from luamigrate.cli.embedded import throwaway_server
from luamigrate.server.identity import Identity
from luamigrate.server.url import ServerUrl
from tests import binaries
from tests.conftest import luamigrate
from tests.instances import Instance


def test_the_server_says_who_it_is(server: Instance) -> None:
    """Product, version, mode and role, without any permission."""
    expected = {"redis-6.2": ("redis", "6.2."), "redis-8.2": ("redis", "8.2."), "valkey-9.1": ("valkey", "9.1.")}
    with connect(server.url) as connection:
        who = connection.identity
    product, version = expected.get(server.name, ("redis", ""))
    assert (who.product, who.mode, who.role) == (product, server.mode, "master")
    assert who.version.startswith(version)


@pytest.mark.parametrize(
    ("identity", "at_least"),
    [
        (Identity("redis", "6.2.14", "", ""), False),
        (Identity("redis", "7.0.0", "", ""), True),
        (Identity("redis", "10.0", "", ""), True),
        (Identity("redis", "255.255.255", "", ""), True),
        (Identity("valkey", "7.2.4", "", ""), True),
        (Identity("redis", "", "", ""), False),
    ],
)
def test_versions_are_compared_as_numbers(identity: Identity, at_least: bool) -> None:
    """Ten comes after nine, and each product counts for itself."""
    assert identity.is_at_least(redis=(7, 0), valkey=(7, 2)) is at_least


@pytest.mark.single_server("it is about a connection to one server")
def test_answers_come_in_the_order_of_the_calls(any_server: Instance) -> None:
    """Whichever is asked for first."""
    with connect(any_server.url) as deployment:
        (connection,) = deployment.primaries
        calls = [connection.call("ECHO", str(number)) for number in range(10)]
        assert calls[7].answer() == b"7"
        assert [call.answer() for call in calls] == [str(number).encode() for number in range(10)]
        assert all(call.seconds is not None for call in calls)


@pytest.mark.single_server("it is about a connection to one server")
def test_a_script_is_never_sent_twice(any_server: Instance) -> None:
    """A connection that is cut while a script runs is an error, and the script has run once."""
    with connect(any_server.url) as deployment:
        (connection,) = deployment.primaries
        identifier = connection.call("CLIENT", "ID").answer()
        cut = "redis.call('INCR', KEYS[1]) redis.call('CLIENT', 'KILL', 'ID', ARGV[1], 'SKIPME', 'no')"
        call = connection.call("EVAL", "redis.call('INCR', KEYS[1])", 1, "ran")
        any_server.client.client_kill_filter(_id=identifier)
        with suppress(Exception):
            call.answer()
        with pytest.raises(Exception, match="the connection was lost"):
            connection.call("EVAL", cut, 1, "ran", identifier).answer()
    assert int(any_server.client.get("ran") or 0) <= 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://:pw@localhost:7000/3", "redis://:***@localhost:7000/3"),
        ("redis://user:pw@[::1]:7000", "redis://user:***@[::1]:7000"),
        ("rediss://secret@host/1", "rediss://***@host/1"),
        ("unix://:pw@/run/redis.sock?db=2", "unix://:***@/run/redis.sock?db=2"),
        ("rediss://host?db=2", "rediss://host?db=2"),
        ("valkey://user:pw@host:7000/3", "valkey://user:***@host:7000/3"),
        ("valkeys://:pw@host?db=2", "valkeys://:***@host?db=2"),
        ("sentinel://user:pw@a,b:1/svc/2", "sentinel://user:***@a,b:1/svc/2"),
        (
            "sentinel://[::1]:26379/svc?sentinel_username=us&sentinel_password=pw&tls=true",
            "sentinel://[::1]:26379/svc?sentinel_username=us&sentinel_password=***&tls=true",
        ),
        ("sentinel://a/svc?sentinel%5Fpassword=pw", "sentinel://a/svc?sentinel%5Fpassword=***"),
        ("redis://us\x1ber:pw@host", r"redis://us\x1ber:***@host"),
    ],
)
def test_urls_are_shown_without_their_password(url: str, shown: str) -> None:
    """Everything else stays, escaped."""
    assert ServerUrl.parse(url).redacted == shown


@pytest.mark.parametrize(
    ("url", "components"),
    [
        ("redis://host", {"places": (("host", 6379),), "database": 0, "tls": False, "user": None, "password": None}),
        ("valkeys://u%40x:p%2Fw@[::1]:7/3", {"places": (("::1", 7),), "database": 3, "tls": True, "user": "u@x"}),
        ("unix://:p%2Fw@/a%20b?db=2", {"path": "/a b", "database": 2, "password": "p/w", "places": ()}),
        (
            "sentinel://a,b:1/s%2Fvc/2?sentinel_username=us&sentinel_password=p%26w&tls=true",
            {"places": (("a", 26379), ("b", 1)), "service": "s/vc", "database": 2, "sentinel_password": "p&w"},
        ),
    ],
)
def test_a_url_is_read_into_its_components(url: str, components: dict[str, object]) -> None:
    """With what it does not say: port, database, user."""
    read = ServerUrl.parse(url)
    assert {name: getattr(read, name) for name in components} == components
    assert "p/w" not in repr(read)
    assert "p&w" not in repr(read)


def test_a_refused_url_is_not_shown() -> None:
    """Its password may be anywhere in it."""
    with pytest.raises(UsageError) as refusal:
        ServerUrl.parse("redis://user:hunter2/@x")
    assert "hunter2" not in str(refusal.value)


def test_a_server_on_tcp(tmp_path: Path) -> None:
    """On a loopback port, with a database number."""
    name = next(name for name in binaries.NAMES if isinstance(binaries.find(name), Path))
    with throwaway_server(Path(binaries.find(name))) as url:
        assert url.startswith("redis://127.0.0.1:")
        assert luamigrate("run", "--allow-empty", url=url.removesuffix("/0") + "/3").code == 0
        valkey = luamigrate("run", "--allow-empty", url=url.replace("redis://", "valkey://"))
        assert (valkey.code, valkey.err) == (0, "")
        assert f"at {url.replace('redis://', 'valkey://')}" in valkey.out
