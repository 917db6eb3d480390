"""What there is on a cluster alone: keys across slots, versions that mix, parts that are missing."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest
import redis

from tests import binaries, clusters
from tests.cli.test_bad_input import assert_one_line
from tests.clusters import ClusterInstance, slot_of
from tests.conftest import luamigrate, run
from tests.instances import Instance, expires_at, snapshot
from tests.judge import assert_migrated
from tests.migration.test_run import fill
from tests.migration.test_types import KINDS, write
from tests.preflight.test_checks import ACROSS, DRY_RUN, KEYS, NEWER, WRITING_ACROSS, commands, user
from tests.slots import Move, move

pytestmark = pytest.mark.cluster

ANY = ("--map", "job:*=step:*")
EACH = (*ANY, "--json")


def write_jobs(cluster: ClusterInstance, jobs: int) -> None:
    """Write so many keys of each type that expire, small ones and larger ones; few share a slot with their target."""
    for number in range(jobs):
        for kind in KINDS:
            write(cluster.client, kind, f"job:{kind}:{number}", 3 + number % 2 * 300)


def test_keys_of_every_type_are_copied_compared_and_rolled_back_across_slots(cluster: ClusterInstance) -> None:
    """With their expiries; in the end everything is what it was, by the nodes' own digests."""
    write_jobs(cluster, 12)
    before, digest = snapshot(cluster.client), cluster.digest()
    keys = len(before)
    holders = Counter(
        cluster.owner(slot_of(key)) is cluster.owner(slot_of(key.replace(b"job:", b"step:"))) for key in before
    )
    assert min(holders.values()) > keys // 4

    result = run(cluster, *EACH)
    assert (result.code, result.totals) == (0, {"found": keys, "copied": keys, "ignored": 0})
    assert_migrated(cluster, before)
    for kind in KINDS:
        assert cluster.digest_value(f"job:{kind}:1") == cluster.digest_value(f"step:{kind}:1")

    for command in (("run",), ("run", "--dry-run"), ("verify", "--extra")):
        again = luamigrate(*command, *EACH, url=cluster.url)
        assert (again.code, again.totals) == (0, {"found": keys, "same": keys, "ignored": 0})
    back = luamigrate("rollback", "--yes", *EACH, url=cluster.url)
    assert (back.code, back.totals) == (0, {"found": keys, "removed": keys, "ignored": 0})
    assert cluster.digest() == digest


def test_what_came_of_the_keys_is_told_by_node_too(cluster: ClusterInstance) -> None:
    """The nodes' numbers make up the totals."""
    fill(cluster.client, jobs=60)
    document = run(cluster, "--json").document
    assert document["server"]["mode"] == "cluster"
    assert len(document["shards"]) == document["server"]["nodes"] == 3
    assert sum(shard["found"] for shard in document["shards"]) == document["totals"]["found"] == 64
    assert sum(shard["copied"] for shard in document["shards"]) == document["totals"]["copied"] == 64


def test_any_node_of_the_cluster_will_do(replicated: ClusterInstance) -> None:
    """A replica too: it is asked for the others, and nothing is written to it."""
    write_jobs(replicated, 3)
    before = snapshot(replicated.client)
    (node,) = replicated.nodes[-1:]
    assert not node.is_primary
    result = luamigrate("run", *EACH, url=node.url)
    assert (result.code, result.totals["copied"]) == (0, len(before))
    assert_migrated(replicated, before)


def test_keys_with_hash_tags_share_a_slot_and_are_copied_there(cluster: ClusterInstance) -> None:
    """Among others that do not."""
    for number in range(20):
        write(cluster.client, "hash", f"job:{{tag}}:{number}", 5)
        write(cluster.client, "zset", f"{{job:{number}}}", 5)
        write(cluster.client, "list", f"job:{number}", 5)
    before = snapshot(cluster.client)
    result = run(cluster, "--map", "{job:*={step:*", *EACH)
    assert (result.code, result.totals) == (0, {"found": 60, "copied": 60, "ignored": 0})
    assert_migrated(cluster, before, {b"{job:": b"{step:", b"job:": b"step:"})


