"""Pace: how much the next script and the next SCAN get, from what the last ones took."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import Any

import pytest

from luamigrate import Limits, UsageError, Word, connect, migrate, plan
from luamigrate.migration.pace import (
    CUTS,
    LARGEST_COUNT,
    SCAN_SHARE,
    SCRIPT_SHARE,
    SMALLEST_COUNT,
    STEADY_ANSWERS,
    Pace,
    Rate,
)
from luamigrate.migration.scan import IN_FLIGHT
from tests.instances import Instance
from tests.migration.test_run import fill

PAUSE = 0.005
"""Seconds, as the default has it."""


class Clock:
    """A clock that somebody sets; it begins at nought, as on a machine that has just been started."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture
def pace() -> Pace:
    """Give the pace of the default limits, at a server that answers at once."""
    return Pace(Limits(), round_trip=0.0)


def counts_after(pace: Pace, *scans: tuple[int, float | None]) -> list[int]:
    """Return SCAN's COUNT after each scan, given how many keys it found and what it took."""
    counts = []
    for found, seconds in scans:
        pace.scanned(found, seconds)
        counts.append(pace.count)
    return counts


@pytest.mark.parametrize("took", [1.01, 1.5, 2.0, 10.0])
def test_a_script_that_took_too_long_halves_the_batch_at_once(pace: Pace, took: float) -> None:
    """Or does more than that, in proportion to the time: the next one takes half the pause at most."""
    pace.answered(100, took * PAUSE)
    assert pace.size == int(100 / took / 2)


def test_a_batch_never_gets_smaller_than_one_pair(pace: Pace) -> None:
    """However long the last one took; and a single pair cannot be made less."""
    pace.answered(100, 1000 * PAUSE)
    assert pace.size == 1
    pace.answered(1, 1000 * PAUSE)
    assert pace.size == 1


def test_a_script_of_the_former_size_does_not_make_the_batch_grow(pace: Pace) -> None:
    """Two are under way: the second one was sent before the first one was found to be too much."""
    pace.answered(100, 10 * PAUSE)
    assert pace.size == 5
    pace.answered(100, 1.01 * PAUSE)
    assert pace.size == 5


def test_batches_that_do_not_fit_into_a_script_become_as_small_as_what_fits(pace: Pace) -> None:
    """Four in a row are enough to know it, and the largest of them is what fits, less a tenth."""
    for done in (37, 40, 36):
        pace.cut_short(done)
        assert pace.size == 100
    pace.cut_short(38)
    assert pace.size == 36


def test_one_large_key_in_a_batch_does_not_make_it_small(pace: Pace) -> None:
    """It may stand anywhere in it: the most that was done is nearly the whole."""
    for done in (3, 96, 50, 71):
        pace.cut_short(done)
    assert pace.size == 87


def test_a_batch_that_was_cut_short_stays_small_for_a_while(pace: Pace) -> None:
    """Else every tenth would be too large again; then it is tried larger, and one pair remains in the worst case."""
    for _ in range(CUTS):
        pace.cut_short(1)
    assert pace.size == 1
    for _ in range(STEADY_ANSWERS):
        pace.answered(1, 0.1 * PAUSE)
        assert pace.size == 1
    pace.answered(1, 0.1 * PAUSE)
    assert pace.size == 2


