"""Names that wait for quiet: each comes once, when it is quiet, and at the latest when it has waited for too long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from luamigrate.migration.settling import TIMES_AS_LONG, SettlingNames

SETTLE = 10.0


def test_a_name_is_due_when_it_has_been_quiet_for_long_enough() -> None:
    """Counted from the last change."""
    names = SettlingNames(SETTLE)
    assert names.seconds_left(0) is None
    names.put(b"a", 0)
    names.put(b"b", 3)
    names.put(b"a", 5)
    assert (len(names), names.seconds_left(5), names.take_quiet(12, 9)) == (2, 8.0, [])
    assert (names.take_quiet(13, 9), names.seconds_left(13), b"a" in names) == ([b"b"], 2.0, True)
    assert names.take_quiet(15, 9) == [b"a"]
    assert (len(names), names.seconds_left(15)) == (0, None)


def test_no_more_are_taken_than_asked_for() -> None:
    """The others come next, in their order."""
    names = SettlingNames(0)
    for name in (b"a", b"b", b"c"):
        names.put(name, 1)
    assert names.seconds_left(1) == 0
    assert [names.take_quiet(1, 2), names.take_quiet(1, 2)] == [[b"a", b"b"], [b"c"]]


def test_a_name_that_never_is_quiet_is_due_all_the_same() -> None:
    """At a moment within the time to settle that no change decides."""
    names = SettlingNames(SETTLE)
    moments = range(int(TIMES_AS_LONG * SETTLE) + 1)
    for now in moments:
        assert names.take_quiet(now, 9) == names.take_busy(now, 9) == []
        names.put(b"a", now)
    last = moments[-1]
    left = names.seconds_left(last)
    assert left is not None
    assert 0 <= left <= SETTLE
    names.put(b"a", last + left / 2)
    assert names.take_busy(last + left + 0.001, 9) == [b"a"]
    assert len(names) == 0


@given(st.lists(st.tuples(st.sampled_from((b"a", b"b", b"c")), st.floats(0, 30)), max_size=60))
def test_no_name_is_lost_and_none_waits_for_ever(changes: list[tuple[bytes, float]]) -> None:
    """Whatever changes when: each name comes after its last change."""
    names, now, last, taken = SettlingNames(SETTLE), 0.0, dict[bytes, float](), dict[bytes, float]()
    for name, pause in changes:
        now += pause
        taken |= dict.fromkeys(names.take_quiet(now, 9) + names.take_busy(now, 9), now)
        names.put(name, now)
        last[name] = now
    now += 3 * SETTLE
    taken |= dict.fromkeys(names.take_quiet(now, 9) + names.take_busy(now, 9), now)
    assert taken.keys() == last.keys()
    assert all(taken[name] > moment for name, moment in last.items())
    assert len(names) == 0
