"""`verify --follow`: drift is told as it appears and as it goes, and nothing is ever written."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from luamigrate import Limits, Stopped, UsageError, Word, connect, plan, plan_from_pairs, verify
from luamigrate.cli.options import environment
from luamigrate.migration import unequal
from luamigrate.model.following import Rescan
from tests.clusters import wait_until
from tests.conftest import luamigrate
from tests.following import Following
from tests.instances import Instance, snapshot, start
from tests.judge import assert_alike
from tests.preflight.test_acl import granted
from tests.processes import of_this_test
from tests.schemas import read_document, read_report
from tests.sentinels import watched
from tests.verifying import SETTLE, Application, Verifying

pytestmark = pytest.mark.oldest_and_newest

RULE = ("--map", "job:*=step:*")


def fill(server: Instance, count: int = 20) -> Any:
    """Write equal pairs; return a client."""
    client: Any = server.client
    for number in range(count):
        for side in ("job", "step"):
            client.hset(f"{side}:{number}", mapping={"a": number, "b": "x"})
    return client


def test_drift_is_told_once_and_healed_once(server: Instance) -> None:
    """Whichever of the two names was written; what was unequal at the start is told too."""
    client = fill(server)
    client.hset("step:0", "a", "other")
    with Verifying(server.url) as verifying:
        verifying.wait_until_complete()
        client.hset("job:1", "a", "other")
        assert verifying.wait_for(Word.DIFFERS, "job:1").notes["contradicting_names"] == ["a"]
        client.hdel("step:2", "b")
        assert verifying.wait_for(Word.PARTIAL, "job:2").target == b"step:2"
        client.pexpire("step:3", 10**8)
        verifying.wait_for(Word.EXPIRY, "job:3")
        client.hset("job:new", "a", 1)
        verifying.wait_for(Word.MISSING, "job:new")
        before = snapshot(client)
        assert verifying.now.unequal == {"differs": 2, "partial": 1, "expiry": 1, "missing": 1}
        assert_alike(snapshot(client), before)
        client.hset("step:1", "a", "other")
        verifying.wait_for(None, "job:1")
        client.delete("job:new")
        assert verifying.wait_for(None, "job:new").word is Word.GONE
        verifying.wait_until_complete()
    assert verifying.told == [
        ("job:0", "differs", None),
        ("job:1", "differs", None),
        ("job:2", "partial", None),
        ("job:3", "expiry", None),
        ("job:new", "missing", None),
        ("job:1", "same", "differs"),
        ("job:new", "gone", "missing"),
    ]
    assert (verifying.now.drifted, verifying.now.healed, verifying.now.remaining) == (5, 2, 3)
    assert verifying.summary.exit_code == 3
    assert verifying.summary.totals.counts == {"same": 19, "differs": 1}


def test_an_application_that_writes_one_name_after_the_other_causes_no_drift(server: Instance) -> None:
    """Each pair is compared when it is quiet."""
    fill(server)
    with Verifying(server.url, extra=True) as verifying:
        verifying.wait_until_complete()
        with Application(server, gap=SETTLE / 20):
            verifying.wait_until(lambda now: now.compared > 60)
        verifying.wait_until_complete()
    assert verifying.told == []
    assert verifying.now.told > 60
    assert verifying.summary.exit_code == 0


def test_a_pair_that_is_never_quiet_is_compared_all_the_same(server: Instance) -> None:
    """An application that has forgotten the second name is found out while it goes on writing."""
    fill(server)
    with Verifying(server.url) as verifying:
        verifying.wait_until_complete()
        with Application(server, gap=0, names=1, pause=SETTLE / 40) as application:
            verifying.wait_until(lambda now: now.compared >= 2)
            application.forgets = True
            verifying.wait_for(Word.DIFFERS, "job:0")
    assert verifying.summary.exit_code == 3


def test_targets_without_a_source_are_looked_for_if_asked(server: Instance) -> None:
    """Of a rule with a type, a source of another type counts as none."""
    client = fill(server)
    hashes = plan([("job:*", "step:*", "hash")])
    with Verifying(server.url, hashes) as without, Verifying(server.url, hashes, extra=True) as verifying:
        for each in (without, verifying):
            each.wait_until_complete()
        client.delete("job:1")
        verifying.wait_for(Word.EXTRA, "job:1")
        client.delete("job:2")
        client.set("job:2", "text")
        assert verifying.wait_for(Word.EXTRA, "job:2").notes == {"source_type": "string"}
        client.hset("step:stray", "a", 1)
        verifying.wait_for(Word.EXTRA, "job:stray")
        client.hset("job:stray", "a", 1)
        assert verifying.wait_for(None, "job:stray").word is Word.SAME
        client.delete("step:1")
        assert verifying.wait_for(None, "job:1").word is Word.GONE
        without.wait_until(lambda now: now.told >= verifying.now.told and not now.waiting)
    assert without.told == []
    assert without.summary.exit_code == 0
    assert verifying.now.unequal == {"extra": 1}


def test_a_user_who_may_only_read_is_enough(server: Instance) -> None:
    """As docs/security.md has it; without the line for --follow it is refused, with exit code 4."""
    client = fill(server)
    hashes = plan([("job:*", "step:*", "hash")])
    nodes = [node.client for node in server.shards()]
    cases = (("verify --follow", "", ""), ("verify", "+time", "the server does not tell this user of changes"))
    for heading, besides, refusal in cases:
        rules = [*granted(server, heading), *besides.split()]
        for node in nodes:
            node.execute_command("ACL", "SETUSER", "careful", "reset", "on", ">secret", *rules)
        with Verifying(server.url_for("careful", "secret"), hashes, extra=True) as verifying:
            if refusal:
                verifying.join(20)
                assert refusal in str(verifying.error)
                assert verifying.summary.exit_code == 4
            else:
                verifying.wait_until_complete()
                client.hset("job:1", "a", "other")
                verifying.wait_for(Word.DIFFERS, "job:1")
    for node in nodes:
        node.acl_deluser("careful")
    assert not client.keys("luamigrate*")


def test_keys_that_go_in_chunks_are_compared_too(server: Instance) -> None:
    """One field of many thousand."""
    client = fill(server)
    for side in ("job", "step"):
        client.hset(f"{side}:big", mapping={f"field{number}": "x" * 50 for number in range(5000)})
    with Verifying(server.url, limits=Limits(max_pause=0.3)) as verifying:
        verifying.wait_until_complete()
        client.hset("job:big", "field77", "other")
        assert verifying.wait_for(Word.DIFFERS, "job:big").notes["contradicting_names"] == ["field77"]
        client.hset("step:big", "field77", "other")
        verifying.wait_for(None, "job:big")
    assert verifying.summary.exit_code == 0


@pytest.mark.single_server("a cluster has one database")
def test_targets_in_another_database_and_names_of_a_table(server: Instance, tmp_path: Path) -> None:
    """With the same names on both sides, too; other names are nobody's business."""
    client: Any = server.client
    file = tmp_path / "pairs.tsv"
    file.write_text("one\tone\ntwo\tzwei\n")
    with server.another_client(db=3) as other, Verifying(server.url, plan_from_pairs(file, database=3)) as verifying:
        verifying.wait_until(lambda now: now.is_complete)
        client.set("one", 1)
        verifying.wait_for(Word.MISSING, "one")
        other.set("one", 1)
        verifying.wait_for(None, "one")
        client.set("three", 1)
        other.set("zwei", 1)
        client.set("two", 2)
        verifying.wait_for(Word.DIFFERS, "two")
    assert [source for source, *_ in verifying.told] == ["one", "one", "two"]


