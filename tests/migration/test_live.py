"""A run beside an application that goes on writing to both names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from luamigrate import Batch, Limits, connect, migrate, plan, verify
from luamigrate.server.deployment import Deployment
from tests.conftest import luamigrate
from tests.instances import Instance, snapshot
from tests.judge import DualWriter, assert_migrated
from tests.migration.test_run import HASHES

JOBS = 2000
RULE = plan([("job:*", "step:*", "hash")])


def test_a_run_beside_a_dual_writer_ends_with_everything_the_same(server: Instance) -> None:
    """No word but copied and same, nothing lost, and sources hold just what the application wrote."""
    pipeline = server.client.pipeline(transaction=False)
    for number in range(JOBS):
        pipeline.hset(f"job:{number}", "id", number)
    pipeline.execute()
    words: Counter[str] = Counter()
    with DualWriter(server, snapshot(server.client)) as application, connect(server.url) as connection:
        for batch in migrate(connection, RULE, limits=Limits(batch_size=7)):
            words.update(batch.tally.counts)
    assert words.keys() <= {"copied", "same"}
    assert words.total() == JOBS
    again = luamigrate("run", *HASHES, "--json", url=server.url)
    assert again.totals == {"found": JOBS, "same": JOBS, "ignored": 0}
    assert_migrated(server, application.expected)


def test_fill_and_verify_beside_a_dual_writer_end_with_everything_the_same(server: Instance) -> None:
    """Nothing is lost, and no field that the writer has deleted is back."""
    jobs = 300
    pipeline = server.client.pipeline(transaction=False)
    for number in range(jobs):
        pipeline.hset(f"job:{number}", mapping={"id": number, "f0": "0"})
        if number % 3 == 0:
            pipeline.hset(f"step:{number}", "f0", "0")
    pipeline.execute()
    words: Counter[str] = Counter()
    writer = DualWriter(server, snapshot(server.client), creates=True, deletes=True)
    with writer as application, connect(server.url) as connection:
        for _ in range(3):
            for batch in migrate(connection, RULE, limits=Limits(batch_size=7), on_existing="fill", settle=0.05):
                words.update(batch.tally.counts)
        for batch in verify(connection, RULE, limits=Limits(batch_size=7), settle=0.05, extra=True):
            words.update({f"verified {word}": count for word, count in batch.tally.counts.items()})
    assert words["filled"] >= jobs // 3 - words["partial"]
    assert words["failed"] == words["differs"] == words["gone"] == 0
    for batch in collect(server, lambda connection: migrate(connection, RULE, on_existing="fill", settle=0.02)):
        words.update(batch.tally.counts)
    again = luamigrate("verify", *HASHES, "--extra", "--json", url=server.url)
    assert (again.code, again.totals) == (0, {"found": jobs, "same": jobs, "ignored": 0})
    assert_migrated(server, application.expected)


def collect(server: Instance, work: Callable[[Deployment], Iterator[Batch]]) -> list[Batch]:
    """Do the work to its end."""
    with connect(server.url) as connection:
        return list(work(connection))


def stepping(server: Instance, work: Callable[[Deployment], Iterator[Batch]], step: Callable[[], Any]) -> Counter[str]:
    """Do the work while a second client steps in once, right after the first check; return the words."""
    words: Counter[str] = Counter()
    stepped = False
    with connect(server.url) as connection:
        for batch in work(connection):
            looked = bool(batch.tally.counts) or batch.tally.waiting > 0
            if looked and not stepped:
                stepped = True
                step()
            words.update(batch.tally.counts)
    assert stepped
    return words


def run_(connection: Deployment) -> Iterator[Batch]:
    """Copy, as the defaults do it but with a short wait."""
    return migrate(connection, RULE, settle=0.05)


def fill_(connection: Deployment) -> Iterator[Batch]:
    """Fill too."""
    return migrate(connection, RULE, settle=0.05, on_existing="fill")


def verify_(connection: Deployment) -> Iterator[Batch]:
    """Compare, and look for targets without a source."""
    return verify(connection, RULE, settle=0.05, extra=True)


def nothing() -> None:
    """Do not step in."""


def test_a_dual_write_before_the_copy_makes_a_partial_target_which_fill_completes(server: Instance) -> None:
    """The write reaches both, the older fields only the source."""
    server.client.hset("job:1", mapping={"a": "1", "b": "2"})
    server.client.hset("job:1", "b", "3")
    server.client.hset("step:1", "b", "3")
    assert stepping(server, run_, nothing) == {"partial": 1}
    assert stepping(server, fill_, nothing) == {"filled": 1}
    assert stepping(server, verify_, nothing) == {"same": 1}


def test_a_writer_that_writes_the_target_first_is_given_time(server: Instance) -> None:
    """The script in between finds a difference; the second look does not."""
    server.client.hset("job:1", "a", "1")
    server.client.hset("step:1", "a", "2")
    for work in (run_, fill_, verify_):
        server.client.hset("job:1", "a", "1")
        assert stepping(server, work, lambda: server.client.hset("job:1", "a", "2")) == {"same": 1}


def test_a_relative_write_on_both_sides_of_the_copy_differs_for_ever(server: Instance) -> None:
    """Reported, never mended: it needs an atomic dual write."""
    server.client.hset("job:1", "n", "1")
    server.client.hincrby("job:1", "n", 1)
    assert stepping(server, run_, lambda: server.client.hincrby("step:1", "n", 1)) == {"copied": 1}
    for work in (run_, fill_, verify_):
        assert stepping(server, work, nothing) == {"differs": 1}
    assert server.client.hget("step:1", "n") == b"3"


def test_a_field_deleted_on_the_target_first_is_not_brought_back(server: Instance) -> None:
    """The fill looks twice."""
    for name in ("job:1", "step:1"):
        server.client.hset(name, mapping={"a": "1", "b": "2"})
    server.client.hdel("step:1", "b")
    assert stepping(server, fill_, lambda: server.client.hdel("job:1", "b")) == {"same": 1}
    assert not server.client.hexists("step:1", "b")


def test_a_key_deleted_on_both_sides_of_the_copy_is_found_as_extra(server: Instance) -> None:
    """The copy is back without a source: verify says so."""
    for name in ("job:1", "step:1"):
        server.client.hset(name, "a", "1")
    server.client.delete("step:1")
    assert stepping(server, run_, lambda: server.client.delete("job:1")) == {"copied": 1}
    words = Counter(word for batch in collect(server, verify_) for word in batch.tally.counts.elements())
    assert words == {"extra": 1}


def test_an_expiry_refreshed_on_the_source_alone_is_reported(server: Instance) -> None:
    """Equal values, another expiry."""
    server.client.hset("job:1", "a", "1")
    server.client.expire("job:1", 1000)
    assert stepping(server, run_, lambda: server.client.expire("job:1", 2000)) == {"copied": 1}
    for work in (run_, fill_, verify_):
        assert stepping(server, work, nothing) == {"expiry": 1}
    assert server.client.ttl("step:1") <= 1000


def test_a_queue_popped_on_one_side_is_reported_and_never_emptied(server: Instance) -> None:
    """A target that holds more differs; one that holds less is filled only on request."""
    queues = plan([("jobs:pending", "steps:pending", "zset")])

    def words(**options: Any) -> Counter[str]:
        return stepping(server, lambda connection: migrate(connection, queues, settle=0.05, **options), nothing)

    server.client.zadd("jobs:pending", {"1": 1, "2": 2, "3": 3})
    assert words() == {"copied": 1}
    server.client.zpopmin("jobs:pending")
    assert words(on_existing="fill", fill_queues=True) == {"differs": 1}
    assert server.client.zcard("steps:pending") == 3
    server.client.zpopmin("steps:pending", 2)
    assert words(on_existing="fill") == {"partial": 1}
    assert words(on_existing="fill", fill_queues=True) == {"filled": 1}
    assert server.client.zrange("steps:pending", 0, -1) == [b"2", b"3"]
