r"""Patterns: literal bytes with parts that vary. One pattern: read, matched, escaped, held against another.

In a pattern's text a backslash escapes: `\*`, `\<`, `\=`, `\\` and `\xNN`. One before anything else is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from luamigrate.model.errors import UsageError, as_typed, printable

STAR = "*"
"""The name of the part that may be empty."""

_PIECE = re.compile(rb"(?P<literal>[^\\*<]+)|\\(?:x(?P<byte>[0-9a-fA-F]{2})|(?P<itself>[*<=\\]))|(?P<star>\*)"
                    rb"|<(?P<name>[A-Za-z0-9_-]+)>")  # fmt: skip
_SPECIAL = re.compile(rb"[*<=']")
"""What stands escaped in the text of a pattern; the quote too, so that the text can stand between quotes."""


@dataclass(frozen=True)
class Pattern:
    """Literal bytes, with parts that vary between them: one `*`, or placeholders."""

    literals: tuple[bytes, ...]
    """What stands before, between and behind the parts that vary."""
    names: tuple[str, ...] = ()
    """The names of these parts, in order: `*` for a star, which may be empty; a placeholder may not."""

    @classmethod
    def parse(cls, text: bytes) -> Pattern:
        """Read a pattern as the user writes it. Raises UsageError."""
        if not text:
            raise UsageError("a pattern is empty: write a key name, with one * for the part that varies")
        literals, names, end = [b""], [], 0
        while end < len(text):
            piece = _PIECE.match(text, end)
            if not piece:
                raise UsageError(_what_is_wrong(text, end))
            end = piece.end()
            name = piece["name"] or piece["star"]
            if name:
                names.append(name.decode())
                literals.append(b"")
            else:
                byte = bytes.fromhex(piece["byte"].decode()) if piece["byte"] else b""
                literals[-1] += piece["literal"] or piece["itself"] or byte
        _refuse_odd_names(text, literals, names)
        return cls(tuple(literals), tuple(names))

    @classmethod
    def of_name(cls, name: bytes) -> Pattern:
        """Return the pattern that stands for one key name only."""
        return cls((name,))

    def __str__(self) -> str:
        """Return the text that `parse` reads as this pattern; it can stand between single quotes."""
        parts = [part if part == STAR else f"<{part}>" for part in self.names]
        return "".join(escaped(literal) + part for literal, part in zip(self.literals, [*parts, ""], strict=True))

    @property
    def varies(self) -> bool:
        """Whether the pattern stands for many keys."""
        return bool(self.names)

    @property
    def is_simple(self) -> bool:
        """Whether at most one part varies: then the patterns alone decide what overlaps."""
        return len(self.names) <= 1

    @property
    def prefix(self) -> bytes:
        """What every name begins with; the whole name where nothing varies."""
        return self.literals[0]

    @property
    def suffix(self) -> bytes:
        """What every name ends with; the whole name where nothing varies."""
        return self.literals[-1]

    @cached_property
    def shortest(self) -> int:
        """The length of the shortest name."""
        return sum(map(len, self.literals)) + len(self.names) - self.names.count(STAR)

    @cached_property
    def without_shortest(self) -> Pattern:
        """The pattern of its names but the one in which the star is empty; itself where it has no star."""
        return Pattern(self.literals, ("any",)) if self.names == (STAR,) else self

    def glob(self) -> bytes:
        """Return the pattern for MATCH: all that does not vary is taken literally."""
        parts = [b"*" if part == STAR else b"?*" for part in self.names]
        escaped_parts = map(_escape_glob, self.literals)
        return b"".join(literal + part for literal, part in zip(escaped_parts, [*parts, b""], strict=True))

    def filled(self, value: bytes) -> bytes:
        """Return the name in which each part that varies has this value."""
        return value.join(self.literals)

    @cached_property
    def matches(self) -> Callable[[bytes], bool]:
        """Tell whether the pattern stands for a key name: `pattern.matches(name)`."""
        if not self.names:
            return self.prefix.__eq__
        if self.is_simple:
            prefix, suffix, shortest = self.prefix, self.suffix, self.shortest
            return lambda name: len(name) >= shortest and name.startswith(prefix) and name.endswith(suffix)
        match = self._match
        return lambda name: match(name) is not None

    @cached_property
    def _match(self) -> Callable[[bytes], re.Match[bytes] | None]:
        # The first place at which a literal fits leaves the most for the rest, so that none has to be tried again.
        first, *middle = self.literals[:-1]
        parts = [b"(?>(.+?)" + re.escape(literal) + b")" for literal in middle]
        text = re.escape(first) + b"".join(parts) + b"(.+)" + re.escape(self.suffix)
        return re.compile(text, re.DOTALL).fullmatch

    def renaming(self, after: Pattern) -> Callable[[Sequence[bytes]], list[bytes]]:
        """Return what gives names that match this pattern the names that the other one makes of their parts."""
        if not self.names:
            return lambda names: [after.prefix for _ in names]
        if self.is_simple:
            start, end = len(self.prefix), -len(self.suffix) or None
            prefix, suffix = after.prefix, after.suffix
            return lambda names: [prefix + name[start:end] + suffix for name in names]
        match = self._match
        in_order = itemgetter(*map(self.names.index, after.names))
        template = b"%b".join(literal.replace(b"%", b"%%") for literal in after.literals)
        return lambda names: [template % in_order(found.groups()) for found in map(match, names) if found]

    def contains(self, other: Pattern) -> bool:
        """Tell whether every name of the other pattern is one of this.

        A byte that this pattern does not have as such can only be met by a part that varies, which takes any other
        value as well.
        """
        fresh = next((bytes((byte,)) for byte in range(256) if not any(byte in one for one in self.literals)), None)
        if fresh is None or (STAR in other.names and not self.matches(other.filled(b""))):
            return False
        return self.matches(other.filled(fresh))

    def overlaps(self, other: Pattern) -> bool:
        """Tell whether some key name matches both."""
        if not self.names or not other.names:
            one, name = (other, self.prefix) if not self.names else (self, other.prefix)
            return one.matches(name)
        if not _either(bytes.startswith, self.prefix, other.prefix) or not _either(
            bytes.endswith, self.suffix, other.suffix
        ):
            return False
        # The longer prefix followed by the longer suffix is such a name, where each has one part that varies.
        return (self.is_simple and other.is_simple) or _meet(self._tokens, other._tokens)

    @cached_property
    def _tokens(self) -> list[int]:
        """The bytes, and for what varies ANY_BYTE and ANY_BYTES."""
        parts = [[_ANY_BYTES] if part == STAR else [_ANY_BYTE, _ANY_BYTES] for part in self.names]
        return [token for literal, part in zip(self.literals, [*parts, []], strict=True) for token in (*literal, *part)]


_ANY_BYTE, _ANY_BYTES = -1, -2


def _meet(one: list[int], other: list[int]) -> bool:
    """Tell whether some name is met by both rows of tokens: try all pairs of places in them."""
    known, waiting = {(0, 0)}, [(0, 0)]
    while waiting:
        here, there = waiting.pop()
        if (here, there) == (len(one), len(other)):
            return True
        for place in _steps(one, other, here, there):
            if place not in known:
                known.add(place)
                waiting.append(place)
    return False


def _steps(one: list[int], other: list[int], here: int, there: int) -> Iterator[tuple[int, int]]:
    """Yield the places that can be reached by one byte, or by ending a part that varies."""
    a = one[here] if here < len(one) else None
    b = other[there] if there < len(other) else None
    if a == _ANY_BYTES:
        yield here + 1, there
    if b == _ANY_BYTES:
        yield here, there + 1
    if a is not None and b is not None and (a == b or a < 0 or b < 0):
        yield here + (a != _ANY_BYTES), there + (b != _ANY_BYTES)


def _either(begins: Callable[[bytes, bytes], bool], a: bytes, b: bytes) -> bool:
    return begins(a, b) or begins(b, a)


def meeting(one: Pattern, other: Pattern) -> list[Pattern] | None:
    """Return patterns that together stand for the names that match both; None where that cannot be told."""
    if not one.overlaps(other):
        return []
    if one.contains(other) or other.contains(one):
        return [other if one.contains(other) else one]
    if not (one.is_simple and other.is_simple):
        return None
    prefix, suffix = max(one.prefix, other.prefix, key=len), max(one.suffix, other.suffix, key=len)
    shortest, joined = max(one.shortest, other.shortest), len(prefix) + len(suffix)
    names = [prefix + suffix[joined - length :] for length in range(shortest, joined)]
    short = [Pattern.of_name(name) for name in names if one.matches(name) and other.matches(name)]
    return [Pattern((prefix, suffix), (STAR if shortest <= joined else "any",)), *short]


def covered(pattern: Pattern, by: Sequence[Pattern]) -> bool:
    """Tell whether every name of a pattern matches one of the others, as far as single ones of them can tell."""
    if any(one.contains(pattern) for one in by):
        return True
    if pattern.names != (STAR,):
        return False
    parts = (pattern.without_shortest, Pattern.of_name(pattern.filled(b"")))
    return all(any(one.contains(part) for one in by) for part in parts)


def escaped(name: bytes) -> str:
    r"""Return the text of a pattern that stands for exactly this name; it can stand between single quotes.

    It is what is printed of a name, but with `\*`, `\<` and `\=`, and `\x27` for a single quote.
    """
    text = printable(name)
    if _SPECIAL.search(name):
        for character in "*<=":
            text = text.replace(character, f"\\{character}")
        text = text.replace("'", r"\x27")
    return text


def _escape_glob(literal: bytes) -> bytes:
    for special in (b"\\", b"*", b"?", b"["):
        literal = literal.replace(special, b"\\" + special)
    return literal


def _what_is_wrong(text: bytes, place: int) -> str:
    shown, rest = as_typed(text), text[place:]
    if rest.startswith(b"\\"):
        what = r"a backslash escapes: \*, \<, \=, \\ and \xNN (two hexadecimal digits) are known"
        return f"pattern '{shown}': '{as_typed(rest[:2])}' is no escape; {what}"
    return (
        f"pattern '{shown}': a < begins a placeholder such as <id>, with a name of letters, digits, _ or - and a > at "
        r"its end; a literal < is \<"
    )


def _refuse_odd_names(text: bytes, literals: list[bytes], names: list[str]) -> None:
    shown = as_typed(text)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if STAR in twice:
        raise UsageError(
            f"pattern '{shown}' has more than one *: use placeholders such as '<a>' and '<b>', or several rules; a "
            r"literal * is \*"
        )
    if STAR in names and len(names) > 1:
        raise UsageError(f"pattern '{shown}' has a * beside placeholders: give all of them names, such as '<id>'")
    if twice:
        raise UsageError(f"pattern '{shown}' has the placeholder <{twice[0]}> more than once: each needs its own name")
    if b"" in literals[1:-1]:
        raise UsageError(f"pattern '{shown}': between two placeholders there must be something, or nothing parts them")
