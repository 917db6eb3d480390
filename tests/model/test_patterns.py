"""Patterns are read, matched, renamed and held against each other as brute force over all short names does it."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from luamigrate import Pattern, UsageError
from luamigrate.model.errors import printable
from luamigrate.model.patterns import covered, escaped, meeting

NAMES = [bytes(letters) for length in range(7) for letters in itertools.product(b"ab", repeat=length)]
names = st.one_of(st.binary(min_size=1, max_size=30), st.text(min_size=1, max_size=20).map(str.encode))

Tokens = list[str]
"""Literal letters, `*`, and placeholders such as `<0>`."""


@st.composite
def tokens(draw: st.DrawFn) -> Tokens:
    """Draw a pattern: with one star, with up to three placeholders, or without either."""
    literals = st.text("ab", max_size=2)
    if draw(st.booleans()):
        return [token for token in [draw(literals), draw(st.sampled_from(["*", "a"])), draw(literals)] if token]
    parts = [draw(literals)]
    for number in draw(st.permutations(range(draw(st.integers(1, 3))))):
        parts += [f"<{number}>", draw(st.text("ab", min_size=1, max_size=2))]
    parts[-1] = draw(literals)
    return [token for token in parts if token]


patterns = tokens().map("".join).map(str.encode)


def values(pattern: Tokens, name: bytes) -> dict[str, bytes] | None:
    """Cut a name as a person would: try each length, the shortest first; the last placeholder takes the rest."""
    if not pattern:
        return {} if not name else None
    token, *rest = pattern
    if not re.fullmatch(r"\*|<.*>", token):
        return values(rest, name[len(token) :]) if name.startswith(token.encode()) else None
    lengths: range = range(int(token != "*"), len(name) + 1)
    is_last = not any(re.fullmatch(r"<.*>", other) for other in rest)
    for length in reversed(lengths) if is_last else lengths:
        others = values(rest, name[length:])
        if others is not None:
            return {token: name[:length], **others}
    return None


@given(tokens())
def test_a_pattern_matches_as_brute_force_does(pattern: Tokens) -> None:
    """A star may be empty, a placeholder may not."""
    parsed = Pattern.parse("".join(pattern).encode())
    for name in NAMES:
        assert parsed.matches(name) == (values(pattern, name) is not None)


@given(tokens(), st.data())
def test_names_are_renamed_as_brute_force_does(pattern: Tokens, data: st.DataObject) -> None:
    """Each placeholder takes as few bytes as possible, from left to right, and may stand elsewhere in the target."""
    varying = data.draw(st.permutations([token for token in pattern if re.fullmatch(r"\*|<.*>", token)]))
    after = "%".join(["=", *(f"\\x27{token}" for token in varying), "%"])
    renamed = Pattern.parse("".join(pattern).encode()).renaming(Pattern.parse(after.replace("=", "\\=").encode()))
    for name in NAMES:
        found = values(pattern, name)
        if found is not None:
            assert renamed([name]) == [b"%".join([b"=", *(b"'" + found[token] for token in varying), b"%"])]


@given(patterns, patterns)
def test_overlaps_are_those_of_brute_force(one: bytes, other: bytes) -> None:
    """And so are the names that both stand for, and whether one pattern has all names of the other."""
    a, b = Pattern.parse(one), Pattern.parse(other)
    assume(a.shortest + b.shortest <= len(LONG[-1]))  # a name that both stand for need not be longer
    both = {name for name in LONG if a.matches(name) and b.matches(name)}
    assert a.overlaps(b) is bool(both)
    met = meeting(a, b)
    if met is not None:
        assert {name for name in LONG if any(pattern.matches(name) for pattern in met)} == both
    if a.contains(b):
        assert both == set(filter(b.matches, LONG))
    elif a.is_simple and b.is_simple:
        assert any(not a.matches(name) for name in filter(b.matches, WITH_ANOTHER))


LONG = [bytes(letters) for length in range(11) for letters in itertools.product(b"ab", repeat=length)]
WITH_ANOTHER = [bytes(letters) for length in range(7) for letters in itertools.product(b"abc", repeat=length)]


@given(patterns, st.lists(patterns, max_size=3))
def test_a_pattern_is_covered_only_where_each_of_its_names_is(pattern: bytes, by: list[bytes]) -> None:
    """By one of the others."""
    parsed, others = Pattern.parse(pattern), [Pattern.parse(other) for other in by]
    if covered(parsed, others):
        assert all(any(other.matches(name) for other in others) for name in filter(parsed.matches, WITH_ANOTHER))


@given(names, names)
def test_the_escaped_form_of_a_name_stands_for_exactly_this_name(name: bytes, other: bytes) -> None:
    """Whatever its bytes are: it is readable text, stands between quotes, and differs little from what is printed."""
    text = escaped(name)
    assert text.isprintable()
    assert "'" not in text
    pattern = Pattern.parse(text.encode())
    assert not pattern.varies
    assert pattern.matches(name)
    assert pattern.matches(other) == (name == other)
    assert str(pattern) == text
    if not re.search(rb"[*<=']", name):
        assert text == printable(name)


@given(patterns, names)
def test_a_pattern_is_printed_as_it_can_be_read(pattern: bytes, name: bytes) -> None:
    """With any bytes before and behind it."""
    parsed = Pattern.parse(escaped(name).encode() + b"-" + pattern + escaped(name).encode())
    assert Pattern.parse(str(parsed).encode()) == parsed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a pattern is empty"),
        ("a*b*", "more than one *"),
        ("a*<b>", "a * beside placeholders"),
        ("<a>:<a>", "placeholder <a> more than once"),
        ("<a><b>", "between two placeholders"),
        ("<>", "begins a placeholder"),
        ("x:<a", "begins a placeholder"),
        ("<a b>", "begins a placeholder"),
        ("a\\", "'\\' is no escape"),
        ("a\\:b", "'\\:' is no escape"),
        ("\\>", "is no escape"),
        ("\\x4", "is no escape"),
        ("\\xg0", "is no escape"),
    ],
)
def test_an_odd_pattern_is_refused(text: str, said: str) -> None:
    """With what is wrong about it."""
    with pytest.raises(UsageError, match=re.escape(said)):
        Pattern.parse(text.encode())


def test_a_pattern_for_scans_takes_all_but_the_placeholders_literally() -> None:
    """A placeholder is at least one byte."""
    assert Pattern.parse(b"a[?:<x>\\*<y>\\\\").glob() == b"a\\[\\?:?*\\*?*\\\\"
