"""A run that meets trouble on its way: the server's, the connection's."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import pytest

from luamigrate import Error, Limits, Operator, Refused, Stopped, connect, migrate, plan, printable
from luamigrate.scripts import library
from tests.conftest import luamigrate, run
from tests.instances import Instance, start
from tests.liar import Liar, Lie, encoded, lying
from tests.migration.test_run import HASHES, fill
from tests.preflight.test_checks import user

JOBS = plan([("job:*", "step:*", "hash")])


def test_a_server_at_its_memory_limit_fails_the_keys_it_refuses(server_name: str) -> None:
    """Each is `failed` for `oom`, what was there is compared all the same, and a re-run finishes."""
    with start(server_name, "--maxmemory-policy", "noeviction") as server:
        fill(server.client, jobs=30)
        server.client.copy("job:1", "step:1")
        server.client.config_set("maxmemory", 100_000)
        result = run(server, *HASHES, "--json", "--ignore-check", "memory")
        assert (result.code, result.totals) == (1, {"found": 30, "same": 1, "failed": 29, "ignored": 0})
        assert result.document["rules"][0]["failed_reasons"] == {"oom": 29}
        (text,) = result.document["rules"][0]["failed_texts"].values()
        assert "OOM" in text
        human = run(server, *HASHES, "--ignore-check", "memory").out
        assert "FAILED: 29 keys" in human
        assert "maxmemory" in human
        assert re.search(rf"^The first that failed \(oom\): 'job:\d+': {re.escape(text)}$", human, re.MULTILINE)

        server.client.config_set("maxmemory", 0)
        assert run(server, *HASHES, "--json").totals == {"found": 30, "copied": 29, "same": 1, "ignored": 0}


def refusing_every_key(words: bytes, name: str = "copy") -> Liar:
    """Answer to a script that the server refuses each pair in these words."""
    digest = hashlib.sha1(library.source(name).encode(), usedforsecurity=False).hexdigest().encode()

    def lie(command: list[bytes]) -> Lie | None:
        if command[1:2] != [digest]:
            return None
        return Lie(encoded([b"failed " + words] * (int(command[2]) // 2) + [7]))

    return lie


@pytest.mark.single_server("the liar stands before one server")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"ERR This Redis command is not \x1b[2J allowed from script", "other"),
        (b"NOPERM User \nalice has no permissions to run the 'copy' command", "noperm"),
    ],
)
def test_the_summary_has_the_words_of_the_first_key_that_failed(
    any_server: Instance, words: bytes, reason: str
) -> None:
    """With --quiet and without a report too, escaped; the document has them by rule."""
    fill(any_server.client, jobs=30)
    shown = printable(words)
    with lying(any_server.url.removeprefix("unix://"), refusing_every_key(words)) as url:
        human = luamigrate("run", *HASHES, "--quiet", url=url)
        result = luamigrate("run", *HASHES, "--json", url=url)
    assert human.code == result.code == 1
    line = rf"^The first that failed \({reason}\): 'job:\d+': {re.escape(shown)}$"
    assert len(re.findall(line, human.out, re.MULTILINE)) == 1
    assert result.document["rules"][0]["failed_texts"] == {reason: shown}


def test_a_server_that_becomes_a_replica_and_stays_one_stops_the_run(server_name: str) -> None:
    """A guard says so after the patience, no key fails, and what was copied before counts."""
    with start(server_name) as server, connect(server.url) as connection:
        fill(server.client, jobs=500)
        words: Counter[str] = Counter()
        limits = Limits(batch_size=50, patience=0.3)
        with pytest.raises(Stopped, match="role: the server has become a replica") as caught:  # noqa: PT012
            for batch in migrate(connection, JOBS, limits=limits):
                words.update(batch.tally.counts)
                if words["copied"] >= 100:
                    server.client.replicaof("127.0.0.1", "1")
        assert caught.value.exit_code == 4
        assert set(words) == {"copied"}
        server.client.replicaof("no", "one")
        assert run(server, *HASHES, "--json").totals["same"] == words["copied"]


def test_a_server_that_is_a_replica_only_for_a_while_costs_no_key(server_name: str) -> None:
    """It is waited for; the batch it refused is sent again."""
    with start(server_name) as server, connect(server.url) as connection:
        fill(server.client, jobs=500)
        words: Counter[str] = Counter()
        told: list[str] = []

        def tell(text: str) -> None:
            told.append(text)
            if "replica" in text:
                server.client.replicaof("no", "one")

        for batch in migrate(connection, JOBS, limits=Limits(batch_size=50), operator=Operator(tell=tell)):
            words.update(batch.tally.counts)
            if words["copied"] == 100:
                server.client.replicaof("127.0.0.1", "1")
        assert words == {"copied": 500}
        assert any("waiting for the server: role" in text for text in told)


def test_a_script_cache_that_is_emptied_in_mid_run_costs_no_key(server: Instance) -> None:
    """The script is registered again, and the batch it was missed for is sent again."""
    fill(server.client, jobs=500)
    copied = 0
    with connect(server.url) as connection:
        for batch in migrate(connection, JOBS, limits=Limits(batch_size=20)):
            copied += batch.tally.counts.total()
            server.client.script_flush()
    assert copied == 500
    assert run(server, *HASHES, "--json").totals == {"found": 500, "same": 500, "ignored": 0}


def test_a_connection_that_is_lost_in_mid_run_is_made_again(server: Instance) -> None:
    """Nothing is lost or counted twice; how many keys were sent twice is said."""
    fill(server.client, jobs=500)
    words: Counter[str] = Counter()
    repeated = 0
    told: list[str] = []
    hundreds: set[int] = set()
    with connect(server.url) as connection:
        for batch in migrate(connection, JOBS, limits=Limits(batch_size=20), operator=Operator(tell=told.append)):
            words.update(batch.tally.counts)
            repeated += batch.repeated
            if words.total() // 100 not in hundreds:
                hundreds.add(words.total() // 100)
                server.client.client_kill_filter(_type="normal", skipme=True)
    assert words.total() == 500
    assert words["copied"] + words["same"] == 500
    assert words["same"] <= repeated <= 200 * len(server.shards())
    assert any(text.startswith("waiting for the server: the connection was lost") for text in told)


def test_without_patience_a_lost_connection_ends_the_run_with_what_was_counted(any_server: Instance) -> None:
    """The error says so, and running again finishes."""
    fill(any_server.client, jobs=500)
    counted = 0
    lost = "the connection was lost"
    with connect(any_server.url) as connection:
        with pytest.raises(Error, match=lost):  # noqa: PT012
            for batch in migrate(connection, JOBS, limits=Limits(batch_size=20, patience=0)):
                counted += batch.tally.counts.total()
                if counted >= 100:
                    any_server.client.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(Error, match=lost):
            next(migrate(connection, JOBS))
    assert 100 <= counted < 500
    totals = run(any_server, *HASHES, "--json").totals
    assert totals["copied"] + totals["same"] == 500


@pytest.mark.parametrize("command", [("run",), ("rollback", "--yes")])
def test_a_report_that_cannot_be_written_stops_the_work_and_all_that_was_done_is_counted(
    any_server: Instance, command: tuple[str, ...]
) -> None:
    """A full disk: exit 1, what was under way and what waited are in the sum."""
    fill(any_server.client, jobs=2000)
    if command[0] == "rollback":
        run(any_server, *HASHES)
    any_server.client.hset("step:7", "id", "another")
    before = any_server.client.dbsize()
    options = ("--report", "/dev/full", "--report-all", "--batch-size", "50", "--json")
    result = luamigrate(*command, *HASHES, *options, url=any_server.url)
    assert result.code == 1
    assert result.err.rstrip().splitlines()[-1] != ""
    assert "--report: cannot write /dev/full" in result.document["error"]
    done = result.totals.get("copied", 0) + result.totals.get("removed", 0)
    assert 0 < done < 1000
    assert abs(any_server.client.dbsize() - before) == done


def test_a_permission_that_goes_in_mid_run_is_an_error_and_no_refusal(server: Instance) -> None:
    """Exit 1: something has been written by then."""
    fill(server.client, jobs=300)
    with user(server, ["@all"], ["*"]) as url, connect(url) as connection:
        server.client.execute_command("ACL", "SETUSER", "careful", "+@all")
        with pytest.raises(Error, match="permissions") as caught:  # noqa: PT012
            for batch in migrate(connection, JOBS, limits=Limits(batch_size=10)):
                if batch.tally.counts:
                    server.client.execute_command("ACL", "SETUSER", "careful", "-evalsha")
    assert not isinstance(caught.value, Refused)
    assert caught.value.exit_code == 1


def test_a_server_that_closes_idle_connections_does_not_end_the_wait_for_the_second_look(any_server: Instance) -> None:
    """It hears from us meanwhile."""
    fill(any_server.client, jobs=3)
    any_server.client.config_set("timeout", 1)
    try:
        result = luamigrate("verify", "--settle", "3", "--patience", "0", "--json", url=any_server.url)
    finally:
        any_server.client.config_set("timeout", 0)
    assert (result.code, result.totals) == (3, {"found": 7, "missing": 7, "ignored": 0})


def test_what_waits_for_a_second_look_is_counted_when_the_server_is_lost(any_server: Instance) -> None:
    """As its first check found it, with a line for the report."""
    fill(any_server.client, jobs=20)
    for number in range(20):
        any_server.client.hset(f"step:{number}", "id", number)
    words: Counter[str] = Counter()
    names: set[bytes] = set()
    with connect(any_server.url) as connection, pytest.raises(Error, match="lost"):  # noqa: PT012
        for batch in migrate(connection, JOBS, settle=0.3, limits=Limits(patience=0)):
            words.update(batch.tally.counts)
            names.update(key.source for key in batch.keys)
            if batch.tally.waiting > 0:
                any_server.client.client_kill_filter(_type="normal", skipme=True)
    assert words == {"partial": 20}
    assert len(names) == 20
