"""Two big keys held against each other, chunk by chunk, and what that finds."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from luamigrate import scripts
from luamigrate.errors import printable
from luamigrate.outcome import KeyOutcome, Note, Notes, Word
from luamigrate.pace import Pause
from luamigrate.rules import RESERVED
from luamigrate.servers import Server

KINDS = ("hash", "set", "zset", "list", "string")
"""Types that can be taken apart."""

LENGTH = {"hash": "HLEN", "set": "SCARD", "zset": "ZCARD", "list": "LLEN", "string": "STRLEN"}

NAMES_SHOWN = 5
STEPS_PER_CHUNK = 8
"""Readings of one chunk: between two of them the script looks at its time."""
LARGEST_STEP = 1000
BYTES_OF_STRING = 64 * 1024

EXPIRY_TOLERANCE_MS = 1000
"""As in lua/shared/moments.lua."""


class Ended(Exception):
    """Somebody wants it to end."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What has come of a chunk."""

    done: float
    """The part of the pair that is done, 0 to 1."""
    seconds: float = 0.0
    """How long the chunk held the server."""
    largest: int = 0
    """Bytes of its largest element, which cannot be cut."""

    def within(self, first: float, last: float) -> Progress:
        """Return this progress as a part of something larger."""
        return replace(self, done=first + self.done * (last - first))


@dataclass(frozen=True, kw_only=True)
class Big:
    """A pair that is too big for one script."""

    server: Server
    source: bytes
    target: bytes
    kind: str
    """The source's type, one of KINDS."""
    size: int
    """Of the larger of the two, in bytes of memory."""
    pause: Pause
    digest: bytes = b""
    """What the last look found that this one may act on."""
    second_look: bool = False
    settle: float = 0.0
    """Seconds between the two looks of a fill."""
    stop: Callable[[], bool]
    allow_long_pause: bool = False
    nonce: str
    """Makes the staging key one that no other run uses."""

    @property
    def staging(self) -> bytes:
        """The key that is made into the target; it lives in the target's slot."""
        _, brace, rest = self.target.partition(b"{")
        tag, end, _ = rest.partition(b"}")
        tag = tag if brace and end and tag else self.target
        return RESERVED + b"staging:" + self.nonce.encode() + b":{" + tag + b"}"

    def outcome(self, word: Word, text: str = "", notes: Notes | None = None) -> KeyOutcome:
        """Say what came of it."""
        return KeyOutcome(self.source, self.target, word, text, notes=notes or {})

    def sized(self, word: Word, sizes: tuple[int, int] | None, notes: Notes | None = None) -> KeyOutcome:
        """Say what came of it, and how long source and target are."""
        return KeyOutcome(self.source, self.target, word, sizes=sizes, notes=notes or {})

    def unlike(self, word: Word, target_kind: str, text: str = "") -> KeyOutcome:
        """Say what came of it where the target is of another type."""
        return self.outcome(word, text, {"source_type": self.kind, "target_type": target_kind})


def length_of(big: Big) -> int:
    """Return how many elements the source has, or bytes."""
    length = big.server.call(LENGTH[big.kind], big.source).answer()
    return length if isinstance(length, int) else 0