def test_the_batch_grows_back_slowly_and_not_beyond_its_size(pace: Pace) -> None:
    """By a tenth and one each time, up to what the user set, and no further."""
    pace.answered(100, 100 * PAUSE)
    sizes = [pace.size]
    for _ in range(60):
        pace.answered(pace.size, 0.1 * PAUSE)
        sizes.append(pace.size)
    assert sizes[:4] == [1, 2, 3, 4]
    steps = [after - before for before, after in pairwise(sizes)]
    assert all(0 <= step <= 1 + before // 10 for before, step in zip(sizes, steps, strict=False))
    assert max(sizes) == sizes[-1] == 100
    assert sizes.index(100) >= 20


def test_a_script_that_took_about_half_the_pause_changes_nothing(pace: Pace) -> None:
    """Between half the pause and the whole of it, the batch is right."""
    pace.answered(100, 4 * PAUSE)
    size = pace.size
    for took in (0.5, 0.75, 1.0):
        pace.answered(size, took * PAUSE)
        assert pace.size == size


def test_the_round_trip_is_not_the_servers_time() -> None:
    """A server far away is not a slow one: the batch stays, and COUNT grows where matches are sparse."""
    far = Pace(Limits(), round_trip=0.1)
    far.answered(100, 0.1 + 0.9 * PAUSE)
    assert far.size == 100
    far.answered(100, 0.1 + 2 * PAUSE)
    assert far.size == 25
    count = far.count
    far.scanned(0, 0.1)
    assert far.count == 2 * count


def test_the_batch_begins_as_the_user_set_it() -> None:
    """A low rate makes it smaller, so that the keys come in a trickle; a high one does not make it larger."""
    assert Pace(Limits(batch_size=7), 0.0).size == 7
    assert Pace(Limits(max_rate=200), 0.0).size == 20
    assert Pace(Limits(max_rate=3), 0.0).size == 1
    assert Pace(Limits(max_rate=1e6), 0.0).size == 100


def test_count_grows_while_matches_are_sparse_and_a_scan_is_quick(pace: Pace) -> None:
    """It doubles each time, up to a limit."""
    first = pace.count
    assert counts_after(pace, (0, 0.0), (3, 0.0), (0, 0.0)) == [2 * first, 4 * first, 8 * first]
    assert counts_after(pace, *([(0, 0.0)] * 30))[-1] == LARGEST_COUNT


def test_count_grows_slowly_where_nobody_waited_for_the_scan(pace: Pace) -> None:
    """Its time is our own delay: it makes COUNT no smaller, and a SCAN that is too long will be waited for."""
    first = pace.count
    for _ in range(3):
        pace.scanned(0, 10 * PAUSE, waited=False)
    assert first < pace.count < 2 * first
    pace.scanned(0, 10 * PAUSE)
    assert pace.count < first


def test_count_does_not_grow_where_a_scan_brings_enough(pace: Pace) -> None:
    """Nor where it took a good part of its share."""
    first = pace.count
    assert counts_after(pace, (400, 0.0), (800, 0.0)) == [first, first]
    assert counts_after(pace, (0, 0.6 * SCAN_SHARE * PAUSE)) == [first]


def test_count_shrinks_where_a_scan_brings_too_many(pace: Pace) -> None:
    """What is found has to be kept here until it is copied."""
    first = pace.count
    assert counts_after(pace, (801, 0.0), (801, None)) == [first // 2, first // 4]


def test_count_shrinks_at_once_where_a_scan_took_more_than_its_share(pace: Pace) -> None:
    """To somewhat less than fits, down to a smallest one."""
    first = pace.count
    (count,) = counts_after(pace, (0, 2 * SCAN_SHARE * PAUSE))
    assert count == int(first * 0.4)
    assert counts_after(pace, *([(0, 100.0)] * 3))[-1] == SMALLEST_COUNT


def test_a_time_that_was_shared_with_others_teaches_nothing_about_a_scan(pace: Pace) -> None:
    """Neither that it is slow nor that it is quick."""
    first = pace.count
    assert counts_after(pace, (0, None), (100, None), (400, None)) == [first, first, first]


@pytest.mark.parametrize("limits", [Limits(), Limits(batch_size=10_000, max_pause=0.1), Limits(max_pause=60_000)])
def test_what_is_under_way_together_shares_the_pause(limits: Limits) -> None:
    """Scripts and a SCAN: their times add up to no more than the whole."""
    script = Pace(limits, 0.0).pause.microseconds
    assert IN_FLIGHT * SCRIPT_SHARE + SCAN_SHARE <= 1
    assert IN_FLIGHT * script + SCAN_SHARE * limits.max_pause * 1000 <= limits.max_pause * 1000
    assert script > 0


@pytest.mark.parametrize("max_pause", [0.5, 5.0, 50.0])
def test_what_a_script_may_weigh_goes_with_the_pause(max_pause: float) -> None:
    """By size too it gets no more than its share of what the whole pause allows for; a small key always fits."""
    pace = Pace(Limits(max_pause=max_pause), 0.0)
    assert pace.pause.capacity <= max(20_000, pace.whole_key * SCRIPT_SHARE + 1)
    assert pace.pause.capacity >= 20_000


def test_a_rate_is_kept_whatever_the_clock_says() -> None:
    """Each batch is due when the keys before it have had their time; what was not used is not saved up."""
    rate, clock = Rate(Limits(max_rate=100)), Clock()
    assert rate.seconds_to_wait(clock) == 0
    rate.sent(10, clock)
    assert rate.seconds_to_wait(clock) == pytest.approx(0.1)
    clock.now += 0.04
    assert rate.seconds_to_wait(clock) == pytest.approx(0.06)
    rate.sent(10, clock)
    assert rate.seconds_to_wait(clock) == pytest.approx(0.16)
    clock.now += 3600
    assert rate.seconds_to_wait(clock) == 0
    rate.sent(10, clock)
    rate.sent(10, clock)
    assert rate.seconds_to_wait(clock) == pytest.approx(0.2)


def test_without_a_rate_nothing_waits() -> None:
    """However much was sent."""
    rate, clock = Rate(Limits()), Clock()
    rate.sent(1_000_000, clock)
    assert rate.seconds_to_wait(clock) == 0


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        *(("batch_size", value) for value in (0, -1, 10_001)),
        *(("max_pause", value) for value in (0, -1, 60_001, math.nan, math.inf)),
        *(("max_rate", value) for value in (0, -5, math.nan, math.inf)),
        *(("max_lag", value) for value in (0, -1)),
        *(("max_lag_ms", value) for value in (-1, 60_001, math.nan)),
        *(("wait_replicas", value) for value in (-1, 1001)),
        *(("patience", value) for value in (-1, 86_401, math.nan, math.inf)),
    ],
)
def test_limits_refuse_nonsense(limit: str, value: float) -> None:
    """By the name of what makes none."""
    nonsense: dict[str, Any] = {limit: value}
    with pytest.raises(UsageError, match=r"must be from .*, not"):
        Limits(**nonsense)


