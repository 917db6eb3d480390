"""What a follow remembers: known names, its own writes, names that have changed, and lags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luamigrate.migration import ownership
from luamigrate.migration.dirty import UNTOLD, DirtyNames, Lags
from luamigrate.migration.ownership import KnownNames, OwnWrites

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=300)


@given(STEPS)
def test_known_names_are_a_set(steps: list[tuple[bool, int]]) -> None:
    """Whatever is added and taken out, in whatever order, through all arrays."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ownership, "_RECENT", 7)
        known, wanted = KnownNames(), set[bytes]()
        for adds, number in steps:
            name = b"job:%d" % number
            (known.add if adds else known.discard)(name)
            (wanted.add if adds else wanted.discard)(name)
            assert len(known) == len(wanted)
        assert all((b"job:%d" % number in known) == (b"job:%d" % number in wanted) for number in range(41))


def test_known_names_take_eight_bytes_each() -> None:
    """A million of them, in arrays."""
    known = KnownNames()
    for number in range(100_000):
        known.add(b"job:%d" % number)
    assert len(known) == 100_000
    assert sum(each.itemsize * len(each) for each in known._arrays) + 8 * len(known._added) == 800_000
    known.clear()
    assert len(known) == 0


def test_a_write_of_ours_is_told_once() -> None:
    """Before or after its answer; what is told more often is somebody else's."""
    own = OwnWrites()
    own.sent(b"step:1")
    assert not own.told(b"step:1")
    assert not own.answered(b"step:1", 1, wrote=True)
    assert own.told(b"step:1")
    own.sent(b"step:2")
    assert not own.answered(b"step:2", 1, wrote=True)
    assert not own.told(b"step:2")
    assert own.told(b"step:2")


def test_a_write_beside_ours_is_seen_when_ours_is_answered() -> None:
    """Told twice, written once; or told, and not written by us at all."""
    own = OwnWrites()
    own.sent(b"step:1")
    assert not own.told(b"step:1")
    assert not own.told(b"step:1")
    assert own.answered(b"step:1", 1, wrote=True)
    own.sent(b"step:1")
    own.told(b"step:1")
    assert own.answered(b"step:1", 1, wrote=False)


def test_a_write_whose_answer_was_lost_is_ours() -> None:
    """It was sent once more, and both may have written; a third one is somebody else's."""
    own = OwnWrites()
    own.sent(b"step:1")
    for _ in range(2):
        own.told(b"step:1")
    assert not own.answered(b"step:1", 1, wrote=2)
    own.sent(b"step:1")
    for _ in range(3):
        own.told(b"step:1")
    assert own.answered(b"step:1", 1, wrote=2)


def test_what_was_not_told_by_its_barrier_will_not_be() -> None:
    """Two writes in one turn are told as one: the second must not hide somebody else's."""
    own = OwnWrites()
    for _ in range(2):
        own.sent(b"step:1")
    own.told(b"step:1")
    assert not own.answered(b"step:1", 3, wrote=True)
    assert not own.answered(b"step:1", 3, wrote=True)
    own.passed(2)
    assert not own.told(b"step:1")
    own.sent(b"step:1")
    own.answered(b"step:1", 4, wrote=True)
    own.passed(4)
    assert own.told(b"step:1")


def test_changed_names_keep_their_order_and_their_first_moment() -> None:
    """Where a scan had found a name, the change counts from when it was told."""
    dirty = DirtyNames(most=3)
    dirty.put(b"a", UNTOLD)
    dirty.put(b"b", 2.0)
    dirty.put(b"a", 5.0)
    dirty.put(b"b", 7.0)
    dirty.put(b"a", UNTOLD)
    assert dirty.take(1) == [(b"a", 5.0)]
    assert dirty.take(5) == [(b"b", 2.0)]
    assert not dirty
    for name in (b"a", b"b", b"c", b"d"):
        assert not dirty.is_full
        dirty.put(name, 1.0)
    assert dirty.is_full
    dirty.clear()
    assert len(dirty) == 0


def test_lags_are_told_by_their_shares() -> None:
    """Within some percent, and never longer than the worst."""
    lags = Lags()
    assert lags.quantile(0.5) == 0.0
    for milliseconds in range(1, 1001):
        lags.add(milliseconds / 1000)
    assert lags.worst == lags.now == 1.0
    assert lags.quantile(0.5) == pytest.approx(0.5, rel=0.05)
    assert lags.quantile(0.99) == pytest.approx(0.99, rel=0.05)
    assert lags.quantile(1.0) <= 1.0
