"""Big keys beside others: writers, readers, a second run, and trouble on the way, in the middle of a key."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import pytest
import redis

from luamigrate import Batch, Command, Limits, Operator, Stage, Summary, Word, connect, migrate, plan, rollback
from luamigrate.cli.embedded import wait_until_up
from luamigrate.cli.options import environment
from luamigrate.migration import watch
from luamigrate.model.rules import Plan
from tests.conftest import luamigrate
from tests.instances import Instance, assert_kept, read_value, snapshot, start
from tests.processes import of_this_test
from tests.test_big import (
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
from tests.test_recovery import DURABLE, restart
from tests.test_run import assert_equal

RULES = plan([("job:*", "step:*", "any")])
AND_OTHERS = plan([("job:*", "step:*", "any"), ("other:*", "others:*", "any")])
GENTLE = Limits(max_pause=0.1, patience=10)

STAGING, COMPARING = 0.2, 0.6
"""Parts of a big key that are done while it is being copied, and while the copy is being compared."""

Step = Callable[[Batch], object]


def stepping(
    server: Instance,
    step: Step,
    work: Callable[..., Iterator[Batch]] = migrate,
    rules: Plan = RULES,
    **options: Any,
) -> Summary:
    """Do the work gently while somebody steps in after every batch; return what came of it."""
    command = Command.RUN if work is migrate else Command.ROLLBACK
    summary = Summary(rules, command)
    with connect(server.url) as connection:
        for batch in work(connection, rules, **{"settle": 0.02, "limits": GENTLE, **options}):
            summary.add(batch)
            step(batch)
    return summary


def words(summary: Summary) -> Counter[str]:
    """Return how often each word came up."""
    return Counter({word.value: count for word, count in summary.totals.words})


def once(part: float, act: Callable[[], object]) -> Step:
    """Act once, when this part of a big key is done."""
    acted: list[float] = []

    def step(batch: Batch) -> None:
        if batch.big and batch.big[1] >= part and not acted:
            acted.append(batch.big[1])
            act()

    return step


def last_part(server: Instance, work: Callable[..., Iterator[Batch]], **options: Any) -> float:
    """Return the part that is done after the last chunk, where nobody steps in."""
    parts = [0.0]
    stepping(server, lambda batch: parts.append(batch.big[1] if batch.big else 0.0), work, **options)
    return max(parts)


class Busy(threading.Thread):
    """Somebody who does something again and again, on a connection of their own."""

    def __init__(self, server: Instance, act: Callable[[redis.Redis], object], interval: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.times = 0
        self._server, self._act, self._interval, self._done = server, act, interval, threading.Event()

    def run(self) -> None:
        """Do it until told to stop."""
        with self._server.another_client() as client:
            while not self._done.wait(self._interval):
                self._act(client)
                self.times += 1

    def __enter__(self) -> Self:
        self.start()
        while not self.times:
            time.sleep(0.001)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()


CHANGES: dict[str, Callable[[redis.Redis, bytes], object]] = {
    "hash": lambda client, value: client.hset("job:hash", NAMES[0], value),
    "set": lambda client, value: client.sadd("job:set", value),
    "zset": lambda client, value: client.zadd("job:zset", {value: 1}),
    "list": lambda client, value: client.lset("job:list", 3, value),  # type: ignore[arg-type]
    "string": lambda client, value: client.setrange("job:string", 7, value),
}


def test_a_write_to_the_source_in_mid_copy_begins_it_anew(server: Instance) -> None:
    """While it is copied or compared: the copy is what the source is in the end."""
    write_all(server)
    seen: set[tuple[bytes, float]] = set()

    def step(batch: Batch) -> None:
        for part in (STAGING, COMPARING):
            if batch.big and batch.big[1] >= part and (batch.big[0], part) not in seen:
                seen.add((batch.big[0], part))
                CHANGES[batch.big[0].decode().removeprefix("job:")](server.client, b"at %f" % part)

    assert words(stepping(server, step)) == {"copied": 5}
    assert len(seen) >= 9, "a string is copied in one chunk"
    for kind in VALUES:
        assert_equal(server, f"job:{kind}", f"step:{kind}")


def test_a_copy_is_what_the_source_was_at_one_moment(server: Instance) -> None:
    """Beside a writer that changes fields far apart together."""
    write(server, "job:hash", VALUES["hash"])
    fields, found = NAMES[::100], []

    def change(client: redis.Redis) -> None:
        client.hset("job:hash", mapping=dict.fromkeys(fields, time.monotonic_ns()))

    with Busy(server, change, interval=0.03):
        for _ in range(10):
            assert words(stepping(server, lambda _: None)).keys() <= {"copied", "failed"}
            found.append(set(server.client.hmget("step:hash", fields)))
            server.client.delete("step:hash")
    assert {len(values) for values in found} == {1}
    assert len([values for values in found if values != {None}]) > 1


def test_a_key_that_is_written_all_the_time_fails_and_the_run_goes_on(server: Instance) -> None:
    """`failed` for `busy`, exit 1; nothing is made of it, and the others are copied."""
    write(server, "job:hash", VALUES["hash"])
    write(server, "other:set", VALUES["set"], "set")
    result = stepping(server, written_all_the_time(server), rules=AND_OTHERS)
    assert (result.exit_code, words(result)) == (1, {"copied": 1, "failed": 1})
    assert result.totals.reasons == {"busy": 1}
    assert_equal(server, "other:set", "others:set")
    assert sorted(server.client.keys()) == [b"job:hash", b"other:set", b"others:set"]
    assert words(stepping(server, lambda _: None, rules=AND_OTHERS)) == {"copied": 1, "same": 1}


def written_all_the_time(server: Instance) -> Step:
    """Write to the hash after each of its chunks, the last one included."""

    def step(batch: Batch) -> None:
        if batch.big and batch.big[0] == b"job:hash":
            CHANGES["hash"](server.client, b"%d" % time.monotonic_ns())

    return step


def test_a_key_that_is_written_all_the_time_is_taken_whole_where_that_is_allowed(server: Instance) -> None:
    """A long pause is the only way to have it."""
    write(server, "job:hash", VALUES["hash"])
    limits = Limits(max_pause=0.1, allow_long_pause=True)
    assert words(stepping(server, written_all_the_time(server), limits=limits)) == {"copied": 1}
    assert server.client.hlen("step:hash") == len(VALUES["hash"])


@pytest.mark.parametrize("moment", [STAGING, COMPARING, 1.0], ids=["copying", "comparing", "before-the-end"])
def test_a_target_that_somebody_makes_in_mid_copy_is_not_overwritten(server: Instance, moment: float) -> None:
    """It is compared instead, whatever it is."""
    write(server, "job:hash", VALUES["hash"])
    last = last_part(server, migrate)
    made: dict[str, tuple[str, Any]] = {
        "partial": ("hash", {NAMES[0]: VALUES["hash"][NAMES[0]]}),
        "differs": ("set", VALUES["set"]),
        "same": ("hash", VALUES["hash"]),
    }
    for word, (kind, content) in made.items():
        server.client.delete("step:hash")
        make = partial(write, server, "step:hash", content, kind)
        assert words(stepping(server, once(min(moment, last), make))) == {word: 1}
        assert read_value(server.client, b"step:hash") == (kind, content)
        assert not has_staging_keys(server)


@pytest.mark.parametrize("moment", [STAGING, COMPARING, 1.0], ids=["copying", "comparing", "before-the-end"])
def test_a_source_that_goes_in_mid_copy_is_gone(server: Instance, moment: float) -> None:
    """Deleted or expired; nothing is made of it."""
    write(server, "job:hash", VALUES["hash"])
    moment = min(moment, last_part(server, migrate))

    def expire() -> None:
        server.client.pexpire("job:hash", 1)
        time.sleep(0.01)

    for act in (lambda: server.client.delete("job:hash"), expire):
        server.client.delete("step:hash")
        write(server, "job:hash", VALUES["hash"])
        assert words(stepping(server, once(moment, act))) == {"gone": 1}
        assert server.client.dbsize() == 0


def test_a_source_that_expires_by_itself_in_mid_copy_is_gone(server: Instance) -> None:
    """Its expiry was there when the copy began."""
    write(server, "job:hash", VALUES["hash"])
    server.client.pexpire("job:hash", 100)
    assert words(stepping(server, once(COMPARING, lambda: time.sleep(0.12)))) == {"gone": 1}
    assert server.client.dbsize() == 0


def test_a_field_that_expires_in_mid_copy_is_in_neither(server: Instance) -> None:
    """Whether or not the server has noticed."""
    if not server.has_field_expiries:
        pytest.skip("fields of hashes cannot expire on this server")
    for active in ("0", "1"):
        for moment in (STAGING, COMPARING):
            server.client.flushall()
            server.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", active)
            write(server, "job:hash", VALUES["hash"])
            expire_fields(server, "job:hash", *NAMES[:50], at=int(time.time() * 1000) + 60)
            try:
                result = stepping(server, once(moment, lambda: time.sleep(0.08)))
            finally:
                server.client.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", "1")
            assert words(result) == {"copied": 1}
            assert server.client.hgetall("step:hash") == without("hash", NAMES[:50])


@pytest.mark.parametrize("kind", ["any", "hash"])
def test_a_source_of_another_type_in_mid_copy_is_taken_for_what_it_is(server: Instance, kind: str) -> None:
    """As if it had always been: copied, or ignored by a rule for another type."""
    write(server, "job:1", VALUES["hash"], "hash")

    def replace() -> None:
        server.client.delete("job:1")
        server.client.set("job:1", "text")

    result = stepping(server, once(STAGING, replace), rules=plan([("job:*", "step:*", kind)]))
    assert words(result) == ({"copied": 1} if kind == "any" else {})
    assert result.totals.ignored == ({} if kind == "any" else {"string": 1})
    assert server.client.get("step:1") == (b"text" if kind == "any" else None)


def test_a_target_of_another_type_in_mid_comparison_is_told_so(server: Instance) -> None:
    """The comparison begins anew."""
    write(server, "job:hash", VALUES["hash"])
    write(server, "step:hash", VALUES["hash"])

    def replace() -> None:
        server.client.delete("step:hash")
        server.client.set("step:hash", "text")

    assert words(stepping(server, once(STAGING, replace))) == {"differs": 1}
    assert server.client.get("step:hash") == b"text"


def test_a_rollback_keeps_what_is_written_to_at_the_last_moment(server: Instance) -> None:
    """The target has something that its source has not, or the source has lost something."""
    for act in (
        lambda: server.client.hset("step:hash", "more", "1"),
        lambda: server.client.hdel("job:hash", NAMES[3]),
        lambda: server.client.pexpire("job:hash", 1000),
    ):
        server.client.flushall()
        write(server, "job:hash", VALUES["hash"])
        server.client.copy("job:hash", "step:hash")
        last = last_part(server, rollback, dry_run=True)
        assert words(stepping(server, once(last, act), rollback)) == {"kept": 1}
        assert server.client.exists("step:hash")


def test_no_reader_ever_sees_a_half_made_target(server: Instance) -> None:
    """It is absent or whole, all along a run and a rollback."""
    write_all(server)
    seen: set[tuple[int, ...]] = set()
    ask = ("HLEN", "SCARD", "ZCARD", "LLEN", "STRLEN")

    def look(client: redis.Redis) -> None:
        pipeline = client.pipeline(transaction=False)
        for command, kind in zip(ask, VALUES, strict=True):
            pipeline.execute_command(command, f"step:{kind}")
        seen.add(tuple(pipeline.execute()))

    with Busy(server, look) as reader:
        assert words(stepping(server, lambda _: time.sleep(0.0005))) == {"copied": 5}
        assert words(stepping(server, lambda _: time.sleep(0.0005), rollback)) == {"removed": 5}
    assert reader.times > 100
    for kind, lengths in zip(VALUES, zip(*seen, strict=True), strict=True):
        assert set(lengths) == {0, len(VALUES[kind])}


def test_two_runs_at_once_do_not_disturb_each_other(server: Instance) -> None:
    """Every key ends as copied or same in both, each is copied once, and nothing is left behind."""
    write_all(server)
    for number in range(20):
        server.client.hset(f"job:{number}", "a", number)
    summaries: list[Summary] = []
    barrier = threading.Barrier(2)

    def work() -> None:
        barrier.wait()
        summaries.append(stepping(server, lambda _: time.sleep(0.0005)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    both = words(summaries[0]) + words(summaries[1])
    assert both == {"copied": 25, "same": 25}
    for kind in VALUES:
        assert_equal(server, f"job:{kind}", f"step:{kind}")
    assert server.client.dbsize() == 50


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
    document = json.loads(out)
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
        if batch.big and batch.big[1] >= moment and batch.big[0] not in flushed:
            flushed.add(batch.big[0])
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
        if batch.big and batch.big[1] >= moment and batch.big[0] not in lost:
            lost.add(batch.big[0])
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
        if batch.big:
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
    document = json.loads(out)
    assert (process.returncode, document["totals"]) == (1, {"found": 0, "ignored": 0})
    assert "the connection was lost" in document["error"]
    assert "Traceback" not in err
    assert not any_server.client.exists("step:1")
    assert any_server.client.pttl(staging_key(any_server)) > 0
    assert luamigrate("run", *EACH, url=any_server.url).totals["copied"] == 1


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the guards look after every chunk, so that it is they who notice a lost connection."""
    monkeypatch.setattr("luamigrate.migration.throttle.SECONDS_BETWEEN_LOOKS", 0.0)


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
    monkeypatch.setattr("luamigrate.migration.throttle.SECONDS_BETWEEN_LOOKS", seconds)
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
    monkeypatch.setattr("luamigrate.migration.large_keys.LIFETIME_MS", 100)
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


