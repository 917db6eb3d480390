"""The sources of a batch under WATCH: when EXEC is believed, and that they are read again wherever it is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from unittest.mock import Mock

import pytest
import redis

from luamigrate import connect, plan
from luamigrate.migration.cross_slot import SCRIPTS, CrossSlotBatch
from luamigrate.migration.source_watch import SourceWatch
from luamigrate.migration.verbs import Compare, Copy, Remove, Verb
from luamigrate.model.errors import Error
from luamigrate.model.limits import WHOLE, Pause
from luamigrate.scripts import calls as scripts
from luamigrate.scripts import library
from luamigrate.scripts.calls import Answer
from luamigrate.server.cluster import Cluster
from luamigrate.server.connection import ReconnectPolicy
from luamigrate.server.spare import MOST_AT_ONCE, MOST_IN_ALL
from tests.clusters import ClusterInstance, Node, slot_of, wait_until
from tests.migration.test_cross_slot_batches import KEYS, assert_equal, names_at_one_node, target_of, write_hashes
from tests.slots import move

pytestmark = pytest.mark.cluster

RULE = plan([("job:*", "step:*:of", "any")])[0]
COPY = Copy()
SOON_MS = 2000


@contextmanager
def connected(cluster: ClusterInstance, login: str = "") -> Iterator[Cluster]:
    """Connect, perhaps as somebody, and have all nodes keep the scripts; lost nodes are waited for."""
    with connect(cluster.url.replace("://", f"://{login}")) as connection:
        assert isinstance(connection, Cluster)
        connection.reconnect_by(ReconnectPolicy(patience=10.0))
        for server, script in product(connection.primaries, SCRIPTS):
            library.register(server, script)
        yield connection


def begin(connection: Cluster, names: list[bytes], verb: Verb = COPY, pause: Pause = WHOLE) -> CrossSlotBatch:
    """Begin with a batch: its sources are being read."""
    return CrossSlotBatch(connection, connection.node_for(names[0]), RULE.pairs(names), pause, verb.cross_slot)


def make(cluster: ClusterInstance, batch: CrossSlotBatch) -> None:
    """Have a batch make its copies, and no more."""
    assert batch.advance()
    wait_until(lambda: all(cluster.client.exists(target) for target in batch.pairs.targets))


def answers(batch: CrossSlotBatch) -> dict[bytes, Answer]:
    """Take the steps that are left, and return what is answered for each source."""
    return dict(zip(batch.pairs.sources, batch.answers()[0], strict=False))


def copied(names: list[bytes]) -> dict[bytes, Answer]:
    """Return the answers for sources that have been copied."""
    return dict.fromkeys(names, b"copied")


def calls(node: Node, command: str, what: str = "calls") -> int:
    """Return how often a node has run a command, or refused to."""
    facts = node.client.info("commandstats").get(f"cmdstat_{command}", {})
    return int(facts.get(what, 0))


def connections_made(node: Node) -> int:
    """Return how many connections a node has been asked for."""
    return int(node.client.info("stats")["total_connections_received"])


def owner(cluster: ClusterInstance, names: list[bytes]) -> Node:
    """Return the node that has the sources."""
    return cluster.owner(slot_of(names[0]))


@pytest.fixture
def names(cluster: ClusterInstance) -> list[bytes]:
    """Write sources to one node and return their names."""
    names = names_at_one_node(cluster)
    write_hashes(cluster, names)
    return names


@pytest.mark.parametrize("verb", [COPY, Compare(), Remove()], ids=["copy", "compare", "remove"])
def test_sources_to_which_nobody_writes_are_read_once(cluster: ClusterInstance, names: list[bytes], verb: Verb) -> None:
    """All but one of them, by which the node shows that it has its slots still."""
    if verb is not COPY:
        for name in names:
            cluster.client.restore(target_of(name), 0, cluster.client.dump(name))
    node = owner(cluster, names)
    at_targets = [target for target in map(target_of, names) if node.has(slot_of(target))]
    with connected(cluster) as connection:
        before = calls(node, "dump")
        batch = begin(connection, names, verb)
        assert set(answers(batch).values()) <= {b"copied", b"same", b"removed"}
    # A target is read as it is made or compared, and once more as it is removed.
    of_targets = len(at_targets) * (2 if isinstance(verb, Remove) else 1)
    assert calls(node, "dump") - before == KEYS + 1 + of_targets


def test_one_written_source_has_all_read_again_and_only_itself_copied_again(
    cluster: ClusterInstance, names: list[bytes]
) -> None:
    """What EXEC tells of a batch says nothing about the single key."""
    with connected(cluster) as connection:
        batch = begin(connection, names)
        make(cluster, batch)
        cluster.client.hset(names[7], "text", "other")
        restored = sum(calls(node, "restore") for node in cluster.primaries())
        assert answers(batch) == copied(names)
        assert sum(calls(node, "restore") for node in cluster.primaries()) == restored + 1
    assert_equal(cluster, names)


def test_a_source_that_was_written_back_is_confirmed_by_reading_it(
    cluster: ClusterInstance, names: list[bytes]
) -> None:
    """EXEC says no, and yet nothing has changed."""
    with connected(cluster) as connection:
        batch = begin(connection, names)
        make(cluster, batch)
        cluster.client.hset(names[7], "field", "1")
        cluster.client.hdel(names[7], "field")
        assert answers(batch) == copied(names)
    assert_equal(cluster, names)


def test_a_connection_lost_between_watch_and_exec_confirms_nothing(
    cluster: ClusterInstance, names: list[bytes]
) -> None:
    """WATCH ended with it: an EXEC on another one would find nothing that was written meanwhile."""
    node = owner(cluster, names)
    with connected(cluster) as connection:
        batch = begin(connection, names)
        make(cluster, batch)
        node.client.client_kill_filter(_type="normal", skipme=True)
        cluster.another_client().hset(names[7], "text", "other")
        assert answers(batch) == copied(names)
        assert_equal(cluster, names)
        # The next batch is lent another one.
        assert set(answers(begin(connection, names)).values()) == {b"same"}


def test_a_connection_lost_before_the_sources_are_read_costs_nothing_but_time(
    cluster: ClusterInstance, names: list[bytes]
) -> None:
    """One that lay idle is found lost only when it is used."""
    with connected(cluster) as connection:
        answers(begin(connection, names[:1]))
        owner(cluster, names).client.client_kill_filter(_type="normal", skipme=True)
        batch = begin(connection, names)
        assert answers(batch) == {**copied(names), names[0]: b"same"}
    assert_equal(cluster, names)


def test_connections_that_are_always_lost_are_not_made_for_ever(cluster: ClusterInstance, names: list[bytes]) -> None:
    """As behind a proxy that ends the connection at WATCH."""
    node = owner(cluster, names)
    with connected(cluster) as connection:
        before = connections_made(node)
        spare = connection.spare(connection.node_for(names[0]))
        for _ in range(2 * MOST_IN_ALL):
            if lent := spare.lend():
                spare.drop(lent)
        assert connections_made(node) - before == MOST_IN_ALL
        assert answers(begin(connection, names)) == copied(names)


def test_no_more_connections_are_lent_at_once_than_are_in_use(cluster: ClusterInstance, names: list[bytes]) -> None:
    """Further batches in flight read their sources again; one that ends gives its connection to the next."""
    with connected(cluster) as connection:
        spare = connection.spare(connection.node_for(names[0]))
        batches = [begin(connection, names[index : index + 1]) for index in range(MOST_AT_ONCE + 2)]
        assert spare.lend() is None
        assert [each for batch in batches for each in answers(batch).values()] == [b"copied"] * len(batches)
        lent = [spare.lend() for _ in range(MOST_AT_ONCE)]
        assert len({id(each) for each in lent if each}) == MOST_AT_ONCE
    assert_equal(cluster, names[: MOST_AT_ONCE + 2])


def test_connections_are_made_as_the_work_begins(cluster: ClusterInstance, names: list[bytes]) -> None:
    """A node that hangs later is waited for on one that says so; making one there would take long without a word."""
    node = owner(cluster, names)
    with connected(cluster) as connection:
        answers(begin(connection, names[:1]))
        before = connections_made(node)
        for batch in [begin(connection, names[index : index + 1]) for index in range(MOST_AT_ONCE + 2)]:
            answers(batch)
        assert connections_made(node) == before


def test_a_user_who_may_not_watch_is_asked_to_once(cluster: ClusterInstance, names: list[bytes]) -> None:
    """Everything is done all the same."""
    node = owner(cluster, names)
    for each in cluster.primaries():
        each.client.acl_setuser("careful", reset=True, enabled=True, nopass=True, keys=["*"], categories=["+@all"])
        each.client.execute_command("ACL", "SETUSER", "careful", "-watch")
    try:
        with connected(cluster, "careful:any@") as connection:
            before = calls(node, "watch", "rejected_calls")
            for some in (names[:5], names[5:]):
                batch = begin(connection, some)
                make(cluster, batch)
                cluster.client.hset(some[1], "text", "other")
                assert answers(batch) == copied(some)
            assert calls(node, "watch", "rejected_calls") - before == 5
    finally:
        cluster.client.acl_deluser("careful")
    assert_equal(cluster, names)


@pytest.mark.parametrize("reaped", [False, True], ids=["not reaped", "reaped"])
def test_a_source_that_expires_before_exec_is_gone(cluster: ClusterInstance, names: list[bytes], reaped: bool) -> None:
    """Also where the server has not noticed yet that nobody sees it any more; and so is what was made of it."""
    node = owner(cluster, names)
    node.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", int(reaped))
    try:
        with connected(cluster) as connection:
            cluster.client.pexpire(names[7], SOON_MS)
            batch = begin(connection, names)
            make(cluster, batch)
            # Whoever asked for the key would have the server notice.
            time.sleep(SOON_MS / 1000)
            wait_until(lambda: not reaped or not cluster.client.exists(names[7]))
            assert answers(batch) == copied(names) | {names[7]: b"gone"}
            assert not cluster.client.exists(target_of(names[7]))
    finally:
        node.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 1)
    assert_equal(cluster, [name for name in names if name != names[7]])


def test_a_batch_that_is_cut_short_leaves_no_watch_to_the_next_one(
    cluster: ClusterInstance, names: list[bytes]
) -> None:
    """Those of its sources that it has not answered for are written to, and the next batch is confirmed by EXEC."""
    node = owner(cluster, names)
    with connected(cluster) as connection:
        decided = answers(begin(connection, names, pause=Pause(10_000_000, 3_000)))
        assert len(decided) < KEYS - 5
        assert_next_batch_reads_once(cluster, connection, node, [*decided][:2], names[len(decided) :])


@pytest.mark.parametrize("verb", [COPY, Compare()], ids=["all gone", "all missing"])
def test_a_batch_with_nothing_to_confirm_leaves_no_watch_to_the_next_one(
    cluster: ClusterInstance, names: list[bytes], verb: Verb
) -> None:
    """Its sources are not there, or its targets."""
    node = owner(cluster, names)
    chosen = names[:10]
    if verb is COPY:
        cluster.client.delete(*chosen)
    with connected(cluster) as connection:
        assert set(answers(begin(connection, chosen, verb)).values()) <= {b"gone", b"missing"}
        assert_next_batch_reads_once(cluster, connection, node, names[10:12], chosen)


@pytest.mark.parametrize("problem", [Error("no"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_batch_that_ends_in_the_middle_leaves_no_watch_to_the_next_one(
    cluster: ClusterInstance, names: list[bytes], monkeypatch: pytest.MonkeyPatch, problem: BaseException
) -> None:
    """Nobody knows what is under way on its connection, so that is not lent again."""
    with connected(cluster) as connection:
        with monkeypatch.context() as patch:
            patch.setattr(scripts, "cross_slot_create", Mock(side_effect=problem))
            with pytest.raises(type(problem)):
                begin(connection, names[:10]).answers()
        assert_next_batch_reads_once(cluster, connection, owner(cluster, names), names[10:12], names[:10])


def assert_next_batch_reads_once(
    cluster: ClusterInstance, connection: Cluster, node: Node, chosen: list[bytes], written: list[bytes]
) -> None:
    """Check that a batch reads its sources once, and one of them twice, whatever is written to others."""
    before = calls(node, "dump")
    batch = begin(connection, chosen)
    make(cluster, batch)
    for name in written:
        cluster.client.hset(name, "text", "other")
    assert answers(batch).keys() == {*chosen}
    at_targets = sum(node.has(slot_of(target_of(name))) for name in chosen)
    assert calls(node, "dump") - before == len(chosen) + 1 + at_targets


def test_what_acts_waits_while_a_node_hands_its_slots_over(cluster: ClusterInstance, names: list[bytes]) -> None:
    """It lets writes wait, for its replica may have newer ones already: an EXEC that only reads would be answered."""
    node = owner(cluster, names)
    over = threading.Event()

    def end() -> None:
        over.set()
        node.client.execute_command("CLIENT", "UNPAUSE")

    with connected(cluster) as connection:
        batch = begin(connection, names)
        make(cluster, batch)
        node.client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        timer = threading.Timer(0.5, end)
        timer.start()
        assert answers(batch) == copied(names)
        assert over.is_set()
        timer.join()


def test_a_primary_that_is_a_replica_now_confirms_nothing(replicated: ClusterInstance) -> None:
    """It has not heard of what was written at the primary that took its place."""
    names = names_at_one_node(replicated)
    write_hashes(replicated, names)
    former = owner(replicated, names)
    replica = replicated.replica_of(former)
    assert former.client.execute_command("WAIT", 1, 10_000) == 1
    for node in replicated.nodes:
        node.client.execute_command("ACL", "SETUSER", "mover", "on", ">secret", "~*", "&*", "+@all")
    with connected(replicated, "mover:secret@") as connection:
        batch = begin(connection, names)
        make(replicated, batch)
        # No replica can follow it.
        mover = redis.Redis(port=replica.port, username="mover", password="secret", protocol=2)
        mover.execute_command("ACL", "SETUSER", "default", "off")
        mover.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
        wait_until(lambda: former.client.execute_command("ROLE")[0] != b"master")
        mover.hset(names[7], "text", "other")
        assert answers(batch) == copied(names)
        cluster = replicated.another_client(username="mover", password="secret")
        for name in names:
            assert cluster.hgetall(target_of(name)) == cluster.hgetall(name)


def test_a_source_in_a_slot_that_moves_is_not_confirmed_by_the_node_that_had_it(movable: ClusterInstance) -> None:
    """Taken key by key, it is written to where it has come: its former node hears nothing of that."""
    names = names_at_one_node(movable)
    write_hashes(movable, names)
    other = next(node for node in movable.primaries() if node is not owner(movable, names))
    with connected(movable) as connection:
        moving = begin(connection, names[:10])
        make(movable, moving)
        move(movable, slot_of(names[7]), other)
        other.client.hset(names[7], "text", "other")
        assert answers(moving) == copied(names[:10])
        # Nobody has told us: WATCH is refused, but only that of one batch.
        assert answers(begin(connection, names[7:20])).keys() == {*names[7:20]}
    assert_equal(movable, names[:20])


def test_a_source_that_is_read_elsewhere_is_read_there_again(
    movable: ClusterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its former node says of it by then."""
    names = names_at_one_node(movable)
    write_hashes(movable, names)
    other = next(node for node in movable.primaries() if node is not owner(movable, names))
    monkeypatch.setattr(SourceWatch, "holds", True)
    with connected(movable) as connection:
        move(movable, slot_of(names[7]), other)
        batch = begin(connection, names)
        make(movable, batch)
        other.client.hset(names[7], "text", "other")
        assert answers(batch) == copied(names)
    assert_equal(movable, names)