def test_a_dry_run_and_verify_write_nothing_on_any_node(cluster: ClusterInstance) -> None:
    """By the nodes' digests and their counts of changes, whatever the targets look like."""
    write_jobs(cluster, 4)
    run(cluster, *ANY)
    for kind in KINDS:
        cluster.client.delete(f"step:{kind}:0")
        cluster.client.expire(f"step:{kind}:1", 1000)
    cluster.client.hset("step:hash:2", "more", "1")
    cluster.client.srem("step:set:2", "00001")
    digest = cluster.digest()
    changes = cluster.client.info("persistence")["rdb_changes_since_last_save"]
    for command in (("run", "--dry-run", "--on-existing", "fill"), ("verify", "--extra"), ("rollback", "--dry-run")):
        luamigrate(*command, *ANY, url=cluster.url)
        assert cluster.digest() == digest
    assert cluster.client.info("persistence")["rdb_changes_since_last_save"] == changes


def test_replicas_are_left_alone(replicated: ClusterInstance) -> None:
    """Nobody even connects to them."""
    write_jobs(replicated, 4)
    replicas = [node for node in replicated.nodes if not node.is_primary]

    def connections() -> list[int]:
        return [int(cast("Any", node.client.info("stats"))["total_connections_received"]) for node in replicas]

    before = connections()
    for command in (("run",), ("verify",), ("rollback", "--yes")):
        assert luamigrate(*command, *ANY, url=replicated.url).code == 0
    assert connections() == before


def test_a_string_of_any_size_goes_in_pieces(cluster: ClusterInstance) -> None:
    """No script and no payload is longer than the pause allows."""
    cluster.client.set("job:1", b"\x00\xff" * 2_000_000, px=1_000_000)
    before = snapshot(cluster.client)
    result = run(cluster, *EACH)
    assert (result.code, result.totals) == (0, {"found": 1, "copied": 1, "ignored": 0})
    assert_migrated(cluster, before)
    assert expires_at(cluster.client, "step:1") == expires_at(cluster.client, "job:1")


@pytest.mark.parametrize("kinds", [("redis-6.2", "redis-8.2"), ("redis-6.2", "valkey-9.1")])
def test_what_a_node_of_another_version_cannot_read_fails_for_that(kinds: tuple[str, str]) -> None:
    """Its payload is refused: `failed` for `version`, nothing is made of it, and the others are copied."""
    skip_without(*kinds)
    with clusters.start(*kinds) as cluster:
        write_jobs(cluster, 12)
        before = snapshot(cluster.client)
        refused = {key for key in before if is_refused(cluster, key)}
        assert 0 < len(refused) < len(before)

        result = run(cluster, *EACH)
        copied = len(before) - len(refused)
        totals = {"found": len(before), "copied": copied, "failed": len(refused), "ignored": 0}
        assert (result.code, result.totals) == (1, totals)
        assert result.document["rules"][0]["failed_reasons"] == {"version": len(refused)}
        targets = {key for key in snapshot(cluster.client) if key.startswith(b"step:")}
        assert targets == {key.replace(b"job:", b"step:") for key in before.keys() - refused}


def skip_without(*kinds: str) -> None:
    """Skip visibly where a server cannot be had."""
    for kind in kinds:
        if isinstance(found := binaries.find(kind), str):
            pytest.skip(f"{kind}: {found}")


def is_refused(cluster: ClusterInstance, source: bytes) -> bool:
    """Tell whether the node of a key's target would not take its payload, by trying that on another name."""
    payload, target = cluster.client.dump(source), cluster.owner(slot_of(source.replace(b"job:", b"step:")))
    name = target.own_name("trial")
    try:
        target.client.restore(name, 0, payload)
    except redis.ResponseError:
        return True
    target.client.delete(name)
    return False


