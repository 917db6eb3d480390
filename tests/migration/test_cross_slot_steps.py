"""Pairs across slots, one step after the other: what others do between two of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest

from luamigrate import Summary, connect, migrate, plan
from luamigrate.migration import watch
from luamigrate.migration.cross_slot import CrossSlotBatch
from luamigrate.migration.verbs import Copy, Remove, Verb
from luamigrate.model.limits import WHOLE
from luamigrate.model.rules import Pairs
from luamigrate.scripts import library
from luamigrate.scripts.calls import Answer
from luamigrate.server.cluster import Cluster
from luamigrate.server.connection import Connection
from tests import clusters
from tests.clusters import ClusterInstance, slot_of, wait_until
from tests.conftest import ON_A_CLUSTER, luamigrate
from tests.instances import snapshot
from tests.judge import assert_migrated
from tests.migration.test_big import FAR
from tests.migration.test_types import write
from tests.slots import Move

pytestmark = pytest.mark.cluster

RULES = plan([("job:*", "step:*", "hash")])
ACROSS_SLOTS = ("--map", "job:*=step:*", "--max-pause", "0.1", "--json")
COPY, REMOVE = Copy(), Remove()
STEPS_TO_MAKE, STEPS_TO_COMPARE = 1, 2
"""After these a copy has been sent, and an equal pair is about to be confirmed."""


def between(cluster: ClusterInstance, verb: Verb, steps: int, act: Callable[[], object]) -> Answer:
    """Begin a verb with job:11 (source and target are on two nodes), act after so many steps, and return the answer."""
    with connect(cluster.url) as connection:
        assert isinstance(connection, Cluster)
        for server, script in product(
            connection.primaries, ("cross_slot/read", "cross_slot/create", "cross_slot/replace", "cross_slot/compare")
        ):
            library.register(server, script)
        pairs = Pairs(RULES[0], [b"job:11"], [b"step:11"])
        batch = CrossSlotBatch(connection, connection.node_for(b"job:11"), pairs, WHOLE, verb.cross_slot)
        for _ in range(steps):
            assert batch.advance()
        act()
        (answer,), _ = batch.answers()
        return answer


def once_there(cluster: ClusterInstance, act: Callable[[], object]) -> None:
    """Do something as soon as the copy is there."""
    wait_until(lambda: bool(cluster.client.exists("step:11")))
    act()


def test_a_source_that_becomes_another_type_while_it_is_copied_leaves_no_copy(cluster: ClusterInstance) -> None:
    """It is ignored, so that nobody would ever hear of the copy."""
    cluster.client.hset("job:11", "a", "1")
    act = partial(cluster.client.eval, "redis.call('DEL', KEYS[1]) redis.call('SET', KEYS[1], 'text')", 1, "job:11")
    assert between(cluster, COPY, STEPS_TO_MAKE, lambda: once_there(cluster, act)) == b"ignored string"
    assert not cluster.client.exists("step:11")


def test_a_copy_that_somebody_has_changed_meanwhile_is_not_withdrawn(cluster: ClusterInstance) -> None:
    """It belongs to whoever wrote it."""
    cluster.client.hset("job:11", "a", "1")

    def act() -> None:
        cluster.client.delete("job:11")
        cluster.client.hset("step:11", "b", "2")

    assert between(cluster, COPY, STEPS_TO_MAKE, lambda: once_there(cluster, act)) == b"gone"
    assert cluster.client.hgetall("step:11") == {b"a": b"1", b"b": b"2"}


@pytest.mark.parametrize("writes", [False, True], ids=["", "and somebody writes to the copy"])
def test_a_big_source_that_is_deleted_as_its_copy_is_published(
    cluster: ClusterInstance, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    """No copy of it stays, but for one that somebody has written to at once."""
    write(cluster.client, "hash", "job:11", 3000)
    execute = watch._Watched._exec

    def and_delete(watched: Any, server: Connection, act: watch.Act | None) -> Any:
        answer = execute(watched, server, act)
        if act and answer == b"published":
            cluster.client.delete("job:11")
            if writes:
                cluster.client.hset("step:11", "a", "1")
        return answer

    monkeypatch.setattr(watch._Watched, "_exec", and_delete)
    result = luamigrate("run", *ACROSS_SLOTS, url=cluster.url)
    assert (result.code, result.totals["gone"]) == (0, 1)
    assert cluster.client.hlen("step:11") == (3001 if writes else 0)


@pytest.mark.parametrize("act", ["pexpireat", "persist"])
def test_a_target_whose_expiry_changes_meanwhile_is_not_removed(cluster: ClusterInstance, act: str) -> None:
    """It may be wanted for longer than its source now."""
    for name in ("job:11", "step:11"):
        cluster.client.hset(name, "a", "1")
        cluster.client.pexpireat(name, FAR)
    later = (FAR + 60_000,) if act == "pexpireat" else ()
    answer = between(cluster, REMOVE, STEPS_TO_COMPARE, lambda: getattr(cluster.client, act)("step:11", *later))
    assert isinstance(answer, list)
    assert answer[0] == b"kept"
    assert cluster.client.hgetall("step:11") == {b"a": b"1"}


def test_fields_that_expire_in_the_source_alone_are_noticed_where_nothing_expires(cluster: ClusterInstance) -> None:
    """The target's node holds no such field, and yet the pair is not the same, nor is its target removed."""
    if not cluster.has_field_expiries:
        pytest.skip("its fields do not expire")
    for name in ("job:11", "step:11"):
        write(cluster.client, "hash", name, 3000)
    cluster.client.execute_command("HPEXPIREAT", "job:11", FAR, "FIELDS", 1, "00001")
    for command in ("verify", "rollback"):
        result = luamigrate(command, *ACROSS_SLOTS, *(["--yes"] if command == "rollback" else []), url=cluster.url)
        assert result.code == 3
        assert result.totals.keys() & {"expiry", "kept"}
    assert cluster.client.exists("step:11")


