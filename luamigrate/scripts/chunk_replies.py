"""What the scripts of lua/chunk/ answer, and how that is read."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any

from luamigrate.scripts.calls import Elements, ScriptCall


class ChunkReply(bytes, Enum):
    """What the scripts of lua/chunk/ may say instead of what they did."""

    PUBLISHED = b"published"
    """The staging key is the target now."""
    VANISHED = b"vanished"
    """The key that is written to is not there any more."""
    EXISTS = b"exists"
    """The target is there, and is not ours."""
    GONE = b"gone"
    """There is no source any more."""
    UNHELD = b"unheld"
    """The lease is not the caller's."""


class ChunkValue(StrEnum):
    """What lua/chunk/compare.lua tells of a chunk, by name."""

    POSITION = "position"
    VISITED = "visited"
    LARGEST = "largest"
    MICROSECONDS = "microseconds"
    LENGTHS = "lengths"
    EXACT = "exact"
    TTLS = "ttls"
    EXPIRIES_DIFFER = "expiries_differ"
    OUTLIVES = "outlives"
    MISSING = "missing"
    CONTRADICTING = "contradicting"
    EXPIRING_APART = "expiring_apart"
    MISSING_NAMES = "missing_names"
    CONTRADICTING_NAMES = "contradicting_names"
    EXPIRING_APART_NAMES = "expiring_apart_names"


DIFFERENCES = (ChunkValue.MISSING, ChunkValue.CONTRADICTING, ChunkValue.EXPIRING_APART)
"""What is counted, and of which the first names are told."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadChunk:
    """Elements of a large key that were read in one call."""

    position: bytes
    """The position from which to go on in the key; `0` after the last chunk."""
    visited: int
    """How many elements it has, or bytes of a string."""
    largest: int
    """Bytes of its largest element."""
    length: int
    """How many elements the key has, or bytes."""
    exact: bool
    """Whether the length counts what readers see."""
    expiry: int
    """When the key expires, in milliseconds since 1970; -1 for never, -2 where it is not there."""
    elements: Elements
    seconds: float
    """How long the script kept the server busy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedChunk:
    """What differs between a chunk of one large key and another key."""

    position: bytes
    """The position from which to go on in the key; `0` after the last chunk."""
    visited: int
    """How many elements were compared, or bytes of a string."""
    largest: int
    """Bytes of the largest element."""
    lengths: tuple[int, int]
    """Elements, or bytes, of the key that was read and of the other."""
    exact: bool
    """Whether the lengths count what readers see."""
    ttls: tuple[int, int]
    """Milliseconds that the two have left; -1 for never, -2 where there is no such key."""
    expiries_differ: bool
    """Whether the keys expire at different times."""
    outlives: bool
    """Whether the first key is there at least as long as the second."""
    counts: dict[str, int]
    """How many elements differ, by DIFFERENCES."""
    names: dict[str, list[Any]]
    """The first of them."""
    seconds: float
    """How long the longer script kept its server busy."""


def read_chunk(call: ScriptCall) -> ReadChunk:
    """Wait for what chunk/read.lua tells. Raises Error."""
    values = _Values(call)
    elements, moments = values.list_of("elements"), values.list_of("moments")
    return ReadChunk(
        position=values.position(),
        visited=values.number("visited"),
        largest=values.number("largest"),
        length=values.number("length"),
        exact=bool(values.number("exact")),
        expiry=values.any_number("expiry"),
        elements=Elements(elements, moments),
        seconds=call.busy(values.number("microseconds")),
    )


def compared_chunk(call: ScriptCall) -> ComparedChunk:
    """Wait for what chunk/compare.lua tells. Raises Error."""
    values = _Values(call)
    return _compared(
        values,
        position=values.position(),
        visited=values.number("visited"),
        largest=values.number("largest"),
        lengths=values.two("lengths"),
        exact=bool(values.number("exact")),
        seconds=call.busy(values.number("microseconds")),
    )


def compared_elements(call: ScriptCall, read: ReadChunk) -> ComparedChunk:
    """Wait for what chunk/compare_elements.lua tells of a chunk that was read elsewhere. Raises Error."""
    values = _Values(call)
    return _compared(
        values,
        position=read.position,
        visited=read.visited,
        largest=read.largest,
        lengths=(read.length, values.number("length")),
        exact=read.exact and bool(values.number("exact")),
        seconds=max(read.seconds, call.busy(values.number("microseconds"))),
    )


def _compared(values: _Values, **known: Any) -> ComparedChunk:
    return ComparedChunk(
        ttls=values.two("ttls"),
        expiries_differ=bool(values.number("expiries_differ")),
        outlives=bool(values.number("outlives")),
        counts={what: values.number(what) for what in DIFFERENCES},
        names={what: values.list_of(f"{what}_names") for what in DIFFERENCES},
        **known,
    )


class _Values:
    """What a script has answered, by name. Each question raises Error where the answer is not of its kind."""

    def __init__(self, call: ScriptCall) -> None:
        self._call, reply = call, call.answer()
        if not isinstance(reply, list) or len(reply) % 2 or not all(isinstance(name, bytes) for name in reply[::2]):
            raise call.odd()
        self._named = {
            name.decode("ascii", "replace"): value for name, value in zip(reply[::2], reply[1::2], strict=True)
        }

    def any_number(self, name: str) -> int:
        """Return a number."""
        if not isinstance(value := self._named.get(name), int):
            raise self._call.odd()
        return value

    def number(self, name: str) -> int:
        """Return a number that counts something."""
        if (value := self.any_number(name)) < 0:
            raise self._call.odd()
        return value

    def list_of(self, name: str) -> list[Any]:
        """Return a list."""
        if not isinstance(value := self._named.get(name), list):
            raise self._call.odd()
        return value

    def two(self, name: str) -> tuple[int, int]:
        """Return two numbers."""
        match self._named.get(name):
            case [int() as one, int() as other]:
                return one, other
            case _:
                raise self._call.odd()

    def position(self) -> bytes:
        """Return from which position to go on."""
        if not isinstance(value := self._named.get("position"), bytes):
            raise self._call.odd()
        return value


def staged(call: ScriptCall) -> tuple[bytes, int, int, int] | None:
    """Wait for what chunk/stage.lua did: next position, elements, bytes of the largest, microseconds.

    None where the staging key has vanished. Raises Error.
    """
    match call.answer():
        case [bytes() as position, int() as copied, int() as largest, int() as microseconds]:
            return position, copied, largest, microseconds
        case ChunkReply.VANISHED:
            return None
        case _:
            raise call.odd()


def appended(call: ScriptCall) -> int | None:
    """Wait for chunk/append.lua: return its microseconds; None where the staging key has vanished. Raises Error."""
    match call.answer():
        case int() as microseconds:
            return microseconds
        case ChunkReply.VANISHED:
            return None
        case _:
            raise call.odd()


def fields_read(call: ScriptCall) -> tuple[int, int, list[Any]]:
    """Wait for chunk/read_fields.lua: return how many names it did, microseconds, and what it read. Raises Error."""
    match call.answer():
        case [int() as done, int() as microseconds, *found] if done > 0:
            return done, microseconds, found
        case _:
            raise call.odd()


def fields_added(call: ScriptCall) -> tuple[int, int] | None:
    """Wait for chunk/add_fields.lua: return how many names it did, and microseconds.

    None where the target has vanished. Raises Error.
    """
    match call.answer():
        case [int() as done, int() as microseconds] if done > 0:
            return done, microseconds
        case ChunkReply.VANISHED:
            return None
        case _:
            raise call.odd()