@pytest.mark.parametrize("lacking", [*ACROSS, *WRITING_ACROSS])
def test_a_command_that_keys_across_slots_take_and_that_is_not_permitted_is_named(
    cluster: ClusterInstance, lacking: str
) -> None:
    """Exit 4 before anything is written, from the run and from the dry run."""
    if cluster.version < NEWER.get(lacking, (0, 0)):
        pytest.skip(f"this server has no {lacking}")
    fill(cluster.client, jobs=20)
    served = cast("Instance", cast("Any", cluster))
    allowed = [name for name in commands(served, DRY_RUN) if name != lacking]
    digest = cluster.digest()
    with user(served, allowed, KEYS) as url:
        for options in ((), ("--dry-run",)):
            result = luamigrate("run", *options, url=url)
            # Redis 6.2 names the command alone where a subcommand is refused.
            assert_one_line(result, 4, "permissions")
            assert lacking.split("|", maxsplit=1)[0] in result.err.lower()
    assert cluster.digest() == digest


def test_a_cluster_of_which_a_part_is_missing_is_refused(cluster: ClusterInstance) -> None:
    """One line, and nothing is written."""
    fill(cluster.client, jobs=20)
    digest, slot = cluster.digest(), slot_of("nothing")
    owner = cluster.owner(slot)
    for node in cluster.nodes:
        node.cluster("DELSLOTS", slot)
    try:
        result = luamigrate("run", "--patience", "1", url=cluster.url)
    finally:
        owner.cluster("ADDSLOTS", slot)
        cluster.wait_until_agreed()
    assert result.code in (1, 4)
    assert len(result.err.strip().splitlines()) == 1
    assert cluster.digest() == digest


def test_a_cluster_has_one_database(cluster: ClusterInstance) -> None:
    """A URL with another one is answered in one line."""
    fill(cluster.client, jobs=3)
    digest = cluster.digest()
    result = luamigrate("run", url=f"{cluster.url}/3")
    assert result.code in (1, 2, 4)
    assert len(result.err.strip().splitlines()) == 1
    assert cluster.digest() == digest


@pytest.mark.parametrize("name", ["x{}y", "{}z", "n}4", "}{", "{a}b"])
def test_a_big_key_with_braces_in_its_name_is_copied(cluster: ClusterInstance, name: str) -> None:
    """Its staging key lives in its target's slot, whatever part of the name makes the slot."""
    write(cluster.client, "hash", f"job:{name}", 900)
    before = snapshot(cluster.client)
    result = luamigrate("run", *EACH, "--max-pause", "0.1", url=cluster.url)
    assert (result.code, result.totals["copied"]) == (0, 1)
    assert_migrated(cluster, before)


def test_a_literal_name_in_a_slot_that_is_being_moved_is_no_hindrance(cluster: ClusterInstance) -> None:
    """The checks are sent to another node for it, which says that it is permitted."""
    cluster.client.zadd("jobs:pending", {"1": 1})
    slot = slot_of("steps:pending")
    target = next(node for node in cluster.primaries() if not node.has(slot))
    under_way = Move.begin(cluster, slot, target)
    try:
        result = luamigrate("run", "--json", url=cluster.url)
    finally:
        under_way.finish()
        move(cluster, slot, under_way.source)
        cluster.wait_until_agreed()
    assert (result.code, result.totals["copied"]) == (0, 1)


def test_a_database_that_no_cluster_has_is_refused(cluster: ClusterInstance) -> None:
    """Also where the user may not SELECT: granting that would help nothing. Valkey 9 may have more of them."""
    result = luamigrate("check", url=f"{cluster.url}/1")
    assert result.code in (1, 4)
    refusals = ("a cluster has database 0 only: give none in the URL", "DB index is out of range")
    assert any(text in result.err for text in refusals)
