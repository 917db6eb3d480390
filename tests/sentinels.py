"""Sentinels, and a primary with a replica that they watch: real servers, each on a private port."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any

import redis

from luamigrate.cli.embedded import free_port, stop_server, throwaway_server, wait_until_up
from luamigrate.cli.orphans import keep
from tests import binaries
from tests.clusters import wait_until

SERVICE = "mymaster"


@dataclass
class Watched:
    """A primary and a replica, and the Sentinel that watches them."""

    name: str
    port: int
    """Of the Sentinel."""
    sentinel: redis.Redis = field(repr=False)
    primary: redis.Redis = field(repr=False)
    replica: redis.Redis = field(repr=False)

    @property
    def url(self) -> str:
        """With a Sentinel first that is not there."""
        return f"sentinel://127.0.0.1:{free_port()},127.0.0.1:{self.port}/{SERVICE}"

    def kill_primary(self) -> None:
        """Kill it with -9."""
        os.kill(_process(self.primary), signal.SIGKILL)

    def fail_over(self) -> None:
        """Have the replica promoted while the primary is up, and goes on taking writes for a while."""
        self.sentinel.execute_command("SENTINEL FAILOVER", SERVICE)

    def is_failed_over(self) -> bool:
        """Tell whether the replica has been promoted; the Sentinel closes the connections of clients as it does so."""
        with suppress(redis.ConnectionError):
            return bool(self.replica.execute_command("ROLE")[0] == b"master")
        return False


@contextmanager
def watched(name: str) -> Iterator[Watched]:
    """Start a primary, its replica and a Sentinel that decides alone."""
    binary = binaries.find(name)
    assert isinstance(binary, Path), binary
    with ExitStack() as stack:
        primary = stack.enter_context(throwaway_server(binary, "--repl-diskless-sync-delay", "0"))
        port = port_of(primary)
        replica = stack.enter_context(throwaway_server(binary, "--replicaof", "127.0.0.1", str(port)))
        clients = [stack.enter_context(closing(redis.Redis.from_url(url, protocol=2))) for url in (primary, replica)]
        wait_until(lambda: _information(clients[1], "replication")["master_link_status"] == "up")
        own = stack.enter_context(sentinel(binary, port))
        client = stack.enter_context(closing(redis.Redis(port=own, protocol=2)))
        wait_until(lambda: _replicas(client) == ["slave"])
        yield Watched(name, own, client, *clients)


@contextmanager
def sentinel(binary: Path, primary: int, *options: str, **login: Any) -> Iterator[int]:
    """Start a Sentinel with these lines in its configuration, and yield its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="luamigrate-test-") as folder:
        ports = ("port 0", f"tls-port {port}") if "ssl" in login else (f"port {port}",)
        watching = (
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 1",
            f"sentinel down-after-milliseconds {SERVICE} 200",
        )
        config = Path(folder) / "sentinel.conf"
        config.write_text("\n".join((*ports, "bind 127.0.0.1", f"dir {folder}", *options, *watching, "")))
        process = keep(Popen((str(binary), str(config), "--sentinel"), stdout=DEVNULL, start_new_session=True))
        try:
            with redis.Redis(port=port, protocol=2, **login) as client:
                assert wait_until_up(process, client)
            yield port
        finally:
            stop_server(process)


def port_of(url: str) -> int:
    """Return the port of a throwaway server."""
    return int(url.split(":")[2].partition("/")[0])


def _information(client: redis.Redis, section: str) -> Any:
    return client.info(section)


def _process(client: redis.Redis) -> int:
    return int(_information(client, "server")["process_id"])


def _replicas(client: redis.Redis) -> list[str]:
    replicas: Any = client.sentinel_slaves(SERVICE)
    return [replica["flags"] for replica in replicas]
