"""Servers that can be followed in another way than most, and those that cannot: nothing is written on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from luamigrate import Refused, Tls, connect, follow
from tests.conftest import luamigrate
from tests.following import PLAN, Following, Writer, assert_in_step
from tests.instances import Instance, start
from tests.liar import Lie, lying
from tests.tls import context, speaking_tls

pytestmark = [pytest.mark.oldest_and_newest, pytest.mark.single_server("each is one server")]


def fill(server: Instance) -> Any:
    """Write sources; return a client."""
    for number in range(50):
        server.client.hset(f"job:{number}", mapping={"a": number, "b": "x" * 200})
    return server.client


@contextmanager
def behind_tls(server: Instance, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the URL of a server behind TLS, and the file of the authority that vouches for it."""
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    with speaking_tls(server.url.removeprefix("unix://"), context(authority.issue_cert("localhost"))) as port:
        yield f"rediss://localhost:{port}", ca


def test_it_follows_through_tls(server: Instance, tmp_path: Path) -> None:
    """Where what is told comes in records that end anywhere."""
    fill(server)
    with behind_tls(server, tmp_path) as (url, ca), Following(url, tls=Tls(ca=ca)) as following:
        following.wait_until_in_step()
        with Writer(server, 1):
            following.wait_until(lambda now: now.told > 2000)
        with suppress(AssertionError):
            assert_in_step(server)  # once nothing is about to expire
        following.wait_until_in_step()
        assert_in_step(server)
    assert following.error is None
    assert following.keys == []


def test_a_server_without_resp3_is_refused(any_server: Instance) -> None:
    """As a proxy may be that does not know HELLO 3."""
    client = fill(any_server)

    def speaks_resp2(command: list[bytes]) -> Lie | None:
        is_asked = command[0].upper() == b"HELLO" and command[1:2] == [b"3"]
        return Lie(b"-NOPROTO unsupported protocol version\r\n") if is_asked else None

    with lying(any_server.url.removeprefix("unix://"), speaks_resp2) as url:
        result = luamigrate("follow", "--map", "job:*=step:*", url=url)
    assert (result.code, result.err.count("\n")) == (4, 1)
    assert "follow: the server does not speak RESP3" in result.err
    assert not client.keys("step:*")


def test_a_replica_is_refused(server_name: str) -> None:
    """Its keys are its primary's."""
    with start(server_name) as replica:
        fill(replica)
        replica.client.replicaof("127.0.0.1", 1)
        with connect(replica.url) as deployment, pytest.raises(Refused, match="role: "):
            list(follow(deployment, PLAN, settle=0))
        assert not replica.client.keys("step:*")
