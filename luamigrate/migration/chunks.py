"""A pair that is too large for one script, and what is done to a chunk of it, in one slot or across two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from typing import Any, NamedTuple

from redis.crc import key_slot

from luamigrate.model.control import NOBODY, Control
from luamigrate.model.limits import Pause
from luamigrate.model.rules import RESERVED
from luamigrate.model.status import KeyOutcome, Lacking, Notes, Word
from luamigrate.scripts import calls, chunk_replies
from luamigrate.scripts.calls import Expiries
from luamigrate.scripts.chunk_replies import ComparedChunk, ReadChunk
from luamigrate.server.call import Call
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Place

KINDS = ("hash", "set", "zset", "list", "string")
"""Types that can be processed in chunks."""

LENGTH = {"hash": "HLEN", "set": "SCARD", "zset": "ZCARD", "list": "LLEN", "string": "STRLEN"}

STEPS_PER_CHUNK = 8
"""Readings of one chunk: between two of them the script checks its time."""
LARGEST_STEP = 1000
BYTES_OF_STRING = 64 * 1024


class Stopping(Exception):
    """The work is to end."""


class Vanished(Exception):
    """The key that is written to is not there any more."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What has come of a chunk."""

    done: float
    """The share of the pair that is done, 0 to 1."""
    seconds: float = 0.0
    """How long the chunk kept the server busy."""
    largest: int = 0
    """Bytes of its largest element, which cannot be cut."""

    def within(self, first: float, last: float) -> Progress:
        """Return this progress as a share of something larger."""
        return replace(self, done=first + self.done * (last - first))


class KeyAt(NamedTuple):
    """A key, and where it lives."""

    name: bytes
    place: Place

    @property
    def node(self) -> Connection:
        """The server that has it."""
        return self.place.node

    def call(self, command: str, *arguments: str | int, writes: bool = False) -> Any:
        """Send a command about the key, never twice on two connections; return its answer."""
        node, database = self.place
        if database == node.database:
            return node.call(command, self.name, *arguments, once=True).answer()
        words = (command, self.name, *arguments)
        return calls.in_database(node, database, *words, keys=(self.name,), writes=writes).answer()


@dataclass(frozen=True, kw_only=True)
class LargePair:
    """A pair that is too large for one script."""

    source_place: Place
    target_place: Place
    cross_slot: bool = False
    """Whether source and target are in different slots of a cluster."""
    source: bytes
    target: bytes
    kind: str
    """The source's type, one of KINDS."""
    size: int
    """The bytes of memory of the larger of source and target."""
    pause: Pause
    lacking: Lacking | None = None
    """What the last check found missing, and this one may add."""
    is_recheck: bool = False
    settle: float = 0.0
    """Seconds between the two checks of a fill."""
    control: Control = NOBODY
    allow_long_pause: bool = False
    nonce: str
    """Makes the staging key one that no other run uses."""
    lease: Callable[[], tuple[bytes, bytes] | int] | None = None
    """Tells the lease under which a target that is there is replaced: name and value, in the database of the source; or
    until when it is held by the clock of the target's node, in milliseconds since 1970."""

    @property
    def source_node(self) -> Connection:
        """The server that has the source."""
        return self.source_place.node

    @property
    def target_node(self) -> Connection:
        """The server that has the target and the staging key."""
        return self.target_place.node

    @property
    def staging(self) -> bytes:
        """The key that is made into the target; it lives in the target's slot."""
        _, brace, rest = self.target.partition(b"{")
        tag, end, _ = rest.partition(b"}")
        if not (brace and end and tag):
            tag = self.target if b"}" not in self.target else _tag_for(key_slot(self.target))
        return RESERVED + b"staging:" + self.nonce.encode() + b":{" + tag + b"}"

    @property
    def source_key(self) -> KeyAt:
        """The source, and where it is."""
        return KeyAt(self.source, self.source_place)

    @property
    def target_key(self) -> KeyAt:
        """The target, and where it is or would be."""
        return KeyAt(self.target, self.target_place)

    @property
    def staging_key(self) -> KeyAt:
        """The staging key, beside the target."""
        return KeyAt(self.staging, self.target_place)

    @property
    def spans_databases(self) -> bool:
        """Whether source and target are in two databases of a server."""
        return not self.cross_slot and self.source_place != self.target_place

    def databases(self, *keys: KeyAt) -> tuple[int, ...]:
        """Return the databases of keys, as a script takes them; none where all are in one."""
        return tuple(key.place.database for key in keys) if self.spans_databases else ()

    def outcome(self, word: Word, text: str = "", notes: Notes | None = None) -> KeyOutcome:
        """Return an outcome of this pair."""
        return KeyOutcome(self.source, self.target, word, text, notes=notes or {})

    def sized(self, word: Word, sizes: tuple[int, int] | None, notes: Notes | None = None) -> KeyOutcome:
        """Return an outcome that tells how long source and target are."""
        return KeyOutcome(self.source, self.target, word, sizes=sizes, notes=notes or {})

    def unlike(self, word: Word, target_kind: str, text: str = "") -> KeyOutcome:
        """Return the outcome for a target of another type."""
        return self.outcome(word, text, {"source_type": self.kind, "target_type": target_kind})


