"""Big keys in trouble, in the middle of a key: kills, full servers, lost connections, held work."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from luamigrate import Batch, Operator, Word, migrate, rollback
from luamigrate.cli.embedded import wait_until_up
from luamigrate.cli.options import environment
from luamigrate.migration import watch
from tests.conftest import luamigrate
from tests.instances import Instance, assert_kept, snapshot, start
from tests.migration.test_big import (
    ANY,
    EACH,
    FAR,
    GENTLY,
    MANY,
    NAMES,
    PARTED,
    VALUES,
    configured,
    expire_fields,
    has_staging_keys,
    without,
    write,
    write_all,
)
from tests.migration.test_big_live import AND_OTHERS, COMPARING, STAGING, last_part, once, stepping, words
from tests.migration.test_run import assert_equal
from tests.processes import of_this_test
from tests.schemas import read_document
from tests.server.test_recovery import DURABLE, restart


def staging_key(server: Instance) -> bytes:
    """Return the name of the one staging key."""
    names: Any = server.client.keys("luamigrate:staging:*")
    assert len(names) == 1
    return bytes(names[0])


LARGE: dict[Any, Any] = {f"field-{number}": "value" for number in range(20_000)}


@contextmanager
def run_until_it_stages(server: Instance, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Start a run in a process of its own and wait until it has begun with a big key."""
    process = subprocess.Popen(
        (sys.executable, "-m", "luamigrate", "run", *GENTLY, "--json", *options),
        env=environment(REDIS_URL=server.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    of_this_test(process)
    try:
        while not has_staging_keys(server):
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_run_that_is_killed_in_mid_copy_leaves_no_half_target(any_server: Instance) -> None:
    """Only a staging key that expires by itself; the next run completes, and does not take it for a source."""
    client = any_server.client
    client.hset("job:{1}", mapping=LARGE)
    before = snapshot(client)
    braces = ("--map", "*}=*]")
    with run_until_it_stages(any_server, *braces) as process:
        process.kill()
    assert_kept(before, snapshot(client))
    staging = staging_key(any_server)
    assert 0 < client.pttl(staging) <= 60_000
    assert staging.endswith(b"}")
    assert client.dbsize() == 2
    again = luamigrate("run", *braces, *GENTLY, "--json", url=any_server.url)
    assert (again.code, again.totals) == (0, {"found": 1, "copied": 1, "ignored": 0})
    assert_equal(any_server, "job:{1}", "job:{1]")
    assert set(client.keys()) == {b"job:{1}", b"job:{1]", staging}


def test_ctrl_c_in_mid_copy_leaves_nothing(any_server: Instance) -> None:
    """Exit 130; the key is not counted, neither as failed nor otherwise; the same command finishes the job."""
    any_server.client.hset("job:1", mapping=LARGE)
    with run_until_it_stages(any_server, *ANY) as process:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    document = read_document(out)
    assert (process.returncode, document["interrupted"]) == (130, True)
    assert document["totals"] == {"found": 0, "ignored": 0}
    assert "Traceback" not in err
    assert any_server.client.keys() == [b"job:1"]
    again = luamigrate("run", *EACH, url=any_server.url)
    assert (again.code, again.totals) == (0, {"found": 1, "copied": 1, "ignored": 0})


def test_a_server_that_is_full_in_mid_copy_fails_the_key(server: Instance) -> None:
    """For `oom`; the staging key makes room again, and the run goes on."""
    write(server, "job:hash", VALUES["hash"])
    for name in ("other:set", "others:set"):
        write(server, name, VALUES["set"], "set")
    with configured(server, maxmemory=0):
        step = once(STAGING, lambda: server.client.config_set("maxmemory", 1))
        result = stepping(server, step, rules=AND_OTHERS, ignored_checks=frozenset({"memory"}))
        assert words(result) == {"failed": 1, "same": 1}
        assert result.totals.reasons == {"oom": 1}
        assert result.exit_code == 1
        assert server.client.dbsize() == 3
    assert words(stepping(server, lambda _: None, rules=AND_OTHERS)) == {"copied": 1, "same": 1}


def test_a_server_that_is_full_when_a_copy_is_finished_fails_it_for_that_or_takes_it(server: Instance) -> None:
    """Some versions let nothing into a transaction then."""
    write(server, "job:hash", VALUES["hash"])
    last = last_part(server, migrate)
    server.client.delete("step:hash")
    with configured(server, maxmemory=0):
        step = once(last, lambda: server.client.config_set("maxmemory", 1))
        result = stepping(server, step, ignored_checks=frozenset({"memory"}))
    assert words(result) == {"copied": 1} or result.totals.reasons == {"oom": 1}
    assert bool(server.client.exists("step:hash")) == (Word.COPIED in result.totals.counts)
    assert not has_staging_keys(server)


@pytest.mark.parametrize("moment", [STAGING, COMPARING])
def test_a_script_cache_that_is_emptied_in_mid_copy_costs_no_key(server: Instance, moment: float) -> None:
    """As little as between two batches."""
    write_all(server)
    flushed: set[bytes] = set()

    def step(batch: Batch) -> None:
        if batch.large and batch.large[1] >= moment and batch.large[0] not in flushed:
            flushed.add(batch.large[0])
            server.client.script_flush()

    assert words(stepping(server, step)) == {"copied": 5}
    for kind in PARTED:
        server.client.delete(f"step:{kind}")
        write(server, f"step:{kind}", without(kind, NAMES[:9]))
    flushed.clear()
    assert words(stepping(server, step, on_existing="fill", fill_queues=True)) == {"filled": 3, "same": 2}
    flushed.clear()
    moment = STAGING
    assert words(stepping(server, step, rollback)) == {"removed": 5}
    assert len(flushed) == 5


@pytest.mark.parametrize("moment", [STAGING, COMPARING])
def test_a_connection_that_is_lost_in_mid_copy_is_made_again(server: Instance, moment: float) -> None:
    """And the key begun anew; its staging key is not left behind."""
    write_all(server)
    lost: set[bytes] = set()

    def step(batch: Batch) -> None:
        if batch.large and batch.large[1] >= moment and batch.large[0] not in lost:
            lost.add(batch.large[0])
            server.client.client_kill_filter(_type="normal", skipme=True)

    assert words(stepping(server, step)) == {"copied": 5}
    for kind in VALUES:
        assert_equal(server, f"job:{kind}", f"step:{kind}")
    assert server.client.dbsize() == 10
    lost.clear()
    moment = STAGING
    assert words(stepping(server, step, rollback)) == {"removed": 5}
    assert len(lost) == 5


def test_a_connection_that_is_lost_in_each_attempt_fails_the_key_and_the_run_goes_on(
    server: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who kills connections all the time ends no run."""
    monkeypatch.setattr(watch, "RECONNECTIONS", 2)
    write(server, "job:hash", VALUES["hash"])
    for name in ("other:1", "others:1"):
        server.client.set(name, "1")

    def step(batch: Batch) -> None:
        if batch.large:
            server.client.client_kill_filter(_type="normal", skipme=True)

    result = stepping(server, step, rules=AND_OTHERS)
    assert words(result) == {"failed": 1, "same": 1}
    assert result.totals.reasons == {"busy": 1}
    assert not has_staging_keys(server)


def test_without_patience_a_connection_that_is_lost_in_mid_copy_ends_the_run(any_server: Instance) -> None:
    """Exit 1, and the error says so; the key is not counted, and running again finishes."""
    any_server.client.hset("job:1", mapping=LARGE)
    with run_until_it_stages(any_server, *ANY, "--patience", "0") as process:
        any_server.client.client_kill_filter(_type="normal", skipme=True)
        out, err = process.communicate(timeout=5)
    document = read_document(out)
    assert (process.returncode, document["totals"]) == (1, {"found": 0, "ignored": 0})
    assert "the connection was lost" in document["error"]
    assert "Traceback" not in err
    assert not any_server.client.exists("step:1")
    assert any_server.client.pttl(staging_key(any_server)) > 0
    assert luamigrate("run", *EACH, url=any_server.url).totals["copied"] == 1


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the guards look after every chunk, so that it is they who notice a lost connection."""
    monkeypatch.setattr("luamigrate.migration.throttle.SECONDS_BETWEEN_CHECKS", 0.0)


def test_what_is_written_while_the_connection_is_lost_is_in_the_copy(server: Instance, watchful: None) -> None:
    """The new connection watches nothing: what was compared on the old one proves nothing."""
    write(server, "job:hash", VALUES["hash"])
    last = last_part(server, migrate)
    server.client.delete("step:hash")

    def lose_and_write() -> None:
        server.client.client_kill_filter(_type="normal", skipme=True)
        server.client.hset("job:hash", mapping=dict.fromkeys(NAMES, b"another"))

    assert words(stepping(server, once(last, lose_and_write))) == {"copied": 1}
    assert_equal(server, "job:hash", "step:hash")


def test_what_is_written_while_the_connection_is_lost_is_not_rolled_back(server: Instance, watchful: None) -> None:
    """The target has become the application's own."""
    write(server, "job:hash", VALUES["hash"])
    server.client.copy("job:hash", "step:hash")
    last = last_part(server, rollback, dry_run=True)

    def lose_and_write() -> None:
        server.client.client_kill_filter(_type="normal", skipme=True)
        server.client.hset("step:hash", "more", "1")

    assert words(stepping(server, once(last, lose_and_write), rollback)) == {"kept": 1}
    assert server.client.hget("step:hash", "more") == b"1"


@pytest.mark.parametrize("seconds", [0.0, 1.0], ids=["seen-by-a-guard", "seen-by-a-chunk"])
def test_a_server_that_is_killed_in_mid_copy_and_comes_back_has_everything_copied(
    server_name: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever notices it: from the beginning, with what has been written since; no staging key is there in the end."""
    monkeypatch.setattr("luamigrate.migration.throttle.SECONDS_BETWEEN_CHECKS", seconds)
    with start(server_name, *DURABLE) as server:
        write(server, "job:hash", VALUES["hash"])

        def restart_and_write() -> None:
            restart(server, *DURABLE)
            assert wait_until_up(server.process, server.client)
            while server.client.info("persistence")["loading"]:
                time.sleep(0.005)
            server.client.hset("job:hash", mapping=dict.fromkeys(NAMES, b"another"))

        result = stepping(server, once(STAGING, restart_and_write))
        assert words(result) == {"copied": 1}
        assert any("another server process answered in mid-run" in text for text in result.warnings)
        assert_equal(server, "job:hash", "step:hash")
        assert server.client.dbsize() == 2


@pytest.mark.parametrize("work", [migrate, rollback], ids=["run", "rollback"])
def test_a_server_that_takes_no_writes_for_a_while_is_waited_for(
    server: Instance, work: Callable[..., Iterator[Batch]]
) -> None:
    """As when it has lost its replicas: no key fails, and in the end no staging key is there."""
    write(server, "job:hash", VALUES["hash"])
    last = last_part(server, migrate)
    if work is rollback:
        last = last_part(server, rollback, dry_run=True)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        server.client.config_set("min-replicas-to-write", 0)

    for moment in (last,) if work is rollback else (STAGING, last):
        server.client.delete("step:hash")
        if work is rollback:
            server.client.copy("job:hash", "step:hash")
        with configured(server, min_replicas_to_write=0):
            step = once(moment, lambda: server.client.config_set("min-replicas-to-write", 1))
            result = stepping(server, step, work, operator=Operator(tell=tell))
        assert words(result) == {"copied" if work is migrate else "removed": 1}
        assert "NOREPLICAS" in told.pop()
        assert not has_staging_keys(server)


@pytest.mark.parametrize("moment", [STAGING, COMPARING])
def test_a_staging_key_that_expires_while_the_work_is_held_is_made_again(
    any_server: Instance, moment: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held for longer than it lives, whatever was being done with it."""
    monkeypatch.setattr("luamigrate.migration.large_key_verbs.LIFETIME_MS", 100)
    write(any_server, "job:hash", VALUES["hash"])
    assert words(stepping(any_server, once(moment, lambda: time.sleep(0.12)))) == {"copied": 1}
    assert_equal(any_server, "job:hash", "step:hash")


def test_what_somebody_writes_to_a_staging_key_is_never_published(server: Instance) -> None:
    """The copy is held against its source before anybody can read it."""
    write(server, "job:hash", VALUES["hash"])
    step = once(STAGING, lambda: server.client.hset(staging_key(server), "more", "1"))
    result = stepping(server, step)
    assert words(result) == {"failed": 1}
    assert server.client.keys() == [b"job:hash"]


def test_a_staging_key_whose_fields_expire_at_another_time_is_never_published(server: Instance) -> None:
    """Expiries of fields are compared as well."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    write(server, "job:hash", VALUES["hash"])
    expire_fields(server, "job:hash", *NAMES, at=FAR)

    def persist() -> None:
        server.client.execute_command("HPERSIST", staging_key(server), "FIELDS", MANY, *NAMES)

    assert words(stepping(server, once(0.5, persist))) == {"failed": 1}
    assert server.client.keys() == [b"job:hash"]
