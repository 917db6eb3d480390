"""Limits that change while the work is done: they hold from the next batch on."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from luamigrate import Batch, Control, Limits, connect, follow, migrate, plan
from luamigrate.migration.pace import LARGEST_COUNT, SMALLEST_COUNT, Pace, Rate
from luamigrate.migration.scan import IN_FLIGHT
from tests.instances import Instance

RULES = plan([("job:*", "step:*", "any")])
LIMITS = Limits(batch_size=100)


class Wishes:
    """What somebody wants, and changes."""

    def __init__(self) -> None:
        self.limits: Limits | None = None

    @property
    def control(self) -> Control:
        """What the work asks."""
        return Control(limits=lambda: self.limits)


def fill(server: Instance, count: int) -> None:
    """Write sources."""
    pipeline = server.client.pipeline(transaction=False)
    for number in range(count):
        pipeline.hset(f"job:{number}", "a", number)
    pipeline.execute()


@pytest.mark.parametrize("most", [1, 3])
def test_a_run_goes_by_the_batch_size_that_it_is_given(any_server: Instance, most: int) -> None:
    """But for what is in flight; and all is copied."""
    fill(any_server, 2000)
    wishes, sizes = Wishes(), list[int]()
    with connect(any_server.url) as server:
        for batch in migrate(server, RULES, limits=LIMITS, operator=wishes.control):
            sizes += [batch.tally.found] if batch.tally.found else []
            if len(sizes) == 1:
                wishes.limits = replace(LIMITS, batch_size=most)
    # A batch of the old size has been found already, and in a cluster it is parted.
    left = sizes[(IN_FLIGHT + 2) * 2 * len(any_server.shards()) :]
    assert left
    assert max(left) <= most < max(sizes)
    assert sum(sizes) == 2000


def test_a_follow_goes_by_the_rate_that_it_is_given(any_server: Instance) -> None:
    """Of the first names one is compared and the others would take hours; then it is in step."""
    fill(any_server, 50)
    wishes = Wishes()

    def in_step(batch: Batch) -> bool:
        return bool(batch.followed and batch.followed.in_step)

    with connect(any_server.url) as server:
        for batch in follow(server, RULES, settle=0, limits=Limits(max_rate=0.1), operator=wishes.control):
            if in_step(batch):
                break
            wishes.limits = Limits(max_lag_ms=1)
    assert sum(1 for _ in any_server.client.scan_iter("step:*", count=100)) == 50


def test_less_pause_makes_batches_and_scans_smaller_at_once() -> None:
    """In proportion; more of it lets them grow again, as after any other change."""
    pace = Pace(LIMITS, round_trip=0.0)
    count = pace.count
    pace.limit(replace(LIMITS, max_pause=1))
    assert (pace.size, pace.count, pace.pause.microseconds) == (20, count // 5, 400)
    assert pace.whole_key < Pace(LIMITS, round_trip=0.0).whole_key
    pace.limit(replace(LIMITS, max_pause=50))
    assert (pace.size, pace.count, pace.pause.microseconds) == (20, count // 5, 20_000)
    for _ in range(100):
        pace.answered(20, 0.0001)
        pace.scanned(0, 0.0001)
    assert (pace.size, pace.count) == (100, LARGEST_COUNT)
    pace.limit(replace(LIMITS, max_pause=0.1))
    assert (pace.size, pace.count) == (1, max(SMALLEST_COUNT, LARGEST_COUNT // 500))


def test_a_low_rate_makes_batches_small_and_without_one_they_grow() -> None:
    """A trickle, and no succession of gusts."""
    pace = Pace(LIMITS, round_trip=0.0)
    pace.limit(replace(LIMITS, max_rate=50))
    assert pace.size == 5
    pace.limit(LIMITS)
    for _ in range(100):
        pace.answered(5, 0.0001)
    assert pace.size == 100


def test_another_rate_does_not_wait_for_what_was_sent_at_the_former() -> None:
    """From one key in ten seconds to a thousand in one, or to no limit."""
    rate = Rate(Limits(max_rate=0.1))
    rate.sent(100, time.monotonic)
    assert rate.seconds_to_wait(time.monotonic) > 900
    rate.limit(Limits(max_rate=1000))
    assert rate.seconds_to_wait(time.monotonic) == 0
    rate.sent(100, lambda: 0.0)
    assert rate.seconds_to_wait(lambda: 0.0) == pytest.approx(0.1)
    rate.limit(Limits())
    assert rate.seconds_to_wait(lambda: 0.0) == 0
