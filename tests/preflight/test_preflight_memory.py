"""Memory and saves, before the first write: whether the copies fit, what would be evicted, what would be lost."""

from __future__ import annotations

import pytest

from tests.cli.test_bad_input import make_saving_fail
from tests.conftest import luamigrate, run
from tests.instances import Instance, start
from tests.migration.test_run import HASHES, fill
from tests.preflight.test_preflight import STARTS, assert_refused, checks, limited, need, used


@pytest.mark.parametrize("command", STARTS)
def test_copies_that_do_not_fit_are_refused(server: Instance, command: tuple[str, ...]) -> None:
    """`maxmemory` is a little above what is used; with twice the room they are taken."""
    fill(server.client, jobs=2000)
    needed = need(server)
    with limited(server, needed / 2):
        assert_refused(server, command, "memory", "raise maxmemory", options=HASHES)
    with limited(server, used(server) + 2 * needed):
        assert luamigrate(*command, *HASHES, url=server.url).code == 0


@pytest.mark.parametrize("command", STARTS)
def test_fewer_rules_are_advised_only_where_there_are_several(any_server: Instance, command: tuple[str, ...]) -> None:
    """With one rule there is nothing to leave out."""
    fill(any_server.client, jobs=2000)
    with limited(any_server, need(any_server) / 2):
        several = assert_refused(any_server, command, "memory", "raise maxmemory, or take fewer rules at once")
        one = assert_refused(any_server, command, "memory", "raise maxmemory", options=HASHES)
    assert "rules at once" in several.out + several.err
    assert "rules at once" not in one.out + one.err


def fill_unevenly(server: Instance, jobs: int) -> None:
    """Write hashes of many sizes, compact ones and larger ones."""
    pipeline = server.client.pipeline(transaction=False)
    for number in range(jobs):
        payload = "x" * (number % 300)
        pipeline.hset(f"job:{number}", mapping={"id": number, "status": "pending", "payload": payload})
    pipeline.execute()


@pytest.mark.single_server("Redis 8 takes two kilobytes for each slot that was empty")
@pytest.mark.single_server("where slots hold a key each, as here, the tables of new slots weigh more than the copies")
def test_the_estimate_is_about_what_the_copies_take(server: Instance) -> None:
    """Within a factor of 1.5, by the server's own measure, for keys of many sizes of which it has seen some."""
    server.client.hset("job:1", "id", 1)
    # What scripts take themselves when they are run for the first time is not the copies'.
    assert luamigrate("run", *HASHES, url=server.url).code == 0
    server.client.flushall()
    fill_unevenly(server, 5000)
    expected, before = need(server), used(server)
    assert luamigrate("run", *HASHES, url=server.url).code == 0
    assert expected / 1.5 < used(server) - before < expected * 1.5


def test_what_has_a_target_already_needs_nothing(any_server: Instance) -> None:
    """With targets for one in two keys, about 50% of the memory is enough."""
    for number in range(80):
        any_server.client.hset(f"job:{number:02}", "payload", "x" * 100)
    all_of_them = need(any_server)
    for number in range(40):
        any_server.client.copy(f"job:{number:02}", f"step:{number:02}")
    assert need(any_server) == pytest.approx(all_of_them / 2, rel=0.05)


def test_a_server_that_evicts_is_refused_where_it_could_get_full(server: Instance) -> None:
    """Copies would push out their own sources: nothing is copied, and no source is gone."""
    fill_unevenly(server, 2000)
    # What the checks take when they are made for the first time would push out keys as well.
    assert luamigrate("check", *HASHES, url=server.url).code == 0
    size, evicted = server.client.dbsize(), server.client.info("stats")["evicted_keys"]
    with limited(server, need(server) / 2, policy="allkeys-lru"):
        for command in STARTS:
            assert_refused(server, command, "eviction", "allkeys-lru", "noeviction", options=HASHES)
        assert server.client.dbsize() == size
        assert server.client.info("stats")["evicted_keys"] == evicted


def test_a_server_that_evicts_is_fine_with_ample_room(server: Instance) -> None:
    """Exit 0, all copied, nothing evicted."""
    fill_unevenly(server, 2000)
    with limited(server, 2 * used(server) + 3 * need(server), policy="allkeys-lru"):
        assert checks(server, *HASHES)["memory"][0] == "ok"
        totals = luamigrate("run", *HASHES, "--json", url=server.url).totals
        assert totals == {"found": 2000, "copied": 2000, "ignored": 0}


def test_failed_saves_are_refused(server_name: str) -> None:
    """Though the server takes writes all the same: what is copied might not outlive a restart."""
    with start(server_name) as server:
        fill(server.client, jobs=3)
        make_saving_fail(server)
        server.client.config_set("stop-writes-on-bgsave-error", "no")
        server.client.config_set("save", "")
        for command in STARTS:
            assert_refused(server, command, "saves", "rdb last bgsave")
        result = run(server, "--json", "--ignore-check", "saves")
        assert (result.code, result.totals["copied"]) == (0, 7)
        assert any(text.startswith("saves: ") for text in result.document["warnings"])
