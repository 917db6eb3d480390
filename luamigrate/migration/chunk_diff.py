"""Two large keys compared chunk by chunk, and what differs."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

from luamigrate.migration.chunks import (
    KeyAt,
    LargePair,
    Progress,
    compare_chunk,
    length_of,
    raise_if_stopped,
    step_for,
)
from luamigrate.model.errors import printable
from luamigrate.model.status import Note, Word
from luamigrate.scripts.calls import Expiries
from luamigrate.scripts.chunk_replies import DIFFERENCES, ComparedChunk

NAMES_SHOWN = 5

_VALUES = ("missing", "additional", "contradicting")
_FOUND = (*_VALUES, "expiring_apart")


@dataclass
class ChunkDiff:
    """What differs between a source and another key, added up over the chunks compared."""

    kind: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_FOUND, 0))
    names: dict[str, list[Note]] = field(default_factory=lambda: {what: [] for what in _FOUND})
    lengths: tuple[int, int] = (0, 0)
    exact: bool = True
    """Whether the lengths count what readers see."""
    ttls: tuple[int, int] = (-1, -1)
    """Milliseconds that source and target have left; -1 for never, -2 where there is no such key."""
    expiries_differ: bool = False
    """Whether the keys expire at different times, as the server has decided."""
    source_lasts: bool = True
    """Whether the source is there at least as long as the target, as the server has decided."""
    visited: int = 0
    """Elements of the source."""

    def add(self, chunk: ComparedChunk) -> None:
        """Count what one more chunk has shown; lengths and expiries are those at the last one."""
        self.visited += chunk.visited
        self.lengths, self.ttls = chunk.lengths, chunk.ttls
        self.exact &= chunk.exact
        self.expiries_differ, self.source_lasts = chunk.expiries_differ, chunk.outlives
        for what in DIFFERENCES:
            self.counts[what] += chunk.counts[what]
            names = [printable(name)[:200] for name in chunk.names[what] if isinstance(name, bytes)]
            self.names[what] += names[: max(0, NAMES_SHOWN - len(self.names[what]))]

    @property
    def expiring_apart(self) -> int:
        """How many fields of equal value expire at another time."""
        return self.counts["expiring_apart"]

    @property
    def word(self) -> Word:
        """How the values stand."""
        counts = self.counts
        if self.kind in ("list", "string"):
            equal = not counts["contradicting"] and self.lengths[0] == self.lengths[1]
            return Word.SAME if equal else Word.DIFFERS
        if counts["additional"] or counts["contradicting"]:
            return Word.DIFFERS
        return Word.PARTIAL if counts["missing"] else Word.SAME

    @property
    def is_gone(self) -> bool:
        """Whether the source has no element any more, because they have all expired."""
        return self.kind == "hash" and not self.visited

    @property
    def other_is_gone(self) -> bool:
        """Whether the key that the source was compared with has vanished."""
        return self.ttls[1] == -2  # noqa: PLR2004  # as PTTL says it

    @property
    def tells_sizes(self) -> bool:
        """Whether the lengths are what differs."""
        return self.kind in ("list", "string") and self.word is not Word.SAME

    def word_with_expiry(self, *, ignore: bool) -> Word:
        """How the keys stand, expiries included."""
        differ = not ignore and (self.expiries_differ or self.expiring_apart > 0)
        return Word.EXPIRY if differ and self.word is Word.SAME else self.word

    @property
    def notes(self) -> dict[str, Note]:
        """What differs in value, as lua/lib/diff.lua names it."""
        if self.word is Word.SAME:
            return {}
        if self.kind == "string":
            return {}
        if self.kind == "list":
            first = self.names["contradicting"]
            index = str(first[0]) if first else ""
            return {"first_difference": int(index) if re.fullmatch("[0-9]{1,20}", index) else min(self.lengths)}
        return {name: value for what in _VALUES for name, value in self._named(what).items()}

    def notes_but(self, *, ignore_expiry: bool) -> dict[str, Note]:
        """Return what differs, expiries included unless they are ignored."""
        notes = self.notes
        if ignore_expiry:
            return notes
        if self.expiring_apart:
            notes |= self._named("expiring_apart")
        if self.expiries_differ or (self.word is Word.SAME and not self.source_lasts):
            notes |= {
                f"{side}_ttl_ms": ttl if ttl >= 0 else None
                for side, ttl in zip(("source", "target"), self.ttls, strict=True)
            }
        return notes

    def _named(self, what: str) -> dict[str, Note]:
        names: dict[str, Note] = {f"{what}_names": self.names[what]} if self.names[what] else {}
        return {what: self.counts[what], **names}


def diff_both_ways(
    pair: LargePair,
    other: KeyAt,
    expiries: Expiries,
    after: float = 0.0,
    lifetime_ms: int = 0,
    *,
    only_whether: bool = False,
) -> Generator[Progress, None, ChunkDiff]:
    """Compare the source with another key, and that one with the source where it may have more.

    With `lifetime_ms` the other key's expiry is renewed at each chunk. With `only_whether` the first difference
    is enough.
    """
    diff = ChunkDiff(pair.kind)
    middle = after + (1.0 - after) / 2
    for _, progress in compare_in_chunks(pair, (pair.source_key, other), expiries, diff):
        _renew(other, lifetime_ms)
        yield progress.within(after, middle)
        if only_whether and diff.visited and diff.word_with_expiry(ignore=False) is not Word.SAME:
            return diff
    # Where all is there and the lengths are equal, there can be no more.
    complete = diff.exact and not diff.counts["missing"] and diff.lengths[0] == diff.lengths[1]
    if not complete and pair.kind in ("hash", "set", "zset"):
        backwards = ChunkDiff(pair.kind)
        for _, progress in compare_in_chunks(pair, (other, pair.source_key), Expiries.NONE, backwards):
            _renew(other, lifetime_ms)
            yield progress.within(middle, 1.0)
        diff.counts["additional"] = backwards.counts["missing"]
        diff.names["additional"] = backwards.names["missing"]
    return diff


def _renew(staging: KeyAt, lifetime_ms: int) -> None:
    if lifetime_ms:
        staging.call("PEXPIRE", lifetime_ms, writes=True)


def compare_in_chunks(
    pair: LargePair, keys: tuple[KeyAt, KeyAt], expiries: Expiries, diff: ChunkDiff, names: int = NAMES_SHOWN
) -> Iterator[tuple[ComparedChunk, Progress]]:
    """Compare the first key with the second one chunk by chunk, adding to `diff`; yield each chunk and the progress."""
    position, done, step = b"0", 0, 0
    while True:
        raise_if_stopped(pair)
        step = step or step_for(pair, max(1, length_of(pair)))
        chunk = compare_chunk(pair, keys, position, step, expiries=expiries, names=names)
        position = chunk.position
        done += chunk.visited
        diff.add(chunk)
        yield chunk, Progress(min(1.0, done / max(1, diff.lengths[0])), chunk.seconds, chunk.largest)
        if position == b"0":
            return