def fill_stepping(server: Instance, *acts: Callable[[], object], settle: float = 0.05) -> Summary:
    """Fill, while somebody acts: when the second look begins, then while what is missing waits to be added."""
    left = list(acts)

    def step(batch: Batch) -> None:
        if not batch.big or batch.stage is not Stage.AGAIN or not left:
            return
        waits = batch.seconds == 0.0
        if waits or len(left) == len(acts):
            left.pop(0)()

    result = stepping(server, step, on_existing="fill", settle=settle)
    assert not left
    return result


def write_partial(server: Instance) -> None:
    """Write a big hash and a target that lacks some of it."""
    write(server, "job:hash", VALUES["hash"])
    write(server, "step:hash", without("hash", NAMES[:9]))


def nothing() -> None:
    """Do not step in."""


def test_a_field_that_both_sides_delete_during_a_fill_is_not_brought_back(server: Instance) -> None:
    """In the target first, when the second look is under way; then in the source."""
    write_partial(server)
    result = fill_stepping(
        server, lambda: server.client.hdel("step:hash", NAMES[100]), lambda: server.client.hdel("job:hash", NAMES[100])
    )
    assert words(result) == {"filled": 1}
    assert server.client.hgetall("step:hash") == server.client.hgetall("job:hash") == without("hash", [NAMES[100]])


