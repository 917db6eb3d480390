"""Pairs across slots in one batch, of which a few are not as usual: they are told apart from the others."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from luamigrate import connect, plan
from luamigrate.migration.cross_slot import SCRIPTS, CrossSlotBatch
from luamigrate.migration.verbs import Compare, Copy, Remove, Verb
from luamigrate.model.limits import WHOLE, Pause
from luamigrate.model.rules import ANY
from luamigrate.scripts import library
from luamigrate.scripts.calls import Answer
from luamigrate.scripts.replies import LONGEST_MARK
from luamigrate.server.cluster import Cluster
from tests.clusters import ClusterInstance, slot_of, wait_until
from tests.instances import expires_at
from tests.migration.test_big import FAR
from tests.slots import move

pytestmark = pytest.mark.cluster

UNTIL_MADE = 1
"""Steps, after which the copies are there, and the sources have not been read again."""
KEYS = 30
NOTHING = b"0" * 40
"""The digest of a key that is not there."""


def decide(
    cluster: ClusterInstance,
    verb: Verb,
    names: list[bytes],
    *,
    kind: str = ANY,
    act: Callable[[], object] | None = None,
    pause: Pause = WHOLE,
) -> dict[bytes, Answer]:
    """Decide about sources of one node, and return what is answered; act once the first copy is there."""
    with connect(cluster.url) as connection:
        assert isinstance(connection, Cluster)
        for server, script in itertools.product(connection.primaries, SCRIPTS):
            library.register(server, script)
        pairs = plan([("job:*", "step:*:of", kind)])[0].pairs(names)
        batch = CrossSlotBatch(connection, connection.node_for(names[0]), pairs, pause, verb.cross_slot)
        if act:
            assert batch.advance()
            wait_until(lambda: all(cluster.client.exists(target) for target in pairs.targets))
            act()
        answers, _ = batch.answers()
        return dict(zip(names, answers, strict=False))


def target_of(name: bytes) -> bytes:
    """Return the name of its target: with an ending, for names that differ in front only are mostly of one node."""
    return name.replace(b"job:", b"step:") + b":of"


def names_at_one_node(cluster: ClusterInstance) -> list[bytes]:
    """Return names of sources that one node has, each in another slot than its target; these are on several nodes."""
    owner = cluster.owner(slot_of("job:11"))
    names = (b"job:%d" % number for number in itertools.count(11))
    crossing = (name for name in names if owner.has(slot_of(name)) and slot_of(name) != slot_of(target_of(name)))
    chosen = [*itertools.islice(crossing, KEYS)]
    assert len({cluster.owner(slot_of(target_of(name))).port for name in chosen}) > 1
    return chosen


def write_hashes(cluster: ClusterInstance, names: list[bytes], *, size: int = 10) -> None:
    """Write a hash with a field of its own, so many bytes long, to each name."""
    for number, name in enumerate(names):
        cluster.client.hset(name, mapping={"id": number, "text": bytes(number + byte % 97 for byte in range(size))})


def assert_equal(cluster: ClusterInstance, names: list[bytes]) -> None:
    """Check that each target has what its source has, and expires with it."""
    for name in names:
        assert cluster.digest_value(target_of(name)) == cluster.digest_value(name) != NOTHING
        assert expires_at(cluster.client, target_of(name)) == expires_at(cluster.client, name)


@pytest.mark.parametrize("size", [10, 2 * LONGEST_MARK], ids=["short", "long"])
@pytest.mark.parametrize("act", ["hset", "pexpireat", "both"])
@pytest.mark.parametrize("there", [0, 1], ids=["", "one target was there"])
def test_of_many_copies_those_are_made_anew_whose_source_has_changed(
    cluster: ClusterInstance, size: int, act: str, there: int
) -> None:
    """In value, in expiry where nothing has expired so far, or in both; long payloads are known by their digests."""
    names = names_at_one_node(cluster)
    write_hashes(cluster, names, size=size)
    for name in names[:there]:
        cluster.client.restore(target_of(name), 0, cluster.client.dump(name))

    def change() -> None:
        for name in names[3::10]:
            if act != "pexpireat":
                cluster.client.hset(name, "text", b"other")
            if act != "hset":
                cluster.client.pexpireat(name, FAR)

    expected = dict.fromkeys(names, b"copied") | dict.fromkeys(names[:there], b"same")
    assert decide(cluster, Copy(), names, act=change) == expected
    assert_equal(cluster, names)


def test_of_many_copies_those_are_withdrawn_whose_source_is_gone_or_of_another_type(cluster: ClusterInstance) -> None:
    """The others stay, and are `copied`."""
    names = names_at_one_node(cluster)
    write_hashes(cluster, names)
    gone, ignored = names[4], names[20]

    def change() -> None:
        cluster.client.delete(gone, ignored)
        cluster.client.set(ignored, "text")

    answers = decide(cluster, Copy(), names, kind="hash", act=change)
    assert answers == dict.fromkeys(names, b"copied") | {gone: b"gone", ignored: b"ignored string"}
    assert not cluster.client.exists(target_of(gone))
    assert not cluster.client.exists(target_of(ignored))
    assert_equal(cluster, [name for name in names if name not in (gone, ignored)])


@pytest.mark.parametrize("size", [10, 2 * LONGEST_MARK], ids=["short", "long"])
def test_targets_that_are_there_are_compared_and_the_others_made(cluster: ClusterInstance, size: int) -> None:
    """Equal or not, with another expiry, of another type: none is written to, by a run or by a comparison."""
    names = names_at_one_node(cluster)
    write_hashes(cluster, names, size=size)
    same, differing, expiring, alien = names[2], names[9], names[10], names[29]
    for name in (same, differing, expiring):
        cluster.client.restore(target_of(name), 0, cluster.client.dump(name))
    cluster.client.hset(target_of(differing), "text", "other")
    cluster.client.pexpireat(target_of(expiring), FAR)
    cluster.client.set(target_of(alien), "text")
    before = {name: cluster.client.dump(target_of(name)) for name in (same, differing, expiring, alien)}

    def words(answers: dict[bytes, Answer]) -> dict[bytes, object]:
        return {name: answer[0] if isinstance(answer, list) else answer for name, answer in answers.items()}

    odd: dict[bytes, object] = {same: b"same", differing: b"differs", expiring: b"expiry", alien: b"differs"}
    assert words(decide(cluster, Copy(), names)) == dict.fromkeys(names, b"copied") | odd
    assert {name: cluster.client.dump(target_of(name)) for name in before} == before
    assert words(decide(cluster, Copy(), names)) == dict.fromkeys(names, b"same") | odd
    assert words(decide(cluster, Compare(), names)) == dict.fromkeys(names, b"same") | odd
    # A target whose source lives longer is removed too.
    removed = dict.fromkeys(names, b"removed") | {differing: b"kept", alien: b"kept"}
    assert words(decide(cluster, Remove(), names)) == removed


def test_types_that_are_not_wanted_are_ignored_among_others(cluster: ClusterInstance) -> None:
    """Wherever in a batch they are, and whichever type comes first."""
    names = names_at_one_node(cluster)
    write: list[tuple[bytes, Callable[[bytes], object]]] = [
        (b"string", lambda name: cluster.client.set(name, "text")),
        (b"hash", lambda name: cluster.client.hset(name, "a", "1")),
        (b"list", lambda name: cluster.client.rpush(name, "a", "b")),
        (b"set", lambda name: cluster.client.sadd(name, "a", "b")),
        (b"hash", lambda name: cluster.client.hset(name, "b", "2")),
        (b"stream", lambda name: cluster.client.xadd(name, {"a": "1"})),
        (b"zset", lambda name: cluster.client.zadd(name, {"a": 1})),
    ]
    kinds = dict(zip(names, itertools.cycle(write), strict=False))
    for name, (_, act) in kinds.items():
        act(name)
    answers = decide(cluster, Copy(), names, kind="hash")
    wanted = [name for name, (kind, _) in kinds.items() if kind == b"hash"]
    ignored = {name: b"ignored " + kind for name, (kind, _) in kinds.items() if name not in wanted}
    assert answers == dict.fromkeys(wanted, b"copied") | ignored
    assert_equal(cluster, wanted)
    others = [name for name in names if name not in wanted]
    assert decide(cluster, Copy(), names) == dict.fromkeys(others, b"copied") | dict.fromkeys(wanted, b"same")
    assert_equal(cluster, names)


def test_scripts_whose_time_is_spent_leave_the_rest_to_others(cluster: ClusterInstance) -> None:
    """What is read has time for the first pairs only; of their targets, some large, each call has time for a few."""
    names = names_at_one_node(cluster)
    write_hashes(cluster, names)
    large = names[:12]
    for name in large:
        cluster.client.hset(target_of(name), mapping={f"field {number}": "text" for number in range(60)})
    answers = decide(cluster, Copy(), names, pause=Pause(10_000_000, 3_000))
    decided = [*answers]
    assert len(large) < len(decided) < KEYS
    assert decided == names[: len(decided)]
    copied = [name for name in decided if name not in large]
    assert {name: answers[name] for name in copied} == dict.fromkeys(copied, b"copied")
    assert all(isinstance(answers[name], list) and answers[name][0] == b"differs" for name in large)
    assert_equal(cluster, copied)
    assert not any(cluster.client.exists(target_of(name)) for name in names[len(decided) :])


@pytest.mark.parametrize("end", [bytes, target_of], ids=["source", "target"])
def test_a_slot_that_moves_in_the_middle_of_a_batch_takes_no_key_from_it(
    movable: ClusterInstance, end: Callable[[bytes], bytes]
) -> None:
    """After the copies have been made, one source has changed that lives elsewhere now, or whose target does."""
    names = names_at_one_node(movable)
    write_hashes(movable, names)
    slot = slot_of(end(names[15]))
    former = movable.owner(slot)
    other = next(node for node in movable.primaries() if node is not former)

    def act() -> None:
        move(movable, slot, other)
        movable.client.hset(names[15], "text", "other")

    assert decide(movable, Copy(), names, act=act) == dict.fromkeys(names, b"copied")
    assert_equal(movable, names)


def test_a_source_that_vanishes_before_its_copy_is_confirmed_is_gone(cluster: ClusterInstance) -> None:
    """All of a batch: nothing is left of it."""
    names = names_at_one_node(cluster)
    write_hashes(cluster, names)
    answers = decide(cluster, Copy(), names, act=lambda: [cluster.client.delete(name) for name in names])
    assert answers == dict.fromkeys(names, b"gone")
    assert not any(cluster.client.exists(target_of(name)) for name in names)
