"""Facts that a server does not tell are asked by another command, or reported as unknown."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from luamigrate import connect
from luamigrate.cli.embedded import free_port, throwaway_server
from luamigrate.migration import throttle
from luamigrate.scripts import library
from luamigrate.server.cluster import Cluster
from luamigrate.server.connection import Connection
from tests import binaries, clusters
from tests.cli.test_bad_input import assert_one_line
from tests.clusters import wait_until
from tests.conftest import luamigrate
from tests.instances import Instance, start
from tests.liar import Liar, Lie, encoded, lying
from tests.migration.test_run import HASHES, fill
from tests.preflight.test_preflight import QUEUE, busy_client, checks
from tests.sentinels import port_of
from tests.server.test_fuzz_server import script

pytestmark = pytest.mark.single_server("a liar stands before one server")

REFUSED = encoded(ValueError("ERR unknown command, or not for you"))
FACTS = ("server", "version", "mode", "role")


def greeting(server: Instance, lacking: tuple[str, ...] = (), **changed: str) -> bytes:
    """Return the server's answer to HELLO without some facts, or with others."""
    hello: Any = server.client.execute_command("HELLO")
    facts = dict(zip(hello[::2], hello[1::2], strict=True))
    facts |= {name.encode(): value.encode() for name, value in changed.items()}
    return encoded([text for name, value in facts.items() if name.decode() not in lacking for text in (name, value)])


Lies = Mapping[Any, bytes]
"""Answers to commands, by how the commands begin."""


def telling(lies: Lies) -> Liar:
    """Return what answers these commands so each time."""

    def liar(command: list[bytes]) -> Lie | None:
        said = (answer for beginning, answer in lies.items() if tuple(command[: len(beginning)]) == beginning)
        return next((Lie(answer) for answer in said), None)

    return liar


@contextmanager
def before(server: Instance, liar: Liar | Lies) -> Iterator[str]:
    """Stand before the server, and yield the URL."""
    with lying(server.url.removeprefix("unix://"), liar if callable(liar) else telling(liar)) as url:
        yield url


@pytest.mark.parametrize("count", range(1, 5))
def test_what_hello_leaves_out_is_asked_elsewhere(server: Instance, count: int) -> None:
    """Whatever it is, the server is known as ever and the work is done."""
    fill(server.client, jobs=3)
    expected = luamigrate("check", "--json", url=server.url).document["server"]
    for lacking in combinations(FACTS, count):
        with before(server, {(b"HELLO",): greeting(server, lacking)}) as url:
            found = checks(server, url=url)
            document = luamigrate("run", "--json", url=url).document
        assert found["role"] == ("ok", "a primary")
        assert document["exit_code"] == 0
        assert document["server"] | {"url": ""} == expected | {"url": ""}


@pytest.mark.parametrize("role", ["primary", "Master", "master"])
def test_every_name_for_a_primary_is_known(server: Instance, role: str) -> None:
    """It is written to."""
    fill(server.client, jobs=3)
    with before(server, {(b"HELLO",): greeting(server, role=role)}) as url:
        assert luamigrate("run", "--json", url=url).totals["copied"] == 7
        assert checks(server, url=url)["role"] == ("ok", "a primary")


def test_a_replica_is_a_replica_whoever_tells(server: Instance) -> None:
    """ROLE or INFO tells it where HELLO does not, and by each name for it."""
    fill(server.client, jobs=3)
    server.client.replicaof("127.0.0.1", str(free_port()))
    try:
        silent = greeting(server, ("role",))
        for lies in (
            {(b"HELLO",): silent},
            {(b"HELLO",): silent, (b"ROLE",): REFUSED},
            {(b"HELLO",): greeting(server, role="slave")},
            {(b"HELLO",): greeting(server, role="of some other kind")},
        ):
            with before(server, lies) as url:
                assert_one_line(luamigrate("run", url=url), 4, "role: this is a replica")
    finally:
        server.client.replicaof("no", "one")


def test_a_role_that_nobody_tells_is_a_warning(any_server: Instance) -> None:
    """Neither is the server refused, nor is it called a primary."""
    fill(any_server.client, jobs=3)
    lies = {(b"HELLO",): greeting(any_server, ("role",)), (b"ROLE",): REFUSED, (b"INFO", b"replication"): REFUSED}
    with before(any_server, lies) as url:
        verdict, text = checks(any_server, url=url)["role"]
        assert (verdict, "does not tell its role" in text) == ("warning", True)
        result = luamigrate("run", "--json", url=url)
    assert (result.code, result.totals["copied"]) == (0, 7)
    assert any(text.startswith("role: the server does not tell") for text in result.document["warnings"])


