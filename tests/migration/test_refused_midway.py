"""What is refused in the middle: nothing half-written is left, and the check has told of it where it could."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from luamigrate.migration.cross_slot import CrossSlotBatch
from luamigrate.server.connection import Connection
from tests.clusters import ClusterInstance
from tests.conftest import luamigrate
from tests.instances import Instance
from tests.preflight.test_refusals import Keep, kept_back, refusing
from tests.scripts.test_lua import vectors

__all__ = ["kept_back"]

OPTIONS = ("--map", "job:*=step:*", "--json", "--settle", "0.01")


@pytest.mark.cluster
@pytest.mark.parametrize("trouble", ["full", "busy"])
def test_an_older_state_is_not_left_across_slots(
    cluster: ClusterInstance, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """The source changes after its target has been made, and cannot be copied again: the next run finishes the job."""
    original, times = CrossSlotBatch.reread, iter(range(10**6))

    def reread(self: CrossSlotBatch, *arguments: Any, **options: Any) -> Any:
        number = next(times)
        if number == 0 or trouble == "busy":
            cluster.client.hset("job:11", "number", number)
        if trouble == "full":
            for shard in cluster.shards():
                shard.client.config_set("maxmemory", 1)
        return original(self, *arguments, **options)

    cluster.client.hset("job:11", "a", "1")
    with monkeypatch.context() as patch:
        patch.setattr(CrossSlotBatch, "reread", reread)
        try:
            result = luamigrate("run", *OPTIONS, "--ignore-check", "memory", url=cluster.url)
        finally:
            for shard in cluster.shards():
                shard.client.config_set("maxmemory", 0)
    assert (result.code, result.totals) == (1, {"found": 1, "failed": 1, "ignored": 0})
    assert cluster.client.keys("step:*") == []
    assert luamigrate("run", *OPTIONS, url=cluster.url).totals["copied"] == 1
    assert luamigrate("verify", *OPTIONS, url=cluster.url).code == 0


@pytest.mark.cluster
def test_a_node_whose_last_slot_is_being_moved_is_no_reason_to_refuse(movable: ClusterInstance) -> None:
    """Nothing can be tried there but what touches no key: the check passes, and the run copies what it has."""
    source, target, _ = movable.primaries()
    ids = [node.client.execute_command("CLUSTER", "MYID").decode() for node in (source, target)]
    keep, *move = [slot for slot in range(16384) if source.has(slot)]
    for node in movable.primaries():
        pipeline = node.client.pipeline(transaction=False)
        for slot in move:
            pipeline.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
        pipeline.execute()
    target.client.execute_command("CLUSTER", "BUMPEPOCH")
    target.client.execute_command("CLUSTER", "SETSLOT", keep, "IMPORTING", ids[0])
    source.client.execute_command("CLUSTER", "SETSLOT", keep, "MIGRATING", ids[1])
    deadline = time.monotonic() + 20
    with redis.RedisCluster.from_url(movable.url, protocol=2) as client:
        while time.monotonic() < deadline:
            try:
                client.hset("job:1", "a", "1")
                break
            except (redis.RedisError, redis.exceptions.RedisClusterException):
                time.sleep(0.1)
    checked = luamigrate("check", *OPTIONS[:3], url=movable.url)
    assert checked.code == 0, checked.out
    assert luamigrate("run", *OPTIONS, url=movable.url).totals["copied"] == 1


@pytest.mark.parametrize("command", ["run", "verify", "rollback"])
def test_a_target_of_another_type_is_told_where_keys_cannot_be_weighed(
    server: Instance, kept_back: Keep, command: str
) -> None:
    """The word is the one that is said where they can."""
    kinds: dict[str, tuple[Any, ...]] = {
        "hash": ("HSET", "a", "1"),
        "set": ("SADD", "a"),
        "zset": ("ZADD", 1, "a"),
        "list": ("RPUSH", "a"),
        "string": ("SET", "a"),
        "stream": ("XADD", "1-1", "a", "1"),
    }
    for number, ((name, *rest), (other, *others)) in enumerate(
        zip(kinds.values(), [*list(kinds.values())[1:], kinds["hash"]], strict=True)
    ):
        server.client.execute_command(name, f"job:{number}", *rest)
        server.client.execute_command(other, f"step:{number}", *others)
    options = (*OPTIONS, "--yes") if command == "rollback" else OPTIONS
    with kept_back(refusing("MEMORY")):
        result = luamigrate(command, *options, url=server.url)
    word = "kept" if command == "rollback" else "differs"
    assert result.totals == {"found": 6, word: 6, "ignored": 0}


@pytest.mark.parametrize(
    "text", ["ERR unknown command `HPEXPIRETIME`, with args beginning with:", "ERR Unknown command"]
)
def test_a_server_without_expiries_of_fields_may_say_so_as_it_likes(
    server: Instance, kept_back: Keep, text: str
) -> None:
    """In capitals or not: the check passes, and the hashes are copied."""
    if server.has_field_expiries:
        pytest.skip("fields of hashes can expire on this server")
    for number in range(3):
        server.client.hset(f"job:{number}", mapping={str(field): "x" * 100 for field in range(50)})
    with kept_back(refusing("HPEXPIRETIME", text=text)):
        assert luamigrate("check", *OPTIONS[:3], url=server.url).code == 0
        assert luamigrate("run", *OPTIONS, url=server.url).totals["copied"] == 3


def test_no_field_is_filled_in_without_its_expiry(server: Instance, kept_back: Keep) -> None:
    """Where the server will not set that, the target stays as it was, and the key fails."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    server.client.hset("job:1", mapping={"a": "1", "b": "2"})
    server.client.execute_command("HPEXPIRE", "job:1", 10**8, "FIELDS", 1, "b")
    server.client.hset("step:1", "a", "1")
    with kept_back(refusing("HPEXPIREAT")):
        options = (*OPTIONS, "--on-existing", "fill", "--ignore-check", "scripts")
        result = luamigrate("run", *options, url=server.url)
    assert result.totals["failed"] == 1
    assert server.client.hgetall("step:1") == {b"a": b"1"}


