"""Connecting: over TCP, a socket and TLS; several calls under way; who the server is."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import trustme

from luamigrate import UsageError, connect
from luamigrate.demo import throwaway_server
from luamigrate.servers import Identity
from luamigrate.urls import redacted
from tests import binaries
from tests.conftest import luamigrate
from tests.instances import Instance
from tests.test_bad_input import assert_one_line
from tests.test_run import fill


def test_the_server_says_who_it_is(server: Instance) -> None:
    """Product, version, mode and role, without any permission."""
    expected = {"redis-6.2": ("redis", "6.2."), "redis-8.2": ("redis", "8.2."), "valkey-9.1": ("valkey", "9.1.")}
    with connect(server.url) as connection:
        who = connection.identity
    product, version = expected.get(server.name, ("redis", ""))
    assert (who.product, who.mode, who.role) == (product, "standalone", "master")
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


def test_answers_come_in_the_order_of_the_calls(any_server: Instance) -> None:
    """Whichever is asked for first."""
    with connect(any_server.url) as connection:
        calls = [connection.call("ECHO", str(number)) for number in range(10)]
        assert calls[7].answer() == b"7"
        assert [call.answer() for call in calls] == [str(number).encode() for number in range(10)]
        assert all(call.seconds is not None for call in calls)


def test_a_script_is_never_sent_twice(any_server: Instance) -> None:
    """A connection that is cut while a script runs is an error, and the script has run once."""
    with connect(any_server.url) as connection:
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
        ("rediss://host?ssl_ca_certs=/x/ca.pem", "rediss://host?ssl_ca_certs=/x/ca.pem"),
        ("redis://us\x1ber:pw@host", r"redis://us\x1ber:***@host"),
    ],
)
def test_urls_are_shown_without_their_password(url: str, shown: str) -> None:
    """Everything else stays, escaped."""
    assert redacted(url) == shown


def test_a_refused_url_is_not_shown() -> None:
    """Its password may be anywhere in it."""
    with pytest.raises(UsageError) as refusal:
        redacted("redis://user:hunter2/@x")
    assert "hunter2" not in str(refusal.value)


def test_a_server_on_tcp(tmp_path: Path) -> None:
    """On a loopback port, with a database number."""
    name = next(name for name in binaries.NAMES if isinstance(binaries.find(name), Path))
    with throwaway_server(Path(binaries.find(name))) as url:
        assert url.startswith("redis://127.0.0.1:")
        assert luamigrate("run", "--allow-empty", url=url.removesuffix("/0") + "/3").code == 0


@pytest.fixture
def authority() -> trustme.CA:
    """Return an authority that this test alone trusts."""
    return trustme.CA()


@pytest.fixture
def tls_port(any_server: Instance, authority: trustme.CA) -> Iterator[int]:
    """Stand before a server that has no TLS and speak it for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        arguments = (listener, context, any_server.url.removeprefix("unix://"))
        threading.Thread(target=terminate_tls, args=arguments, daemon=True).start()
        yield listener.getsockname()[1]


def terminate_tls(listener: socket.socket, context: ssl.SSLContext, path: str) -> None:
    """Accept connections until the listener closes, and pass on what is inside them."""
    with suppress(OSError):
        while True:
            plain, _ = listener.accept()
            outside = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            try:
                outside.do_handshake()
            except OSError:
                outside.close()
                continue
            inside = socket.socket(socket.AF_UNIX)
            inside.connect(path)
            for one, other in ((outside, inside), (inside, outside)):
                threading.Thread(target=pass_on, args=(one, other), daemon=True).start()


def pass_on(one: socket.socket, other: socket.socket) -> None:
    """Copy bytes until either side is closed."""
    with closing(other), suppress(OSError):
        while content := one.recv(65536):
            other.sendall(content)


def test_tls_with_a_certificate_that_is_trusted(
    any_server: Instance, authority: trustme.CA, tls_port: int, tmp_path: Path
) -> None:
    """`rediss://` with the authority in the URL runs as ever."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    fill(any_server.client, jobs=50)
    result = luamigrate("run", "--json", url=f"rediss://localhost:{tls_port}?ssl_ca_certs={tmp_path}/ca.pem")
    assert (result.code, result.totals["copied"]) == (0, 54)


def test_tls_with_a_certificate_that_is_not_trusted(any_server: Instance, tls_port: int) -> None:
    """It is refused by default, with what to do about it."""
    result = luamigrate("run", url=f"rediss://localhost:{tls_port}")
    assert_one_line(result, 1, "cannot connect", "certificate", "ssl_ca_certs")


def test_tls_with_a_certificate_for_another_name(
    any_server: Instance, authority: trustme.CA, tls_port: int, tmp_path: Path
) -> None:
    """An authority that is trusted is not enough."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    result = luamigrate("run", url=f"rediss://127.0.0.1:{tls_port}?ssl_ca_certs={tmp_path}/ca.pem")
    assert_one_line(result, 1, "cannot connect", "certificate")
    missing = luamigrate("run", url=f"rediss://localhost:{tls_port}?ssl_ca_certs={tmp_path}/none.pem")
    assert_one_line(missing, 1, "cannot connect", "No such file")


def test_tls_asked_of_a_server_without_it() -> None:
    """Within seconds, though such a server just waits for the end of a line."""
    name = next(name for name in binaries.NAMES if isinstance(binaries.find(name), Path))
    with throwaway_server(Path(binaries.find(name))) as url:
        result = luamigrate("run", url=url.replace("redis://", "rediss://"))
    assert_one_line(result, 1, "no answer", "TLS")
