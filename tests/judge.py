"""What an ordinary client finds after a migration, and an application that writes meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Self

import redis

from tests.clusters import ClusterInstance, surviving, wait_until
from tests.instances import Instance, Snapshot, assert_same_expiry, snapshot

JOBS = {b"job:": b"step:"}
"""Prefixes of targets by those of their sources."""
AS_MANY_AS_TELL = 5
BEGUN = 20
"""Writes after which an application is at work."""
WRITTEN = ("hash", "set", "string")
DELETED = 0.3
"""Share of the writes that delete something, where there are any."""
MS_TO_REPLICATE = 1000
PAUSE_ACROSS = 0.002
"""Seconds: a key that is written twice while it is copied across slots may rightly end incomplete."""

# On one server both in one moment, as a careful application writes; on a cluster one after the other.
WRITE = """
for _, key in ipairs(KEYS) do
  if ARGV[1] == 'any' or redis.call('EXISTS', key) == 1 then redis.call(unpack({ ARGV[2], key, unpack(ARGV, 3) })) end
end
"""


def targets_of(keys: Iterable[bytes], prefixes: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the names of targets by those of their sources."""
    return {key: new + key.removeprefix(old) for key in keys for old, new in prefixes.items() if key.startswith(old)}


def assert_migrated(
    server: Instance | ClusterInstance, before: Snapshot, prefixes: Mapping[bytes, bytes] = JOBS
) -> None:
    """All that was there is as it was, every source has an equal target, and there is nothing else, nor twice."""
    copies = {target: before[source] for source, target in targets_of(before, prefixes).items()}
    with server.another_client() as client:
        found = snapshot(client)
        assert_alike(found, before | copies)
        assert client.dbsize() == len(found), "some keys are in two places"


def assert_alike(found: Snapshot, wanted: Snapshot) -> None:
    """Two sets of keys are the same, by name, value and expiry."""
    lacking, surplus = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    assert not lacking, f"{len(lacking)} keys are lacking: {lacking[:AS_MANY_AS_TELL]}"
    assert not surplus, f"{len(surplus)} keys should not be there: {surplus[:AS_MANY_AS_TELL]}"
    others = [(key, found[key][0], wanted[key][0]) for key in wanted if found[key][0] != wanted[key][0]]
    assert not others, f"{len(others)} keys are not what they should be: {others[:AS_MANY_AS_TELL]}"
    for key in wanted:
        assert_same_expiry(found[key][1], wanted[key][1], key)


class DualWriter(threading.Thread):
    """An application that writes to sources and then to their targets, and remembers what was acknowledged.

    What it writes does not depend on what is there, so that it may be written again where no answer came.
    """

    def __init__(
        self,
        server: Instance | ClusterInstance,
        before: Snapshot,
        prefixes: Mapping[bytes, bytes] = JOBS,
        *,
        creates: bool = False,
        deletes: bool = False,
        replicated: bool = False,
    ) -> None:
        super().__init__(daemon=True)
        self.writes = 0
        self.expected: Snapshot = dict(before)
        """The contents of all keys, as far as they were acknowledged."""
        self._targets = targets_of(before, prefixes)
        self._server, self._when = server, "any" if creates else "there"
        self._together = server.mode == "standalone"
        self._deletes, self._replicated = deletes, replicated
        self._chance, self._done = random.Random(7), threading.Event()
        self._failed: Exception | None = None

    def run(self) -> None:
        """Write until told to stop."""
        sources = sorted(key for key in self._targets if self.expected[key][0][0] in WRITTEN)
        try:
            with self._server.another_client() as client:
                while not self._done.wait(0.0 if self._together else PAUSE_ACROSS):
                    self._write(client, self._chance.choice(sources))
        except Exception as error:  # noqa: BLE001  # the test is told when it ends
            self._failed = error

    def _write(self, client: redis.Redis, source: bytes) -> None:
        (kind, content), expiry = self.expected[source]
        command, held = self._change(kind, content)
        together = [(source, self._targets[source])]
        for keys in together if self._together else zip(*together, strict=True):
            surviving(partial(self._acknowledge, client, keys, command))
        self.expected[source] = (kind, held), expiry
        self.writes += 1

    def _change(self, kind: str, content: Any) -> tuple[tuple[bytes, ...], Any]:
        """Return a command that changes a value, and what the value is then."""
        name, value = b"f%d" % self._chance.randrange(8), b"%d" % self._chance.randrange(10**9)
        match kind, self._deletes and self._chance.random() < DELETED:
            case "hash", False:
                return (b"HSET", name, value), content | {name: value}
            case "hash", True:
                return (b"HDEL", name), {field: content[field] for field in content if field != name}
            case "set", False:
                return (b"SADD", name), content | {name}
            case "set", True:
                return (b"SREM", name), content - {name}
            case _:
                return (b"SET", value, b"KEEPTTL"), value

    def _acknowledge(self, client: Any, keys: tuple[bytes, ...], command: tuple[bytes, ...]) -> None:
        client.eval(WRITE, len(keys), *keys, self._when, *command)
        if self._replicated:
            # On the connection of the write: it is the one that was used last.
            node = client.get_node_from_key(keys[0])
            acknowledged = client.wait(1, MS_TO_REPLICATE, target_nodes=node)
            if acknowledged < client.info("replication", target_nodes=node)["connected_slaves"]:
                raise redis.TimeoutError("a replica has not acknowledged it")

    def __enter__(self) -> Self:
        self.start()
        wait_until(lambda: self.writes >= BEGUN or not self.is_alive())
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()
        if self._failed:
            raise self._failed