def test_a_slot_on_its_way_to_a_node_without_slots_is_no_hindrance(server_name: str) -> None:
    """As it is while a cluster grows."""
    kind = server_name.removeprefix(ON_A_CLUSTER)
    with clusters.start(kind) as cluster, clusters.added(cluster, kind) as newcomer:
        for number in range(40):
            cluster.client.hset(f"job:{number}", "id", number)
        before = snapshot(cluster.client)
        under_way = Move.begin(cluster, slot_of("job:11"), newcomer)
        result = luamigrate("run", *ACROSS_SLOTS, url=cluster.url)
        under_way.finish()
        assert (result.code, result.totals["copied"]) == (0, 40), result.err
        assert_migrated(cluster, before)


@pytest.mark.parametrize("command", [("run",), ("check",)])
def test_a_node_that_is_lost_before_we_begin_is_waited_for_until_it_is_replaced(
    replicated: ClusterInstance, command: tuple[str, ...]
) -> None:
    """The others still name it; nobody need see to it."""
    for number in range(20):
        replicated.client.hset(f"job:{number}", "id", number)
    primary, entry = replicated.owner(slot_of("job:11")), replicated.owner(slot_of("job:1"))
    assert primary is not entry
    assert primary.client.execute_command("WAIT", 1, 10_000) == 1
    primary.kill()
    result = luamigrate(*command, "--map", "job:*=step:*", "--json", url=entry.url)
    assert (result.code, result.document["error"]) == (0, None), result.err
    assert "waiting for the server: cannot connect to the server at redis://127.0.0.1:" in result.err


def test_a_replica_promoted_by_force_has_the_run_begin_anew(replicated: ClusterInstance) -> None:
    """It may lack what was copied: nothing but its rank tells of that."""
    for number in range(60):
        replicated.client.hset(f"job:{number}", "id", number)
    before = snapshot(replicated.client)
    primary = replicated.owner(slot_of("step:11"))
    replica = replicated.replica_of(primary)
    summary = Summary(RULES)
    promoted = False
    with connect(replicated.url) as connection:
        for batch in migrate(connection, RULES, settle=0):
            summary.add(batch)
            if summary.totals.found == len(before) and not promoted:
                promoted = True
                replica.cluster("FAILOVER", "TAKEOVER")
                wait_until(lambda: replica.is_primary and not primary.is_primary)
                # As if the copy had not reached it in time.
                replica.client.delete("step:11")
    assert promoted
    assert any("from the beginning" in warning for warning in summary.warnings)
    assert_migrated(replicated, before)