def step_for(big: Big, length: int) -> int:
    """How many elements to read at once, so that a chunk has some steps."""
    if big.kind == "string":
        return BYTES_OF_STRING
    per_element = max(1, big.size // max(1, length))
    return max(1, min(LARGEST_STEP, big.pause.capacity // STEPS_PER_CHUNK // per_element))


def go_on(big: Big) -> None:
    """Raise Ended where somebody wants it to end."""
    if big.stop():
        raise Ended


_VALUES = ("missing", "additional", "contradicting")
_FOUND = (*_VALUES, "expiring_apart")


@dataclass
class Findings:
    """What holding a source against another key has found."""

    kind: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_FOUND, 0))
    names: dict[str, list[Note]] = field(default_factory=lambda: {what: [] for what in _FOUND})
    lengths: tuple[int, int] = (0, 0)
    exact: bool = True
    """Whether the lengths count what readers see."""
    ttls: tuple[int, int] = (-1, -1)
    """Milliseconds that source and target have left; -1 for never, -2 where there is no such key."""
    visited: int = 0
    """Elements of the source."""

    def add(self, what: str, count: int, names: list[Any]) -> None:
        """Count what one chunk found."""
        self.counts[what] += count
        room = NAMES_SHOWN - len(self.names[what])
        self.names[what] += [printable(name)[:200] for name in names[: max(0, room)] if isinstance(name, bytes)]

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
        """Whether what the source was held against has vanished."""
        return self.ttls[1] == -2  # noqa: PLR2004  # as PTTL says it

    @property
    def tells_sizes(self) -> bool:
        """Whether the lengths are what differs."""
        return self.kind in ("list", "string") and self.word is not Word.SAME

    @property
    def source_lasts(self) -> bool:
        """Whether the source is there at least as long as the target."""
        source, target = self.ttls
        return source == -1 or 0 <= target <= source

    @property
    def keys_expire_apart(self) -> bool:
        """Whether the keys expire more than a second apart."""
        source, target = self.ttls
        return (source < 0) != (target < 0) or abs(source - target) > EXPIRY_TOLERANCE_MS

    def word_with_expiry(self, *, ignore: bool) -> Word:
        """How the keys stand, expiries included."""
        apart = not ignore and (self.keys_expire_apart or self.expiring_apart > 0)
        return Word.EXPIRY if apart and self.word is Word.SAME else self.word

    @property
    def notes(self) -> dict[str, Note]:
        """What differs in value, as lua/shared/values.lua names it."""
        if self.word is Word.SAME:
            return {}
        if self.kind == "string":
            return {}
        if self.kind == "list":
            first = self.names["contradicting"]
            return {"first_difference": int(str(first[0])) if first else min(self.lengths)}
        return {name: value for what in _VALUES for name, value in self._named(what).items()}

    def notes_but(self, *, ignore_expiry: bool) -> dict[str, Note]:
        """Return what differs, expiries included unless they are ignored."""
        notes = self.notes
        if ignore_expiry:
            return notes
        if self.expiring_apart:
            notes |= self._named("expiring_apart")
        if self.keys_expire_apart or (self.word is Word.SAME and not self.source_lasts):
            notes |= {
                f"{side}_ttl_ms": ttl if ttl >= 0 else None
                for side, ttl in zip(("source", "target"), self.ttls, strict=True)
            }
        return notes

    def _named(self, what: str) -> dict[str, Note]:
        names: dict[str, Note] = {f"{what}_names": self.names[what]} if self.names[what] else {}
        return {what: self.counts[what], **names}


def contrast_both(
    big: Big, other: bytes, expiries: str, after: float = 0.0, lifetime_ms: int = 0
) -> Generator[Progress, None, Findings]:
    """Hold the source against another key, and that one against the source where it may have more.

    With `lifetime_ms` that other key's expiry is renewed at each chunk.
    """
    findings = Findings(big.kind)
    half = after + (1.0 - after) / 2
    for _, progress in contrast(big, (big.source, other), expiries, findings):
        if lifetime_ms:
            big.server.call("PEXPIRE", other, lifetime_ms, once=True)
        yield progress.within(after, half)
    # Where all is there and the lengths are equal, there can be no more.
    complete = findings.exact and not findings.counts["missing"] and findings.lengths[0] == findings.lengths[1]
    if not complete and big.kind in ("hash", "set", "zset"):
        backwards = Findings(big.kind)
        for _, progress in contrast(big, (other, big.source), "", backwards):
            if lifetime_ms:
                big.server.call("PEXPIRE", other, lifetime_ms, once=True)
            yield progress.within(half, 1.0)
        findings.counts["additional"] = backwards.counts["missing"]
        findings.names["additional"] = backwards.names["missing"]
    return findings


Chunk = dict[str, Any]


def contrast(
    big: Big, keys: tuple[bytes, bytes], expiries: str, findings: Findings, names: int = NAMES_SHOWN
) -> Iterator[tuple[Chunk, Progress]]:
    """Go through the first key, chunk by chunk, into the findings."""
    position, done, step = b"0", 0, 0
    while True:
        go_on(big)
        step = step or step_for(big, max(1, length_of(big)))
        call = scripts.contrast(
            big.server, keys, big.pause, kind=big.kind, position=position, step=step, expiries=expiries, names=names
        )
        chunk = _parse(call)
        position, seconds = chunk["position"], call.held(chunk["microseconds"])
        done += chunk["visited"]
        findings.visited = done
        findings.lengths, findings.exact = tuple(chunk["lengths"]), findings.exact and bool(chunk["exact"])
        findings.ttls = tuple(chunk["ttls"])
        for what in ("missing", "contradicting", "expiring_apart"):
            findings.add(what, chunk[what], chunk[f"{what}_names"])
        yield chunk, Progress(min(1.0, done / max(1, findings.lengths[0])), seconds, chunk["largest"])
        if position == b"0":
            return


def _parse(call: scripts.ScriptCall) -> Chunk:
    reply = call.reply()
    if not isinstance(reply, list) or len(reply) % 2 or not all(isinstance(name, bytes) for name in reply[::2]):
        raise call.odd()
    chunk = {name.decode("ascii", "replace"): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
    numbers = ("visited", "largest", "microseconds", "exact", "missing", "contradicting", "expiring_apart")
    lists = ("lengths", "ttls", "missing_names", "contradicting_names", "expiring_apart_names")
    if not (
        isinstance(chunk.get("position"), bytes)
        and all(isinstance(chunk.get(name), int) for name in numbers)
        and all(isinstance(chunk.get(name), list) for name in lists)
    ):
        raise call.odd()
    return chunk