@pytest.mark.single_server("a stream is weighed as it is read across slots")
def test_pending_entries_weigh_where_the_server_does_not_tell(server: Instance, kept_back: Keep) -> None:
    """A stream of no entries, and of many that consumers have not acknowledged, is too big for one script."""
    client: Any = server.client
    client.xgroup_create("job:1", "group", mkstream=True)
    pipeline = client.pipeline(transaction=False)
    for _ in range(20_000):
        pipeline.xadd("job:1", {"a": "b"})
    pipeline.execute()
    client.xreadgroup("group", "consumer", {"job:1": ">"}, count=20_000)
    client.xtrim("job:1", maxlen=0, approximate=False)
    with kept_back(refusing("MEMORY")):
        result = luamigrate("run", *OPTIONS, "--max-pause", "1", url=server.url)
    assert result.totals["failed"] == 1
    assert result.document["rules"][0]["failed_reasons"] == {"too-big": 1}


@pytest.mark.parametrize("command", ["RESTORE", "VRANDMEMBER", "VEMB"])
@pytest.mark.single_server("across slots RESTORE is needed for every key")
def test_vector_sets_that_would_fail_are_warned_of(server: Instance, kept_back: Keep, command: str) -> None:
    """By the check, with the command; other keys are copied all the same."""
    vectors(server, "job:1", 3)
    server.client.hset("job:2", "a", "1")
    with kept_back(refusing(command)):
        (text,) = [
            check["text"]
            for check in luamigrate("check", *OPTIONS[:3], url=server.url).document["checks"]
            if check["name"] == "scripts" and check["verdict"] == "warning"
        ]
        assert command in text
        result = luamigrate("run", *OPTIONS, url=server.url)
    assert result.totals == {"found": 2, "copied": 1, "failed": 1, "ignored": 0}
    assert server.client.keys("step:*") == [b"step:2"]


@pytest.mark.single_server("a cluster needs it for every key")
def test_a_user_without_evalsha_ro_is_told_of_big_keys(server: Instance) -> None:
    """They are read in scripts that may not write: the check warns that they would fail."""
    if server.version < (7, 0):
        pytest.skip("this server has no EVALSHA_RO")
    server.client.execute_command("ACL", "SETUSER", "careful", "reset", "on", ">secret", "~*", "+@all", "-evalsha_ro")
    try:
        checked = luamigrate("check", "--json", "--allow-empty", url=server.url_for("careful", "secret"))
    finally:
        server.client.acl_deluser("careful")
    (found,) = [check for check in checked.document["checks"] if check["name"] == "big-keys"]
    assert found["verdict"] == "warning"
    assert "evalsha_ro" in found["text"].lower()


@pytest.mark.cluster
@pytest.mark.parametrize("subcommand", ["NODES", "COUNTKEYSINSLOT", "GETKEYSINSLOT"])
def test_a_cluster_that_does_not_tell_of_its_slots_is_refused(
    server: Instance, monkeypatch: pytest.MonkeyPatch, subcommand: str
) -> None:
    """Exit 4 with the command and what it is needed for; the refusal is what real nodes say of what they lack."""
    server.client.hset("job:1", "a", "1")
    original = Connection.call

    def call(self: Connection, *command: Any, **options: Any) -> Any:
        lacking = command[:2] == ("CLUSTER", subcommand)
        return original(self, *(("CLUSTER", "NOSUCH") if lacking else command), **options)

    monkeypatch.setattr(Connection, "call", call)
    for command in (("check",), ("run",), ("run", "--dry-run")):
        result = luamigrate(*command, url=server.url)
        assert result.code == 4, result
        said = result.out if command == ("check",) else result.err
        assert any("scripts" in line and f"CLUSTER {subcommand}" in line for line in said.splitlines()), said