def test_everything_is_compared_again_where_something_may_have_been_missed(
    server: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost connection, an emptied database, too many names; it says why, and forgets no drift."""
    monkeypatch.setattr("luamigrate.migration.drift_watcher.MOST_NAMES", 100)
    client = fill(server)
    client.hset("step:1", "a", "other")
    with Verifying(server.url) as verifying:
        verifying.wait_until_complete()
        for node in server.shards():
            node.client.client_kill_filter(_type="pubsub", skipme=True)
        verifying.wait_until(lambda now: Rescan.LOST in now.rescans)
        verifying.wait_until_complete()
        assert verifying.now.unequal == {"differs": 1}
        verifying.paused.set()
        for number in range(300):
            client.hset(f"job:{number}", "a", "new")
        verifying.paused.clear()
        verifying.wait_until(lambda now: Rescan.TOO_MANY in now.rescans)
        verifying.wait_until(lambda now: now.is_complete and now.remaining == 300)
        client.flushall()
        verifying.wait_until(lambda now: Rescan.EMPTIED in now.rescans and now.is_complete and not now.remaining)
        assert verifying.now.comparisons >= 4
    assert verifying.summary.exit_code == 0
    assert verifying.now.drifted == verifying.now.healed == 300


def test_a_server_that_is_killed_and_comes_back_is_compared_again(server_name: str) -> None:
    """The comparison begins again, and what it had found is still known."""
    with start(server_name, "--appendonly", "yes") as server:
        client = fill(server)
        client.hset("step:1", "a", "other")
        with Verifying(server.url) as verifying:
            verifying.wait_until_complete()
            server.kill()
            server.start_again("--appendonly", "yes")
            verifying.wait_until(lambda now: Rescan.OTHER_SERVER in now.rescans and now.is_complete)
            server.client.hset("step:2", "a", "other")
            verifying.wait_for(Word.DIFFERS, "job:2")
        assert verifying.now.unequal == {"differs": 2}


def test_a_primary_that_is_replaced_is_listened_to_no_more(server_name: str) -> None:
    """But the next one is, behind Sentinels."""
    with watched(server_name) as servers:
        for side in ("job", "step"):
            servers.primary.hset(f"{side}:1", "a", 1)
        with Verifying(servers.url, limits=Limits(patience=20)) as verifying:
            verifying.wait_until_complete()
            assert servers.primary.execute_command("WAIT", 1, 10_000) == 1
            servers.fail_over()
            wait_until(servers.is_failed_over)
            verifying.wait_until(lambda now: Rescan.OTHER_SERVER in now.rescans and now.is_complete)
            servers.replica.hset("job:1", "a", 2)
            verifying.wait_for(Word.DIFFERS, "job:1")
        assert verifying.error is None


def test_a_follow_and_a_comparison_go_on_side_by_side(any_server: Instance) -> None:
    """No lease refuses it; and what the follow mirrors is equal."""
    client = fill(any_server)
    with Following(any_server.url) as following:
        following.wait_until_in_step()
        with Verifying(any_server.url, extra=True) as verifying:
            verifying.wait_until_complete()
            client.hset("job:1", "a", "other")
            client.delete("job:2")
            verifying.wait_until(lambda now: now.compared >= 2 and not now.waiting)
        assert verifying.told == []
    assert verifying.summary.exit_code == 0


def test_it_listens_while_it_is_paused(any_server: Instance) -> None:
    """Nothing is compared then, and nothing is missed."""
    client = fill(any_server)
    with Verifying(any_server.url) as verifying:
        verifying.wait_until_complete()
        verifying.paused.set()
        client.hset("job:1", "a", "other")
        time.sleep(3 * SETTLE)
        assert verifying.told == []
        verifying.paused.clear()
        verifying.wait_for(Word.DIFFERS, "job:1")
    assert verifying.now.rescans == {}


def test_more_drift_than_can_be_remembered_stops_it(any_server: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so instead of forgetting any."""
    monkeypatch.setattr(unequal, "MOST_UNEQUAL", 5)
    client = fill(any_server)
    for number in range(6):
        client.delete(f"step:{number}")
    with Verifying(any_server.url) as verifying:
        verifying.join(20)
    assert isinstance(verifying.error, Stopped)
    assert verifying.summary.exit_code == 4


def test_a_sample_cannot_be_followed(any_server: Instance) -> None:
    """Exit code 2."""
    result = luamigrate("verify", *RULE, "--follow", "--sample", "3", url=any_server.url)
    assert result.code == 2
    assert "--follow goes on comparing all pairs: it excludes --sample" in result.err
    with connect(any_server.url) as server, pytest.raises(UsageError):
        verify(server, follow=True, sample=3)


def begin(server: Instance, *options: str) -> subprocess.Popen[str]:
    """Start the command line in a process of its own."""
    command = (sys.executable, "-m", "luamigrate", "verify", *RULE, "--follow", "--settle", "0.1", *options)
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment(REDIS_URL=server.url), stdout=pipe, stderr=pipe, text=True)
    return of_this_test(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_its_normal_end(any_server: Instance, tmp_path: Path, number: signal.Signals) -> None:
    """With exit code 3 for drift that remains, a document, and a report that has the times."""
    client = fill(any_server)
    report = tmp_path / "report.jsonl"
    process = begin(any_server, "--json", "--report", str(report))
    assert process.stderr
    wait_for_line(process, "all pairs are equal")
    client.hset("job:1", "a", "other")
    client.hset("job:2", "a", "other")
    wait_for_line(process, "differs  job:")
    wait_until(lambda: report.read_text().count("\n") == 2)
    client.hset("step:1", "a", "other")
    wait_for_line(process, "healed   job:1 -> step:1  was differs, is equal again")
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    document = read_document(out)
    assert (process.returncode, document["exit_code"], document["interrupted"]) == (3, 3, False)
    assert document["drift"].pop("compared") >= 3
    assert document["drift"] == {
        "complete": True,
        "comparisons": 1,
        "rescans": 0,
        "rescan_reasons": {},
        "told": 3,
        "waiting": 0,
        "unequal": {"differs": 1},
        "remaining": 1,
        "drifted": 2,
        "healed": 1,
    }
    assert "DRIFT: 1 pair not equal at the end (1 differs)." in err
    lines = read_report(report.read_text())
    assert sorted((line["source"], line["word"], line.get("was")) for line in lines[:2]) == [
        ("job:1", "differs", None),
        ("job:2", "differs", None),
    ]
    assert (lines[2]["source"], lines[2]["word"], lines[2]["was"]) == ("job:1", "same", "differs")
    moments = [line["time_ms"] for line in lines]
    now_s = server_seconds(any_server)
    assert moments == sorted(moments)
    assert now_s - 60 < moments[0] / 1000 <= now_s + 1


def server_seconds(server: Instance) -> int:
    """Return the time of a server."""
    seconds, _ = server.shards()[0].client.time()
    return int(seconds)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    """Read what a process says until a line has this text."""
    assert process.stderr
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"it never said '{text}'")


