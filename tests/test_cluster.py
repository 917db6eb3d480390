"""What there is on a cluster alone: keys across slots, slots that move, nodes that go, versions that mix."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from luamigrate import Batch, Command, Limits, Operator, Summary, connect, migrate, plan, rollback, verify
from tests import binaries, clusters
from tests.clusters import ClusterInstance, Node, slot_of
from tests.conftest import ON_A_CLUSTER, luamigrate, run
from tests.instances import Instance, snapshot
from tests.judge import JOBS, DualWriter, assert_migrated, targets_of
from tests.slots import Move, Mover, fail_over, hand_over
from tests.test_run import fill
from tests.test_types import KINDS, write

pytestmark = pytest.mark.cluster

ANY = ("--map", "job:*=step:*")
EACH = (*ANY, "--json")
RULES = plan([("job:*", "step:*", "any")])
QUICK_MS = 1000
"""After which a node counts as lost where one is to be lost."""
WRITING = {"copy", "restore", "unlink", "del", "rename", "renamenx", "hset", "sadd", "zadd", "rpush", "set", "pexpireat"}


@pytest.fixture
def cluster(server: Instance) -> ClusterInstance:
    """Give the test an empty cluster to itself, which it leaves with every slot where it was."""
    return cast("ClusterInstance", cast("Any", server))


@pytest.fixture
def replicated(server_name: str) -> Iterator[ClusterInstance]:
    """Give the test a cluster of its own whose primaries have a replica each, and are missed soon."""
    kind = server_name.removeprefix(ON_A_CLUSTER)
    with clusters.start(kind, replicas=True, node_timeout=QUICK_MS) as cluster:
        yield cluster


def write_jobs(cluster: ClusterInstance, jobs: int) -> None:
    """Write so many keys of each type, most of which share no slot with their target."""
    for number in range(jobs):
        for kind in KINDS:
            write(cluster.client, kind, f"job:{kind}:{number}", 3 + number % 2 * 300)


def write_to_be_changed(cluster: ClusterInstance, jobs: int) -> None:
    """Write so many hashes, sets and strings that an application may change."""
    pipeline = cluster.client.pipeline()
    for number in range(jobs):
        pipeline.hset(f"job:hash:{number}", mapping={"id": number, "text": "x" * (number % 90)})
        pipeline.sadd(f"job:set:{number}", "member", number)
        pipeline.set(f"job:string:{number}", number)
    pipeline.execute()


def carried_out(
    cluster: ClusterInstance,
    trouble: Callable[[int], object],
    work: Callable[..., Iterator[Batch]] = migrate,
    **options: Any,
) -> tuple[Summary, list[str]]:
    """Do the work, causing trouble after each batch, by the number of keys counted; return what came of it."""
    summary, told = Summary(RULES, Command.RUN if work is migrate else Command.VERIFY), []  # type: ignore[var-annotated]
    with connect(cluster.url) as connection:
        operator, limits = Operator(tell=told.append), Limits(batch_size=20)
        for batch in work(connection, RULES, **{"settle": 0.1, "limits": limits, "operator": operator, **options}):
            summary.add(batch)
            trouble(summary.totals.found)
    return summary, told