def test_a_field_that_the_target_loses_at_the_last_moment_is_not_brought_back(server: Instance) -> None:
    """It has not been missing for long enough; the others are added, and the word is what that makes."""
    write_partial(server)
    result = fill_stepping(server, nothing, lambda: server.client.hdel("step:hash", NAMES[100]))
    assert words(result) == {"partial": 1}
    assert server.client.hgetall("step:hash") == without("hash", [NAMES[100]])


def test_a_field_that_the_application_writes_meanwhile_is_left_as_it_is(server: Instance) -> None:
    """And the target differs then."""
    write_partial(server)
    result = fill_stepping(server, nothing, lambda: server.client.hset("step:hash", NAMES[3], "another"))
    assert words(result) == {"differs": 1}
    assert server.client.hgetall("step:hash") == VALUES["hash"] | {NAMES[3]: b"another"}


def test_a_target_that_is_deleted_during_a_fill_is_not_made_again(server: Instance) -> None:
    """It is missing."""
    write_partial(server)
    assert words(fill_stepping(server, nothing, lambda: server.client.delete("step:hash"))) == {"missing": 1}
    assert not server.client.exists("step:hash")


@pytest.mark.parametrize("mode", ["skip", "fill"])
def test_a_target_that_is_deleted_between_the_looks_is_copied_only_when_it_stays_away(
    any_server: Instance, mode: str
) -> None:
    """One look that finds it missing is not enough."""
    write_partial(any_server)
    moments: list[float] = []

    def step(batch: Batch) -> None:
        if batch.tally.waiting > 0:
            any_server.client.delete("step:hash")
        if batch.tally.waiting > 0 or (batch.big and batch.stage is Stage.AGAIN):
            moments.append(time.monotonic())

    assert words(stepping(any_server, step, on_existing=mode, settle=0.05)) == {"copied": 1}
    assert moments[1] - moments[0] >= 2 * 0.05
    assert_equal(any_server, "job:hash", "step:hash")