@pytest.mark.parametrize("role", ["", "primary"])
def test_a_connection_is_made_again_whatever_the_word_for_a_primary(any_server: Instance, role: str) -> None:
    """A server is not taken for a replica when it is met for the second time."""
    fill(any_server.client, jobs=3)
    hello = greeting(any_server, role=role)
    silent: Lies = {(b"ROLE",): REFUSED, (b"INFO", b"replication"): REFUSED} if not role else {}
    with before(any_server, hanging_up_once({(b"HELLO",): hello, **silent})) as url:
        result = luamigrate("run", *HASHES, "--json", "--patience", "5", url=url)
    assert (result.code, result.totals["found"]) == (0, 3), result.err


def hanging_up_once(lies: Lies) -> Liar:
    """Return what ends the connection when keys are copied for the first time, and lies besides."""
    hung_up: list[bytes] = []
    copies = script("copy")

    def liar(command: list[bytes]) -> Lie | None:
        if copies(command) and not hung_up:
            hung_up.append(command[1])
            return Lie(b"", hangs_up=True)
        return telling(lies)(command)

    return liar


def test_a_server_of_unknown_version_is_not_asked_for_what_some_versions_die_of(any_server: Instance) -> None:
    """It runs all the same."""
    fill(any_server.client, jobs=3)
    lies = {(b"HELLO",): greeting(any_server, ("version",)), (b"INFO", b"server"): REFUSED}
    asked: list[list[bytes]] = []

    def liar(command: list[bytes]) -> Lie | None:
        asked.append(command)
        return telling(lies)(command)

    with before(any_server, liar) as url:
        assert luamigrate("run", url=url).code == 0
    assert [b"CLIENT", b"NO-TOUCH", b"OFF"] in asked
    assert [b"CLIENT", b"NO-TOUCH", b"ON"] not in asked


@contextmanager
def cluster_of_one(*options: str) -> Iterator[tuple[Instance, int]]:
    """Start a node that has all slots, and yield it with its port."""
    binary = binaries.find(binaries.SYSTEM)
    if not isinstance(binary, Path) or binaries.version(binary) < (7, 0):
        pytest.skip(f"no server of version 7.0 or later on this system: {binary}")
    port = clusters.free_port()
    own = ("--bind", "127.0.0.1", "--port", str(port), "--cluster-enabled", "yes", *options)
    with start(binaries.SYSTEM, *own) as server:
        server.client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        wait_until(lambda: b"cluster_state:ok" in server.client.execute_command("CLUSTER", "INFO"))
        fill(server.client, jobs=3)
        yield server, port


def test_a_cluster_that_does_not_call_itself_one_is_known_by_its_slots() -> None:
    """Neither HELLO nor INFO has the mode."""
    with (
        cluster_of_one() as (server, _),
        before(server, {(b"HELLO",): greeting(server, ("mode",)), (b"INFO", b"server"): REFUSED}) as url,
    ):
        assert luamigrate("run", "--json", url=url).document["server"]["mode"] == "cluster"
        assert server.client.exists("step:1")


@pytest.mark.parametrize("kind", ["hostname", "unknown-endpoint"])
def test_a_node_without_a_name_is_where_the_one_is_that_tells_of_it(kind: str) -> None:
    """The cluster gives names, and this node has none; or it gives no addresses at all."""
    with cluster_of_one("--cluster-preferred-endpoint-type", kind) as (_, port):
        result = luamigrate("run", "--json", url=f"redis://127.0.0.1:{port}")
        assert (result.code, result.totals["copied"]) == (0, 7), result.err


def test_a_node_without_a_name_is_at_the_address_that_is_given_beside() -> None:
    """And not where the one is that tells of it."""
    with cluster_of_one() as (server, port):
        node = [b"?", port, b"id", [b"ip", b"127.0.0.1"]]
        with before(server, {(b"CLUSTER", b"SLOTS"): encoded([[0, 16383, node]])}) as url:
            result = luamigrate("check", "--json", url=url.replace("127.0.0.1", "localhost"))
            with connect(url.replace("127.0.0.1", "localhost")) as cluster:
                assert [each.place for each in cluster.primaries] == [f"127.0.0.1:{port}"]
        assert result.code == 0


