"""A pair that is too big for one script, and what is done to a chunk of it: in one slot, or across two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import Any

from redis.crc import key_slot

from luamigrate.model.limits import Pause
from luamigrate.model.rules import RESERVED
from luamigrate.model.status import KeyOutcome, Notes, Word
from luamigrate.scripts import calls, replies
from luamigrate.scripts.calls import Elements, Expiries, ScriptCall
from luamigrate.scripts.replies import Chunk
from luamigrate.server.connection import Call, Server

KINDS = ("hash", "set", "zset", "list", "string")
"""Types that can be taken apart."""

LENGTH = {"hash": "HLEN", "set": "SCARD", "zset": "ZCARD", "list": "LLEN", "string": "STRLEN"}

STEPS_PER_CHUNK = 8
"""Readings of one chunk: between two of them the script looks at its time."""
LARGEST_STEP = 1000
BYTES_OF_STRING = 64 * 1024


class Ended(Exception):
    """Somebody wants it to end."""


class Vanished(Exception):
    """The key that is written to is not there any more."""


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
    """Where the source is."""
    target_server: Server
    across: bool = False
    """Whether source and target are in different slots of a cluster."""
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
        if not (brace and end and tag):
            tag = self.target if b"}" not in self.target else _tag_for(key_slot(self.target))
        return RESERVED + b"staging:" + self.nonce.encode() + b":{" + tag + b"}"

    def holder(self, key: bytes) -> Server:
        """Return where the source is, or the target and the staging key."""
        return self.server if key == self.source else self.target_server

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


@cache
def _tag_for(slot: int) -> bytes:
    """Return a hash tag for a slot, where the name itself cannot be one."""
    return next(tag for tag in (b"%d" % number for number in count()) if key_slot(tag) == slot)


def contrast_chunk(
    big: Big, keys: tuple[bytes, bytes], position: bytes, step: int, *, expiries: Expiries, names: int
) -> Chunk:
    """Hold a chunk of the first key against the second one."""
    if not big.across:
        call = calls.chunk_compare(
            big.server,
            keys,
            big.pause,
            kind=big.kind,
            position=position,
            step=step,
            expiries=expiries,
            names=names,
        )
        chunk = replies.chunk(call)
        return replies.compared(chunk | {"seconds": call.held(chunk["microseconds"])}, call)
    one, other = keys
    fetching, chunk, elements = _fetch(big, one, position, step)
    holding = calls.chunk_compare_elements(
        big.holder(other),
        other,
        elements,
        kind=big.kind,
        position=position,
        expires_at=replies.expiry(chunk, fetching),
        expiries=expiries,
        names=names,
    )
    held = replies.chunk(holding)
    seconds = max(fetching.held(chunk["microseconds"]), holding.held(held["microseconds"]))
    lengths, exact = [chunk["length"], held["length"]], chunk["exact"] and held["exact"]
    return replies.compared(chunk | held | {"lengths": lengths, "exact": exact, "seconds": seconds}, holding)


def stage_chunk(big: Big, position: bytes, step: int, lifetime_ms: int) -> tuple[bytes, int, Progress]:
    """Copy a chunk of the source to the staging key: return the next position, and the number of elements.

    Raises Vanished where the staging key has expired meanwhile.
    """
    if big.across:
        fetching, chunk, elements = _fetch(big, big.source, position, step)
        is_first = position == b"0"
        call = calls.chunk_append(
            big.target_server, big.staging, elements, kind=big.kind, lifetime_ms=lifetime_ms, is_first=is_first
        )
        if (microseconds := replies.appended(call)) is None:
            raise Vanished
        seconds = max(fetching.held(chunk["microseconds"]), call.held(microseconds))
        return chunk["position"], chunk["visited"], Progress(0.0, seconds, chunk["largest"])
    keys = big.source, big.staging
    call = calls.chunk_stage(
        big.server, keys, big.pause, kind=big.kind, position=position, step=step, lifetime_ms=lifetime_ms
    )
    if not (done := replies.staged(call)):
        raise Vanished
    position, copied, largest, microseconds = done
    return position, copied, Progress(0.0, call.held(microseconds), largest)


def supply(big: Big, names: Sequence[bytes]) -> tuple[int, float]:
    """Add to the target what the source holds of names that it lacks: return how many were looked at, and seconds.

    Raises Vanished where the target is not there any more.
    """
    if not big.across:
        return _supply(big, [big.target, big.source], names)
    call = calls.chunk_read_fields(big.server, big.source, big.pause, kind=big.kind, names=names)
    looked_at, microseconds, picked = replies.fields_read(call)
    longest = call.held(microseconds)
    while picked:
        done, seconds = _supply(big, [big.target], picked)
        picked, longest = picked[3 * done :], max(longest, seconds)
    return looked_at, longest


def _supply(big: Big, keys: list[bytes], names: Sequence[Any]) -> tuple[int, float]:
    call = calls.chunk_add_fields(big.target_server, keys, big.pause, kind=big.kind, names=names)
    if not (added := replies.fields_added(call)):
        raise Vanished
    done, microseconds = added
    return done, call.held(microseconds)


def publish(big: Big, expires_at: int | None) -> Call:
    """Have the staging key made into the target by the EXEC that follows."""
    source: bytes | int = big.source if expires_at is None else expires_at
    return calls.chunk_publish(big.target_server, big.staging, big.target, source=source)


def _fetch(big: Big, key: bytes, position: bytes, step: int) -> tuple[ScriptCall, Chunk, Elements]:
    call = calls.chunk_read(big.holder(key), key, big.pause, kind=big.kind, position=position, step=step)
    return call, *replies.read_chunk(call)
