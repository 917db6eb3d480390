"""The application that counts, and its judge: what it wrote is found, and a write that is lost or doubled as well."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from chaos import counted
from chaos.counted import DOUBLED, LOST, Counting, Found
from chaos.counting import NEW, OLD, Names, Report, Settings
from tests.clusters import wait_until
from tests.instances import Instance

pytestmark = pytest.mark.single_server("it is the judge that is judged")

COUNTERS = 20
PAUSE = 0.002


def broken(report: Report, found: Found, *stragglers: str) -> set[int]:
    """Return the numbers of the rules that are broken."""
    return {number for number, _ in counted.judge(report, found, stragglers)}


def worked(server: Instance, until: Callable[[Any], bool]) -> Report:
    """Have the application work until something has come about."""
    application = Counting(Settings(url=server.url, counters=COUNTERS, pause=PAUSE))
    try:
        wait_until(lambda: not application.has_failed and until(server.client))
        return application.end()
    finally:
        application.kill()


def test_what_is_written_beside_nobody_is_found(any_server: Instance) -> None:
    """Counters, and jobs that were run or wait."""
    report = worked(any_server, lambda client: int(client.hget("job:7", "n") or 0) > 20)
    assert not report.unknown
    assert report.wrote.keys() == {OLD}
    assert {each.partition(":")[0] for each in report.ran} == {"list", "zset"}
    assert list(counted.judge(report, counted.find(any_server.client, OLD, COUNTERS))) == []
    assert {number for number, _ in counted.judge(report, counted.find(any_server.client, NEW, COUNTERS))} == {LOST}


def test_it_repeats_under_the_other_names_what_was_cut_off(any_server: Instance) -> None:
    """A flip by hand while writes are held: nobody of the held writes an old name, and all go on under the new ones."""
    client = any_server.client

    def flipped(_: Any) -> bool:
        if client.get("flag") is None and int(client.hget("job:7", "n") or 0) > 5:
            packet = client.pipeline(transaction=False)
            packet.execute_command("CLIENT", "PAUSE", 5000, "WRITE")
            packet.execute()
            time.sleep(0.05)  # some are held then
            before: dict[bytes, Any] = {name: client.dump(name) for name in client.scan_iter("job:*", count=1000)}
            packet.execute_command("CLIENT", "UNPAUSE")
            for name, payload in before.items():
                packet.restore(name.replace(b"job", b"step", 1), 0, payload)
            packet.set("flag", "new")
            packet.execute_command("CLIENT", "PAUSE", 5000, "WRITE")
            packet.execute()
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.execute_command("CLIENT", "UNPAUSE")
        return int(client.hget("step:7", "n") or 0) > int(client.hget("job:7", "n") or 0) + 5

    report = worked(any_server, flipped)
    assert set(report.wrote) == {OLD, NEW}
    assert report.unknown
    assert list(counted.judge(report, counted.find(client, NEW, COUNTERS))) == []
    assert counted.unheard(report, counted.find(client, NEW, COUNTERS)) <= report.unknown_takes


REPORT = Report()
REPORT.acknowledged.update({"counter:1": 5, "list:a": 1, "list:b": 1, "zset:c": 1, "zset:d": 1, "taken": 9, "": 3})
REPORT.unknown.update({"counter:1": 1, "list:b": 1})
REPORT.ran.update({"list:a": 1, "zset:c": 1})
FOUND = Found({"counter:1": 5, "list:b": 1, "zset:d": 1})


def changed(**more: int) -> Found:
    """Return what is there with something added or taken."""
    found = FOUND.copy()
    for name, count in more.items():
        found[name.replace("_", ":")] += count
    return found


def test_each_loss_and_each_doubled_write_is_caught() -> None:
    """One is enough; an outcome that is unknown may be either."""
    assert broken(REPORT, FOUND) == set()
    assert broken(REPORT, changed(counter_1=1)) == set()
    assert broken(REPORT, changed(counter_1=2)) == {DOUBLED}
    assert broken(REPORT, changed(counter_1=-1)) == {LOST}
    assert broken(REPORT, changed(list_b=1)) == set()
    assert broken(REPORT, changed(list_b=2)) == {DOUBLED}
    assert broken(REPORT, changed(list_b=-1)) == {LOST}
    assert broken(REPORT, changed(list_a=1)) == {DOUBLED}
    assert broken(REPORT, changed(zset_c=1)) == {DOUBLED}
    assert broken(REPORT, changed(zset_d=-1)) == {LOST}
    assert broken(REPORT, changed(zset_e=1)) == {DOUBLED}
    astray = Report(REPORT.acknowledged, REPORT.unknown, REPORT.ran, astray=["a"])
    assert broken(astray, FOUND) == {LOST}


def test_a_worker_that_never_hears_of_a_job_explains_one_job_and_no_more() -> None:
    """And of a sorted set only: from a list nothing is taken without a trace."""
    deaf = Report(REPORT.acknowledged, REPORT.unknown, REPORT.ran, unknown_takes=1)
    assert broken(deaf, changed(zset_d=-1)) == set()
    assert counted.unheard(deaf, changed(zset_d=-1)) == 1
    assert broken(deaf, changed(list_b=-1)) == {LOST}
    more = Report(REPORT.acknowledged + Found({"zset:e": 1}), REPORT.unknown, REPORT.ran, unknown_takes=1)
    assert broken(more, changed(zset_d=-1)) == {LOST}


def test_what_was_told_as_a_straggler_is_not_held_against_anybody() -> None:
    """And nothing else is excused by it."""
    assert broken(REPORT, changed(counter_1=-1), Names(OLD).counter("1")) == set()
    assert broken(REPORT, changed(counter_1=-1), Names(OLD).counter("2"), Names(OLD).later) == {LOST}
    assert broken(REPORT, changed(list_b=-1), Names(OLD).running) == set()
