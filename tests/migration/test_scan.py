"""Finding source keys: batches, duplicates, progress."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from luamigrate import Limits, Pattern, connect
from luamigrate.migration import scan
from luamigrate.migration.pace import Pace
from tests.instances import Instance

pytestmark = pytest.mark.single_server("it is how one server's table is gone through")

EVERYTHING = scan.Names(Pattern.parse(b"k:*"))


def never() -> bool:
    """Go on."""
    return False


def test_every_key_comes_once_in_batches_of_the_size(server: Instance) -> None:
    """All but the last are full, and the part scanned only grows."""
    server.client.mset({f"k:{number}": "" for number in range(1005)} | {f"x:{number}": "" for number in range(500)})
    with connect(server.url) as deployment:
        (connection,) = deployment.primaries
        found = list(scan.batches(connection, EVERYTHING, pace(50), never))
    keys = [batch.keys for batch in found if batch.keys]
    assert sorted(itertools.chain(*keys)) == sorted(f"k:{number}".encode() for number in range(1005))
    assert {len(batch) for batch in keys[:-1]} == {50}
    assert len(keys[-1]) == 5
    parts = [batch.scanned for batch in found]
    assert parts == sorted(parts)
    assert parts[-1] == 1.0


def test_the_share_scanned_is_near_the_truth(server: Instance) -> None:
    """The cursor read backwards, against what has been returned so far."""
    server.client.mset({f"k:{number}": "" for number in range(20_000)})
    seen = 0
    with connect(server.url) as deployment:
        (connection,) = deployment.primaries
        for batch in scan.batches(connection, EVERYTHING, pace(100), never):
            seen += len(batch.keys)
            assert batch.scanned == pytest.approx(seen / 20_000, abs=0.05)


def test_a_rare_match_still_tells_how_far_the_scan_is(server: Instance) -> None:
    """News without keys come in between."""
    server.client.mset({f"x:{number}": "" for number in range(50_000)} | {"k:1": ""})
    with connect(server.url) as deployment:
        (connection,) = deployment.primaries
        found = list(scan.batches(connection, EVERYTHING, pace(100), never))
    assert sum(not batch.keys for batch in found) > 3
    assert [batch.keys for batch in found if batch.keys] == [[b"k:1"]]


def test_a_wish_to_stop_is_heard_between_two_scans(server: Instance) -> None:
    """What has been collected but not handed out is left for the next run."""
    server.client.mset({f"k:{number}": "" for number in range(1000)})
    with connect(server.url) as deployment:
        (connection,) = deployment.primaries
        asked = itertools.count()
        found = list(scan.batches(connection, EVERYTHING, pace(10), lambda: next(asked) >= 5))
    assert 0 < sum(len(batch.keys) for batch in found) <= 40


def pace(size: int) -> Pace:
    """Batches of this size."""
    return Pace(Limits(batch_size=size), 0.0)


class Repeating:
    """A server whose SCAN returns keys twice, as it does while its table shrinks."""

    def __init__(self, *replies: tuple[bytes, list[bytes]]) -> None:
        self._replies = iter(replies)

    def call(self, *_: object) -> Any:
        """Answer the next reply."""
        reply = next(self._replies)
        return type("Call", (), {"answer": lambda _: reply, "seconds": 0.0, "alone": False, "waited": True})()


def test_a_key_that_comes_twice_while_it_is_under_way_is_dropped() -> None:
    """Within a reply, waiting, and in the batches whose scripts may be running; later, it is another look."""
    server: Any = Repeating(
        (b"1", [b"k:1", b"k:2", b"k:1"]),
        (b"2", [b"k:2", b"k:3", b"k:4"]),
        (b"3", [b"k:4", b"k:5"]),
        (b"4", [b"k:6", b"k:7"]),
        (b"0", [b"k:1"]),
    )
    found = [batch.keys for batch in scan.batches(server, EVERYTHING, pace(2), never) if batch.keys]
    assert found == [[b"k:1", b"k:2"], [b"k:3", b"k:4"], [b"k:5", b"k:6"], [b"k:7", b"k:1"]]