def test_a_key_that_has_moved_to_no_host_is_where_the_one_is_that_says_so() -> None:
    """So servers answer that are told to give no addresses."""
    with cluster_of_one() as (server, port):
        sha = str(server.client.script_load(library.source("compare")))
        moved = encoded(ValueError(f"MOVED 1 :{port}"))
        own: list[int] = []

        def liar(command: list[bytes]) -> Lie | None:
            slots = encoded([[0, 16383, [b"127.0.0.1", own[0], b"id"]]])
            return telling({(b"CLUSTER", b"SLOTS"): slots, (b"EVALSHA",): moved})(command)

        with before(server, liar) as url:
            own.append(int(url.rpartition(":")[2]))
            with connect(url) as cluster:
                assert isinstance(cluster, Cluster)
                answer = cluster.ask_alone(b"job:1", lambda node: _Asked(node, sha), time.monotonic() + 10)
                assert (answer, cluster.node_for(b"job:1").place) == (b"missing", f"127.0.0.1:{port}")


class _Asked:
    """A call of a script, as `ask_alone` takes it."""

    def __init__(self, node: Connection, sha: str) -> None:
        self._call = node.call("EVALSHA", sha, 2, "job:1", "{job:1}", 1_000_000, 100_000_000, "any", "1", "0", "0")

    def answers(self) -> tuple[Any, float]:
        """Return the answers, or raise what the node said."""
        return self._call.answer(), 0.0


