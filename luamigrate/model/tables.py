"""Tables of single names: a pairs file read, and the rule that it makes."""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from luamigrate.model.errors import UsageError, as_typed, printable
from luamigrate.model.patterns import Pattern
from luamigrate.model.rules import RESERVED, TYPES, Pairs, Rule, as_bytes

EXAMPLES = 50
"""Pairs that stand for the others where not all can be tried."""

_ESCAPE = re.compile(rb"\\(?:\\|x([0-9a-fA-F]{2})|(.?))", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_MARK = b"\xef\xbb\xbf"
"""What some programs write in front of a text."""


@dataclass(frozen=True, eq=False)
class TableRule(Rule):
    """A rule that names each of its sources, and the target of each. `source` and `target` are the name of its file."""

    by_source: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    by_target: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    lines: Sequence[int] = field(default=(), repr=False)
    """The number of each pair's line."""

    def __str__(self) -> str:
        count = len(self.by_source)
        return f"{count:,} name{'' if count == 1 else 's'} in {self.file}{self.where}"

    @property
    def file(self) -> str:
        """The name of its file, as errors show it."""
        return as_typed(self.source.prefix)

    @property
    def targets_text(self) -> str:
        """Text that stands for its targets."""
        return f"the targets in {self.file}"

    @property
    def is_table(self) -> bool:
        """Whether it has many single names."""
        return True

    @property
    def source_names(self) -> Collection[bytes]:
        """The names of all sources, in the order of the file."""
        return self.by_source.keys()

    @property
    def target_names(self) -> Collection[bytes]:
        """The names of all targets, in the order of the file."""
        return self.by_target.keys()

    @property
    def examples(self) -> list[tuple[Pattern, Pattern]]:
        """Some pairs of source and target."""
        pairs = islice(self.by_source.items(), EXAMPLES)
        return [(Pattern.of_name(source), Pattern.of_name(target)) for source, target in pairs]

    def pairs(self, sources: list[bytes]) -> Pairs:
        """Return source names of the table together with their target names."""
        return Pairs(self, sources, [*map(self.by_source.__getitem__, sources)])

    def pairs_of_targets(self, targets: list[bytes]) -> Pairs:
        """Return target names of the table together with their source names."""
        return Pairs(self, [*map(self.by_target.__getitem__, targets)], targets)

    def refuse_chains(self) -> None:
        """Raise UsageError where a target is a source too, in one database."""
        if self.database is not None:
            return
        chained = next((target for target in self.by_target if target in self.by_source), None)
        if chained is not None:
            copied, again = (_line_of(chained, names, self.lines) for names in (self.by_target, self.by_source))
            raise UsageError(
                f"pairs file {self.file}: '{printable(chained)}' is the target on line {copied} and the source on "
                f"line {again}: it would be copied again"
            )


def table_rule(path: str | Path, kind: str, database: int | None) -> TableRule:
    """Read a pairs file: source, tab, target on each line, escaped as they are printed. Raises UsageError."""
    if kind not in TYPES:
        raise UsageError(f"type '{as_typed(as_bytes(kind))}' is not one of {', '.join(TYPES)}")
    shown = as_typed(as_bytes(str(path)))
    try:
        by_source, by_target, numbers = _read(Path(path))
    except OSError as error:
        raise UsageError(f"pairs file {shown}: {error.strerror}") from None
    except UsageError as error:
        raise UsageError(f"pairs file {shown}: {error}") from None
    if not by_source:
        raise UsageError(f"pairs file {shown} has no pair: each line is a source, a tab and a target")
    name = Pattern.of_name(as_bytes(str(path)))
    return TableRule(name, name, kind, database=database, by_source=by_source, by_target=by_target, lines=numbers)


def _read(path: Path) -> tuple[dict[bytes, bytes], dict[bytes, bytes], Sequence[int]]:
    by_source: dict[bytes, bytes] = {}
    by_target: dict[bytes, bytes] = {}
    numbers = array("L")
    with path.open("rb") as lines:
        for number, (source, target) in _pairs(lines):
            if source in by_source or target in by_target:
                which, name, known = (
                    ("source", source, by_source) if source in by_source else ("target", target, by_target)
                )
                first = _line_of(name, known, numbers)
                raise UsageError(f"line {number}: the {which} '{printable(name)}' is on line {first} too")
            by_source[source] = target
            by_target[target] = source
            numbers.append(number)
    return by_source, by_target, numbers


def _line_of(name: bytes, names: Collection[bytes], numbers: Sequence[int]) -> int:
    """Return the number of the line on which a source, or a target, stands."""
    return next(number for each, number in zip(names, numbers, strict=True) if each == name)


def _pairs(lines: Iterator[bytes]) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
    """Yield the pairs with the numbers of their lines. Raises UsageError."""
    for number, line in enumerate(lines, 1):
        text = line.removeprefix(_MARK) if number == 1 else line
        text = text.rstrip(b"\r\n")
        if text and not text.startswith(b"# ") and text != b"#":
            yield number, _pair(number, text)


def _pair(number: int, text: bytes) -> tuple[bytes, bytes]:
    source, tab, target = text.partition(b"\t")
    if not tab or not source or not target or b"\t" in target:
        raise UsageError(
            f"line {number} needs a source, one tab and a target (a tab in a name is \\x09; a comment begins with '# ')"
        )
    if _CONTROL.search(text):
        raise UsageError(f"line {number} has control characters: in names they are written \\xNN")
    if b"\\" in text:
        source, target = _unescaped(number, source), _unescaped(number, target)
    if source.startswith(RESERVED) or target.startswith(RESERVED):
        raise UsageError(f"line {number}: names under '{RESERVED.decode()}' are reserved")
    return source, target


def _unescaped(number: int, name: bytes) -> bytes:
    def byte(escape: re.Match[bytes]) -> bytes:
        if escape[2] is not None:
            shown = as_typed(escape[0])
            raise UsageError(f"line {number}: '{shown}' is no escape: \\\\ and \\xNN are known, all else is literal")
        return bytes.fromhex(escape[1].decode()) if escape[1] else b"\\"

    return _ESCAPE.sub(byte, name)


def some_of(names: Collection[bytes], most: int) -> Sequence[bytes]:
    """Return at most so many of the names, from all over."""
    return [*islice(names, 0, None, -(-len(names) // most) or 1)]
