"""Big keys beside others: writers, readers and a second run, in the middle of a key."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

import pytest
import redis

from luamigrate import Batch, Command, Limits, Summary, connect, migrate, plan, rollback
from luamigrate.model.plans import Plan
from tests.instances import Instance, read_value
from tests.migration.test_big import (
    NAMES,
    VALUES,
    expire_fields,
    has_staging_keys,
    without,
    write,
    write_all,
)
from tests.migration.test_run import assert_equal

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
        if batch.large and batch.large[1] >= part and not acted:
            acted.append(batch.large[1])
            act()

    return step


def last_part(server: Instance, work: Callable[..., Iterator[Batch]], **options: Any) -> float:
    """Return the part that is done after the last chunk, where nobody steps in."""
    parts = [0.0]
    stepping(server, lambda batch: parts.append(batch.large[1] if batch.large else 0.0), work, **options)
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
            if batch.large and batch.large[1] >= part and (batch.large[0], part) not in seen:
                seen.add((batch.large[0], part))
                CHANGES[batch.large[0].decode().removeprefix("job:")](server.client, b"at %f" % part)

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
        if batch.large and batch.large[0] == b"job:hash":
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
