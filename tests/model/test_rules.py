"""Rules and patterns, decided without a server; overlaps are checked against brute force."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from luamigrate import BUILT_IN, Pattern, UsageError, plan, plan_from_file

NAMES = [b"".join(letters) for length in range(6) for letters in itertools.product((b"a", b"b"), repeat=length)]
patterns = st.text("ab*", min_size=1, max_size=3).filter(lambda text: text.count("*") <= 1).map(str.encode)


def matches(pattern: bytes, name: bytes) -> bool:
    """Match as a person would explain it."""
    prefix, star, suffix = pattern.partition(b"*")
    return (
        name == prefix
        if not star
        else len(name) >= len(prefix + suffix)
        and (name[: len(prefix)] == prefix and name[len(name) - len(suffix) :] == suffix)
    )


@given(patterns, patterns)
def test_patterns_overlap_where_some_name_matches_both(one: bytes, other: bytes) -> None:
    """All names up to five letters are enough for patterns of up to three."""
    expected = any(matches(one, name) and matches(other, name) for name in NAMES)
    assert Pattern.parse(one).overlaps(Pattern.parse(other)) is expected


@given(st.lists(st.tuples(patterns, patterns), min_size=1, max_size=3))
def test_an_accepted_plan_never_feeds_on_itself_nor_meets_itself(triples: list[tuple[bytes, bytes]]) -> None:
    """Whatever names exist, no target is a source, and no two sources give one target."""
    try:
        rules = plan([(source, target, "set") for source, target in triples])
    except UsageError:
        return
    made: dict[bytes, bytes] = {}
    for rule, (source, _) in zip(rules, triples, strict=True):
        pairs = rule.pairs([name for name in NAMES if matches(source, name)])
        for name, target in zip(pairs.sources, pairs.targets, strict=True):
            assert not any(matches(pattern, target) for pattern, _ in triples)
            assert made.setdefault(target, name) == name


def test_the_built_in_plan_is_the_one_of_the_documentation(tmp_path: Path) -> None:
    """Hashes first, the queue last; the same as its plan file spelled out."""
    file = tmp_path / "plan.toml"
    rows = [("job:*", "step:*", "hash")]
    rows += [(f"jobs:{name}", f"steps:{name}", "set") for name in ("active", "completed", "failed")]
    rows += [("jobs:pending", "steps:pending", "zset")]
    tables = [f'[[rule]]\nsource = "{source}"\ntarget = "{target}"\ntype = "{kind}"' for source, target, kind in rows]
    file.write_text("\n".join(tables))
    assert plan_from_file(file) == BUILT_IN == plan(rows)


def test_rules_may_change_the_end_of_a_name() -> None:
    """A suffix may change as well as a prefix."""
    (rule,) = plan([("*:job", "*:step", "hash")])
    assert rule.pairs([b"a:job", b":job"]).targets == [b"a:step", b":step"]


def test_names_in_errors_are_escaped() -> None:
    """A pattern cannot write to the terminal either."""
    with pytest.raises(UsageError, match=r"a\\x1b\[2J:\*") as refusal:
        plan([("a\x1b[2J:*", "b", "set")])
    assert str(refusal.value).isprintable()