def test_without_drift_the_exit_code_is_0_and_before_the_end_it_is_3(any_server: Instance) -> None:
    """Nothing is proven before everything has been compared."""
    fill(any_server, 300)
    process = begin(any_server, "--json")
    wait_for_line(process, "all pairs are equal")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "NO DRIFT at the end" in err
    slow = begin(any_server, "--json", "--max-rate", "20")
    wait_for_line(slow, "[1/1] job:* -> step:*")
    slow.send_signal(signal.SIGINT)
    out, err = slow.communicate(timeout=20)
    assert slow.returncode == 3
    assert json.loads(out)["drift"]["complete"] is False
    assert "INCOMPLETE" in err


def test_a_replica_tells_of_what_reaches_it(server_name: str) -> None:
    """It is compared as it is, and warned of."""
    with watched(server_name) as servers:
        for side in ("job", "step"):
            servers.primary.hset(f"{side}:1", "a", 1)
        assert servers.primary.execute_command("WAIT", 1, 10_000) == 1
        port = servers.replica.connection_pool.connection_kwargs["port"]
        with Verifying(f"redis://127.0.0.1:{port}") as verifying:
            verifying.wait_until_complete()
            servers.primary.hset("job:1", "a", 2)
            verifying.wait_for(Word.DIFFERS, "job:1")
            servers.primary.hset("step:1", "a", 2)
            verifying.wait_for(None, "job:1")
        assert "this is a REPLICA" in verifying.summary.warnings[0]
