"""Big keys that wait while they are copied or rolled back, and what is written meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from luamigrate import (
    Batch,
    Command,
    Limits,
    Operator,
    Stopped,
    Summary,
    Word,
    connect,
    migrate,
    rollback,
)
from tests.instances import Instance
from tests.migration.test_guards import JOBS, UNLIMITED, Told, nearly_full, refuse_writes
from tests.preflight.test_preflight import configured
from tests.server.test_recovery import once_at


def test_a_big_key_waits_too_where_the_server_takes_no_writes(server: Instance, watchful: None) -> None:
    """It goes in chunks, and is begun anew when the server takes writes again; nothing of ours is left."""
    fill_big(server)
    told = Told(writes=lambda: server.client.config_set("min-replicas-to-write", 0))
    with configured(server, min_replicas_to_write=0):
        words = big_migrated(server, once_at(3, refuse_writes(server)), told=told)
    assert words == {"copied": 1}
    assert told.of("writes")
    assert_big_copied(server)


def fill_big(server: Instance) -> None:
    """Write a hash that takes many chunks at the shortest pause."""
    for start_at in range(0, 6000, 1000):
        server.client.hset("job:big", mapping={f"field-{n}": f"value-{n}" for n in range(start_at, start_at + 1000)})


def big_migrated(
    server: Instance,
    trouble: Callable[[int], None] = lambda _: None,
    *,
    told: Callable[[str], None] = lambda _: None,
    paused: Callable[[], bool] = lambda: False,
    look: Callable[[Batch], None] = lambda _: None,
    patience: float = 20,
) -> Counter[Word]:
    """Copy the big key, causing trouble after each chunk, by their number; return the words."""
    summary, chunks = Summary(JOBS), 0
    operator = Operator(tell=told, paused=paused)
    with connect(server.url) as connection:
        for batch in migrate(connection, JOBS, limits=Limits(max_pause=0.5, patience=patience), operator=operator):
            summary.add(batch)
            chunks += bool(batch.large)
            look(batch)
            trouble(chunks)
    assert chunks > 5
    return summary.totals.counts


def assert_big_copied(server: Instance) -> None:
    """Hold the big key to have an equal twin, and the server to have nothing else."""
    assert server.digest_value("job:big") == server.digest_value("step:big")
    assert sorted(server.client.scan_iter()) == [b"job:big", b"step:big"]


def test_a_big_key_is_not_begun_in_vain_where_memory_stays_scarce(any_server: Instance, watchful: None) -> None:
    """What had been staged of it is removed when the guard stops it."""
    fill_big(any_server)
    with configured(any_server, maxmemory=UNLIMITED), pytest.raises(Stopped, match="memory"):
        big_migrated(any_server, once_at(3, nearly_full(any_server)), patience=0.2)
    others = [shard.own_name("other").encode() for shard in any_server.shards()]
    assert sorted(any_server.client.scan_iter()) == [b"job:big", *sorted(others)]


class Meddler:
    """Somebody who has it wait once, at a certain part of a big key, and writes meanwhile."""

    def __init__(self, server: Instance, key: str, part: float, *, cuts: bool) -> None:
        self.meddled = False
        self._server, self._key, self._part, self._cuts = server, key, part, cuts
        self._done = 0.0

    def look(self, batch: Batch) -> None:
        """See how far it is."""
        self._done = batch.large[1] if batch.large else self._done

    def __call__(self) -> bool:
        """Tell whether it is to wait."""
        if self.meddled or self._done < self._part:
            return False
        self.meddled = True
        if self._cuts:
            self._server.client.client_kill_filter(_type="normal", skipme=True)
        self._server.client.hset(self._key, mapping=dict.fromkeys([f"field-{n}" for n in range(0, 6000, 100)], "new"))
        return True


@pytest.mark.parametrize("cuts", [False, True])
@pytest.mark.parametrize("part", [0.2, 0.6, 0.75])
def test_what_is_written_while_a_big_key_waits_is_not_missed(any_server: Instance, part: float, cuts: bool) -> None:
    """It is begun anew; also where the connection was lost meanwhile, and with it its WATCH."""
    fill_big(any_server)
    meddler = Meddler(any_server, "job:big", part, cuts=cuts)
    assert big_migrated(any_server, paused=meddler, look=meddler.look) == {"copied": 1}
    assert meddler.meddled
    assert_big_copied(any_server)


@pytest.mark.parametrize("cuts", [False, True])
@pytest.mark.parametrize("part", [0.2, 0.5])
def test_a_big_target_that_is_written_while_its_rollback_waits_is_kept(
    any_server: Instance, part: float, cuts: bool
) -> None:
    """What has been compared by then may hold no more; as above."""
    fill_big(any_server)
    any_server.client.copy("job:big", "step:big")
    meddler, summary = Meddler(any_server, "step:big", part, cuts=cuts), Summary(JOBS, Command.ROLLBACK)
    with connect(any_server.url) as connection:
        for batch in rollback(
            connection, JOBS, settle=0, limits=Limits(max_pause=0.5), operator=Operator(paused=meddler)
        ):
            meddler.look(batch)
            summary.add(batch)
    assert meddler.meddled
    assert summary.totals.counts == {"kept": 1}
    assert any_server.client.hget("step:big", "field-5900") == b"new"
