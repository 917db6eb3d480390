"""Servers of a test's own, each in a folder and on a private socket, and what is on them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from subprocess import Popen
from typing import Any

import redis

from luamigrate.cli.embedded import start_server, stop_server, wait_until_up
from tests import binaries

Value = tuple[str, Any]
"""Type and value, in a form that does not depend on order or encoding."""

EXPIRY_NOISE_MS = 20
KEYS_AT_ONCE = 100
"""Few enough to be read in less than the noise."""

# On versions whose clock goes on in a script, asked until it stands still from one answer to the next.
EXPIRES_AT = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
while true do
  local before, left, after = now(), redis.call('PTTL', KEYS[1]), now()
  if left < 0 then return 0 end
  if before == after then return before + left end
end
"""


class Reachable:
    """What the command line can be run against, with an ordinary client of its own."""

    url: str
    client: redis.Redis
    mode: str

    def another_client(self, **options: Any) -> Any:
        """Return a client with connections of its own."""
        raise NotImplementedError

    def digest_value(self, key: bytes | str) -> Any:
        """Return the server's own digest of a key's value."""
        raise NotImplementedError

    def url_for(self, user: str, password: str) -> str:
        """Return the URL with which a user connects."""
        return self.url.replace("://", f"://{user}:{password}@")

    @property
    def version(self) -> tuple[int, int]:
        """What the server is comparable to, in versions of Redis: field expiries come with 7.4."""
        hello = self.client.execute_command("HELLO")
        facts = dict(zip(hello[::2], hello[1::2], strict=True))
        major, minor = facts[b"version"].split(b".")[:2]
        return int(major), int(minor)

    @property
    def has_field_expiries(self) -> bool:
        """Whether fields of a hash can expire."""
        return self.version >= (7, 4)


@dataclass
class Instance(Reachable):
    """A running server."""

    name: str
    url: str
    process: Popen[bytes]
    client: redis.Redis = field(repr=False)
    mode = "standalone"

    def shards(self) -> list[Instance]:
        """Return the servers that share the keys."""
        return [self]

    def shard_for(self, *_: str | int) -> Instance:
        """Return the server to which a command is sent."""
        return self

    def own_name(self, name: str) -> str:
        """Return the name, or one that begins so, of a key that would be on this server."""
        return name

    def another_client(self, **options: Any) -> redis.Redis:
        """Return a client with connections of its own."""
        return redis.Redis.from_url(self.url, **{"protocol": 2, **options})

    def kill(self) -> None:
        """Kill it with -9, and remove its socket."""
        self.process.kill()
        self.process.wait()
        self._socket.unlink(missing_ok=True)

    def start_again(self, *options: str) -> None:
        """Start it on the same files and socket, another process; it may still be loading after that."""
        binary = binaries.find(self.name)
        assert isinstance(binary, Path), binary
        self.process = _start(binary, self._socket, *options)

    @property
    def _socket(self) -> Path:
        return Path(self.url.removeprefix("unix://"))

    def digest(self) -> Any:
        """Return the server's own digest of all its keys."""
        return self.client.execute_command("DEBUG", "DIGEST")

    def digest_value(self, key: bytes | str) -> Any:
        """Return the server's own digest of a key's value, whatever its order and encoding."""
        return self.client.execute_command("DEBUG", "DIGEST-VALUE", key)[0]


@contextmanager
def start(name: str, *options: str) -> Iterator[Instance]:
    """Start the server of this name; end it afterwards."""
    binary = binaries.find(name)
    assert isinstance(binary, Path), binary
    with tempfile.TemporaryDirectory(prefix="luamigrate-test-") as directory:
        socket = Path(directory) / "s"
        client = redis.Redis.from_url(f"unix://{socket}", protocol=2)
        server = Instance(name, f"unix://{socket}", _start(binary, socket, *options), client)
        try:
            assert wait_until_up(server.process, client), (Path(directory) / "log").read_text(errors="replace")
            yield server
        finally:
            client.close()
            stop_server(server.process)


def _start(binary: Path, socket: Path, *options: str) -> Popen[bytes]:
    more = debugging(binary)
    return start_server(binary, socket.parent, "--port", "0", "--unixsocket", str(socket), *more, *options)


def debugging(binary: Path) -> tuple[str, ...]:
    """Return the options with which a server lets itself be asked by DEBUG."""
    return ("--enable-debug-command", "yes") if binaries.version(binary) >= (7, 0) else ()


def read_value(client: redis.Redis, key: bytes) -> Value:
    """Return a key's type and value as an ordinary client sees them."""
    return _read_values(client, [key])[0]


def _read_values(client: redis.Redis, keys: list[bytes]) -> list[Value]:
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.type(key)
    kinds = [name.decode() for name in pipeline.execute()]
    for kind, key in zip(kinds, keys, strict=True):
        _read_content(pipeline, kind, key)
    contents = pipeline.execute()
    return [(kind, dict(content) if kind == "zset" else content) for kind, content in zip(kinds, contents, strict=True)]


def _read_content(client: redis.Redis, kind: str, key: bytes) -> None:
    match kind:
        case "hash":
            client.hgetall(key)
        case "set":
            client.smembers(key)
        case "zset":
            client.zrange(key, 0, -1, withscores=True, score_cast_func=lambda score: score)
        case "string":
            client.get(key)
        case "list":
            client.lrange(key, 0, -1)
        case _:
            client.dump(key)


def read_expiry(client: redis.Redis, key: bytes) -> int | None:
    """Return when a key expires, in milliseconds since 1970, some of them off; None for never."""
    return _read_expiries(client, [key])[0]


def _read_expiries(client: redis.Redis, keys: list[bytes]) -> list[int | None]:
    pipeline = client.pipeline(transaction=False)
    while True:
        for key in keys:
            pipeline.pttl(key)
        before, remaining, after = time.time(), pipeline.execute(), time.time()
        # Where the machine was busy meanwhile, nobody knows which moment that counts from.
        if max(remaining) < 0 or (after - before) * 1000 < EXPIRY_NOISE_MS / 2:
            return [None if each < 0 else int(after * 1000) + each for each in remaining]


def expires_at(client: redis.Redis | redis.RedisCluster, key: bytes | str) -> int:
    """Return the millisecond since 1970 in which a key expires, 0 for never."""
    moment: Any = client.eval(EXPIRES_AT, 1, key)
    return int(moment)


Snapshot = dict[bytes, tuple[Value, int | None]]


def snapshot(client: redis.Redis) -> Snapshot:
    """Return every key with its value and expiry."""
    found: Snapshot = {}
    names = client.scan_iter(count=1000)
    while keys := list(islice(names, KEYS_AT_ONCE)):
        stored = zip(_read_values(client, keys), _read_expiries(client, keys), strict=True)
        found |= zip(keys, stored, strict=True)
    return found


def assert_kept(before: Snapshot, after: Snapshot) -> None:
    """Every key that was there is there, with the same value and expiry."""
    for key, (value, expiry) in before.items():
        assert key in after, f"{key!r} has vanished"
        assert after[key][0] == value, f"{key!r} has changed"
        assert_same_expiry(after[key][1], expiry, key)


def assert_same_expiry(one: int | None, other: int | None, key: bytes) -> None:
    """Two expiries are the same, within what reading them takes."""
    if one is None or other is None:
        assert one == other, f"the expiry of {key!r} is {one}, not {other}"
    else:
        assert abs(one - other) <= EXPIRY_NOISE_MS, f"the expiry of {key!r} is {one - other} ms off"
