"""Big keys that are filled while the application writes and deletes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from luamigrate import Batch, Stage, Summary
from tests.instances import Instance
from tests.migration.test_big import (
    NAMES,
    VALUES,
    without,
    write,
)
from tests.migration.test_big_live import stepping, words
from tests.migration.test_run import assert_equal


def fill_stepping(server: Instance, *acts: Callable[[], object], settle: float = 0.05) -> Summary:
    """Fill, while somebody acts: when the second look begins, then while what is missing waits to be added."""
    left = list(acts)

    def step(batch: Batch) -> None:
        if not batch.large or batch.stage is not Stage.RECHECK or not left:
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
        if batch.tally.waiting > 0 or (batch.large and batch.stage is Stage.RECHECK):
            moments.append(time.monotonic())

    assert words(stepping(any_server, step, on_existing=mode, settle=0.05)) == {"copied": 1}
    assert moments[1] - moments[0] >= 2 * 0.05
    assert_equal(any_server, "job:hash", "step:hash")
