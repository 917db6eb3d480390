"""Prefixes under which changes are told: few, none within another, and all names are covered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from luamigrate import plan
from luamigrate.model.prefixes import MOST, meet, merged, source_prefixes, target_prefixes

NAMES = st.binary(max_size=6) | st.sampled_from([b"job:", b"jobs:", b"job:a", b"step:", b""])


@given(st.lists(NAMES, min_size=1, max_size=60), st.integers(1, 16))
def test_few_prefixes_cover_all_and_none_begins_with_another(prefixes: list[bytes], most: int) -> None:
    """As the server demands of one client."""
    found = merged(prefixes, most)
    assert len(found) <= most
    assert all(any(name.startswith(prefix) for prefix in found) for name in prefixes)
    assert not any(one is not other and one.startswith(other) for one in found for other in found)


def test_what_needs_no_merging_is_kept() -> None:
    """Also where one name is the beginning of another without being its prefix."""
    assert merged([b"jobs:", b"job:", b"step:"]) == [b"job:", b"jobs:", b"step:"]
    assert merged([b"job:1", b"job:", b"job:2"]) == [b"job:"]
    assert merged([b"", b"job:"]) == [b""]


def test_neighbours_with_much_in_common_are_merged() -> None:
    """Ten thousand names of two kinds become a few prefixes of both."""
    names = [f"{kind}:{number:04}".encode() for kind in ("job", "user") for number in range(5000)]
    found = merged(names)
    assert len(found) <= MOST
    assert {name[:4] for name in found} == {b"job:", b"user"}


def test_plans_meet_where_a_name_may_be_of_both() -> None:
    """By prefixes alone: rather once too often."""
    rules = plan([("job:*", "step:*", "hash"), ("jobs:active", "steps:active", "set")])
    sources, targets = source_prefixes(rules), target_prefixes(rules, None)
    assert meet(targets, [b"step:1"])
    assert meet(sources, [b""])
    assert not meet(sources, targets)