def test_limits_take_what_makes_sense() -> None:
    """The ends of each range included."""
    Limits(batch_size=1, max_pause=0.1, max_rate=0.1, max_lag=1, wait_replicas=0, patience=0)
    Limits(batch_size=10_000, max_pause=60_000, max_rate=1e9, max_lag=2**40, wait_replicas=1000, patience=86_400)


@pytest.mark.single_server("it counts the scans of one server")
def test_a_sparse_key_space_takes_few_scans(server: Instance) -> None:
    """One match in a thousand: COUNT grows until a SCAN takes its share of the pause."""
    server.client.execute_command("DEBUG", "POPULATE", 200_000, "other", 10)
    fill(server.client, jobs=200)
    server.client.config_resetstat()
    # A pause that no noise of the machine reaches: how COUNT grows is what matters here.
    limits = Limits(max_pause=500)
    with connect(server.url) as connection:
        batches = list(migrate(connection, plan([("job:*", "step:*", "hash")]), limits=limits))
    assert sum(batch.tally.counts[Word.COPIED] for batch in batches) == 200
    assert server.client.info("commandstats")["cmdstat_scan"]["calls"] < 60


def test_a_rate_spreads_the_keys_over_the_time(any_server: Instance) -> None:
    """A hundred keys at two hundred a second: in a trickle of small batches, which takes most of half a second."""
    fill(any_server.client, jobs=100)
    began = time.monotonic()
    with connect(any_server.url) as connection:
        batches = list(migrate(connection, plan([("job:*", "step:*", "hash")]), limits=Limits(max_rate=200)))
    sizes = [batch.tally.counts.total() for batch in batches]
    assert 0.3 <= time.monotonic() - began < 5
    assert sum(sizes) == 100
    assert max(sizes) <= 20