def length_of(pair: LargePair) -> int:
    """Return how many elements the source has, or bytes."""
    length = pair.source_node.call(LENGTH[pair.kind], pair.source).answer()
    return length if isinstance(length, int) else 0


def step_for(pair: LargePair, length: int) -> int:
    """How many elements to read at once, so that a chunk has some steps."""
    if pair.kind == "string":
        return BYTES_OF_STRING
    per_element = max(1, pair.size // max(1, length))
    return max(1, min(LARGEST_STEP, pair.pause.capacity // STEPS_PER_CHUNK // per_element))


def raise_if_stopped(pair: LargePair) -> None:
    """Raise Stopping where the work is to end."""
    if pair.control.stop():
        raise Stopping


@cache
def _tag_for(slot: int) -> bytes:
    """Return a hash tag for a slot, where the name itself cannot be one."""
    return next(tag for tag in (b"%d" % number for number in count()) if key_slot(tag) == slot)


def compare_chunk(
    pair: LargePair, keys: tuple[KeyAt, KeyAt], position: bytes, step: int, *, expiries: Expiries, names: int
) -> ComparedChunk:
    """Compare a chunk of the first key with the second one."""
    one, other = keys
    if not pair.cross_slot:
        call = calls.chunk_compare(
            pair.source_node,
            (one.name, other.name),
            pair.pause,
            kind=pair.kind,
            position=position,
            step=step,
            expiries=expiries,
            names=names,
            databases=pair.databases(*keys),
        )
        return chunk_replies.compared_chunk(call)
    read = _read(pair, one, position, step)
    call = calls.chunk_compare_elements(
        other.node,
        other.name,
        read.elements,
        kind=pair.kind,
        position=position,
        expires_at=read.expiry,
        expiries=expiries,
        names=names,
    )
    return chunk_replies.compared_elements(call, read)


def stage_chunk(pair: LargePair, position: bytes, step: int, lifetime_ms: int) -> tuple[bytes, int, Progress]:
    """Copy a chunk of the source to the staging key: return the next position, and the number of elements.

    Raises Vanished where the staging key has expired meanwhile.
    """
    if pair.cross_slot:
        read = _read(pair, pair.source_key, position, step)
        is_first = position == b"0"
        call = calls.chunk_append(
            pair.target_node, pair.staging, read.elements, kind=pair.kind, lifetime_ms=lifetime_ms, is_first=is_first
        )
        if (microseconds := chunk_replies.appended(call)) is None:
            raise Vanished
        return read.position, read.visited, Progress(0.0, max(read.seconds, call.busy(microseconds)), read.largest)
    call = calls.chunk_stage(
        pair.source_node,
        (pair.source, pair.staging),
        pair.pause,
        kind=pair.kind,
        position=position,
        step=step,
        lifetime_ms=lifetime_ms,
        databases=pair.databases(pair.source_key, pair.staging_key),
    )
    if not (done := chunk_replies.staged(call)):
        raise Vanished
    position, copied, largest, microseconds = done
    return position, copied, Progress(0.0, call.busy(microseconds), largest)


def supply(pair: LargePair, names: Sequence[bytes]) -> tuple[int, float]:
    """Add to the target what the source holds of names that it lacks: return how many were tried, and seconds.

    Raises Vanished where the target is not there any more.
    """
    if not pair.cross_slot:
        return _supply(pair, [pair.target_key, pair.source_key], names)
    call = calls.chunk_read_fields(pair.source_node, pair.source, pair.pause, kind=pair.kind, names=names)
    tried, microseconds, picked = chunk_replies.fields_read(call)
    longest = call.busy(microseconds)
    while picked:
        done, seconds = _supply(pair, [pair.target_key], picked)
        picked, longest = picked[3 * done :], max(longest, seconds)
    return tried, longest


def _supply(pair: LargePair, keys: list[KeyAt], names: Sequence[Any]) -> tuple[int, float]:
    call = calls.chunk_add_fields(
        pair.target_node,
        [key.name for key in keys],
        pair.pause,
        kind=pair.kind,
        names=names,
        databases=pair.databases(*keys),
    )
    if not (added := chunk_replies.fields_added(call)):
        raise Vanished
    done, microseconds = added
    return done, call.busy(microseconds)


def publish(pair: LargePair, expires_at: int | None) -> Call:
    """Have the staging key made into the target by the EXEC that follows."""
    source: bytes | int = pair.source if expires_at is None else expires_at
    # The lease is where the source is.
    databases = pair.databases(pair.staging_key, pair.target_key, pair.source_key, pair.source_key)
    return calls.chunk_publish(
        pair.target_node,
        pair.staging,
        pair.target,
        source=source,
        lease=pair.lease and pair.lease(),
        databases=databases,
    )


def unlink_target(pair: LargePair) -> Call:
    """Have the target deleted by the EXEC that follows."""
    if pair.spans_databases:
        return calls.unlink_in_database(pair.target_node, pair.target_place.database, pair.target)
    return pair.target_node.call("UNLINK", pair.target, once=True)


def _read(pair: LargePair, key: KeyAt, position: bytes, step: int) -> ReadChunk:
    call = calls.chunk_read(key.node, key.name, pair.pause, kind=pair.kind, position=position, step=step)
    return chunk_replies.read_chunk(call)