def test_evictions_that_are_not_told_now_and_then_are_no_evictions(
    any_server: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the server had evicted before it began is not taken for new."""
    monkeypatch.setattr(throttle, "SECONDS_BETWEEN_CHECKS", -1.0)
    fill(any_server.client, jobs=200)
    answers = [b"# Stats\r\n", b"# Stats\r\nevicted_keys:5\r\n"]

    def liar(command: list[bytes]) -> Lie | None:
        if command != [b"INFO", b"stats"]:
            return None
        answers.append(answers.pop(0))
        return Lie(encoded(answers[-1]))

    with before(any_server, liar) as url:
        result = luamigrate("run", "--batch-size", "10", "--json", url=url)
    assert (result.code, result.document["error"]) == (0, None)


REPLICATION = b"role:master\r\nconnected_slaves:1\r\n"


@pytest.mark.parametrize(
    "facts",
    [
        REPLICATION + b"slave0:ip=10.0.0.7,port=6379,state=online,offset=5,lag=0\r\n",
        REPLICATION + b"slave0:ip=10.0.0.7,port=6379,state=online\r\nmaster_repl_offset:5\r\n",
        REPLICATION + b"master_repl_offset:5\r\n",
    ],
)
def test_replicas_of_which_little_is_told_are_not_taken_for_close_nor_for_behind(
    any_server: Instance, facts: bytes
) -> None:
    """`--max-lag` is refused; `--wait-replicas` stops once the connection was lost, and says why."""
    fill(any_server.client, jobs=3)
    with before(any_server, {(b"INFO", b"replication"): encoded(facts)}) as url:
        assert_one_line(luamigrate("run", "--max-lag", "1", url=url), 4, "replicas", "does not tell how far they are")
    lies = {(b"INFO", b"replication"): encoded(facts), (b"WAIT",): encoded(1)}
    with before(any_server, hanging_up_once(lies)) as url:
        result = luamigrate("run", *HASHES, "--wait-replicas", "1", "--patience", "0.6", "--json", url=url)
    assert result.code == 4
    assert "the server does not tell how far they are (INFO replication)" in result.document["error"]


@pytest.mark.parametrize(
    ("section", "facts", "silent"),
    [
        ("memory", b"used_memory:5\r\n", ("memory", "eviction")),
        ("memory", b"maxmemory:5000\r\nmaxmemory_policy:noeviction\r\n", ("memory",)),
        ("memory", b"maxmemory:5000000\r\n", ("memory", "eviction")),
        ("persistence", b"loading:0\r\n", ("saves",)),
    ],
)
def test_what_info_leaves_out_is_a_warning(
    any_server: Instance, section: str, facts: bytes, silent: tuple[str, ...]
) -> None:
    """It says that the server does not tell; the run can be started."""
    fill(any_server.client, jobs=3)
    with before(any_server, {(b"INFO", section.encode()): encoded(facts)}) as url:
        found = checks(any_server, url=url)
        assert {name for name, (verdict, _) in found.items() if verdict == "warning"} == set(silent)
        assert all("the server does not tell" in found[name][1] for name in silent)
        assert luamigrate("run", url=url).code == 0


def test_a_policy_that_is_not_told_is_not_taken_for_harmless(any_server: Instance) -> None:
    """Where the copies do not fit, and that is overridden, it is said that sources may be evicted."""
    fill(any_server.client, jobs=200)
    with before(any_server, {(b"INFO", b"memory"): encoded(b"used_memory:100\r\nmaxmemory:101\r\n")}) as url:
        found = checks(any_server, "--ignore-check", "memory", url=url)
    assert found["eviction"][0] == "warning"
    assert "does not tell whether it evicts keys" in found["eviction"][1]


def test_a_number_of_keys_that_is_none_is_not_zero(any_server: Instance) -> None:
    """What the copies need is not known then."""
    fill(any_server.client, jobs=4000)
    with before(any_server, {(b"DBSIZE",): encoded(b"many")}) as url:
        assert "is not known" in checks(any_server, *HASHES, url=url)["memory"][1]


def test_databases_that_are_not_told_are_not_called_empty(any_server: Instance) -> None:
    """Where INFO has no such section."""
    for keyspace, said in ((b"", False), (b"# Keyspace\r\n", True)):
        with before(any_server, {(b"INFO", b"keyspace"): encoded(keyspace)}) as url:
            result = luamigrate("run", url=url)
        assert ("Keys by database: none." in result.out) is said
        assert "NO KEY MATCHED ANY RULE" in result.out


@pytest.mark.parametrize(
    "clients",
    [b"", b"id=1 addr=127.0.0.1:5 name=w db=0 cmd=blpop\n", b"id=1 addr=127.0.0.1:5 name=w flags=b db=0\n"],
)
def test_clients_of_which_little_is_told_are_not_taken_for_idle(any_server: Instance, clients: bytes) -> None:
    """Whether one waits is not known, and that is said."""
    any_server.client.rpush("queue", "1")
    with before(any_server, {(b"CLIENT", b"LIST"): encoded(clients)}) as url:
        verdict, text = checks(any_server, *QUEUE, url=url)["blocked"]
    assert (verdict, "the server does not tell whether clients wait" in text) == ("warning", True)


def test_a_client_that_waits_counts_where_its_database_or_ours_is_not_told(any_server: Instance) -> None:
    """It may be this one."""
    any_server.client.rpush("queue", "1")
    waits = b"id=1 addr=127.0.0.1:5 name=w flags=b cmd=blpop\n"
    with before(any_server, {(b"CLIENT", b"LIST"): encoded(waits)}) as url:
        assert checks(any_server, *QUEUE, url=url, code=4)["blocked"][0] == "refused"
    with (
        busy_client(any_server, "BLPOP", "nothing", 0),
        before(any_server, {(b"CLIENT", b"INFO"): encoded(b"id=1 name=\n")}) as url,
    ):
        assert checks(any_server, *QUEUE, url=url, code=4)["blocked"][0] == "refused"


@pytest.mark.parametrize(
    "facts", [[], [b"name", b"mymaster"], [b"flags", b"master"], [b"ip", b"127.0.0.1"], [b"num-slaves", b"1"]]
)
def test_a_sentinel_that_names_the_primary_and_tells_nothing_else_will_do(
    any_server: Instance, facts: list[bytes]
) -> None:
    """As services do that stand in for one."""
    binary = binaries.find(any_server.name)
    assert isinstance(binary, Path)
    with throwaway_server(binary) as primary:
        named = [b"127.0.0.1", str(port_of(primary)).encode()]
        lies = {
            (b"SENTINEL", b"MASTER"): encoded(facts),
            (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME"): encoded(named),
        }
        with before(any_server, lies) as url:
            place = url.removeprefix("redis://")
            result = luamigrate("run", "--allow-empty", url=f"sentinel://{place}/mymaster")
    assert (result.code, result.err) == (0, "")
    assert f"(primary 127.0.0.1:{port_of(primary)})" in result.out


@pytest.mark.parametrize("keyspace", ["", "db0:keys=2", "db0:keys=2,avg_ttl=0"])
def test_expiries_are_compared_where_info_does_not_tell_whether_there_are_any(server: Instance, keyspace: str) -> None:
    """Those of keys, and those of fields where the server has them."""
    text = library.source("compare")
    asked = "request.pcall('INFO', 'keyspace')"
    assert asked in text
    text = text.replace(asked, f"'{keyspace}'")
    client = server.client
    for key in ("s:1", "t:1", "s:2", "t:2"):
        client.hset(key, "f", "1")
    client.expire("s:1", 600)
    if server.has_field_expiries:
        client.execute_command("HPEXPIRE", "s:2", 600_000, "FIELDS", 1, "f")
    arguments = ("1000000", "100000000", "hash", "1", "0", "0", "", "1")
    one, other, _ = client.eval(text, 4, "s:1", "t:1", "s:2", "t:2", *arguments)
    assert one[0] == b"expiry"
    assert other[0] == b"expiry" if server.has_field_expiries else other.startswith(b"same")
