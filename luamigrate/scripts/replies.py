"""What the scripts answer: every word that is no status word, and how answers are read.

An answer about a pair is a status word (see luamigrate.model.status) or one of those below, with a text behind it, or
a list of a status word and notes.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from typing import Any, NamedTuple

from luamigrate.model.errors import Error, printable
from luamigrate.model.rules import TYPES, Pairs
from luamigrate.model.status import KeyOutcome, Note, Word, lacking_from
from luamigrate.model.summary import Tally
from luamigrate.scripts.calls import Answer


class PairReply(bytes, Enum):
    """What a script may say of a pair instead of a status word."""

    BIG = b"big"
    """Too large for one script: with type and bytes."""
    MOVED = b"moved"
    """Another node of the cluster has it, or is about to have it."""
    PAIRED = b"paired"
    """There is nothing to say about this target: it has a source, or is not there."""


class MirrorReply(bytes, Enum):
    """What mirror.lua may say of a pair besides."""

    WAITED = b"waited"
    """Clients wait for something, and it would be written."""
    UNHELD = b"unheld"
    """The lease is not the caller's, and nothing was touched."""
    UNDECIDED = b"undecided"
    """It is for another look to decide."""


class CrossSlotReply(bytes, Enum):
    """What the scripts of lua/cross_slot/ may say of a key besides."""

    EQUAL = b"equal"
    """The key has the payload that was given, or one with that digest: with its expiry."""
    TYPE = b"type"
    """The key's type, where that alone was asked for."""
    CREATED = b"created"
    """The target was made or replaced: with the digest of its payload, where that is not the one that was given."""
    VANISHED = b"vanished"
    """The target was deleted, or made and has expired at once."""
    CHANGED = b"changed"
    """The target is not what it was, and has not been touched."""
    UNLIKE = b"unlike"
    """The payloads differ, and only the contents of the source can tell how the target stands."""


class ProbeReply(StrEnum):
    """What probe.lua may say of a command; anything else is a refusal, in the server's words."""

    OK = "ok"
    UNTRIED = "untried"
    """Nobody can tell without writing."""


LONGEST_MARK = 512
"""Bytes of a payload that are sent once more rather than have the server compute digests of it."""

_BIG = b"big "
_FAILED = b"failed "

_MOMENT = re.compile(rb"-?[0-9]{1,20}")
_SIZE = re.compile(r"[0-9]{1,20}")

_COUNTS = ("missing", "additional", "contradicting", "expiring_apart")
"""Notes that are numbers."""

_NO_WRITES = re.compile(r"\b(READONLY|MISCONF|NOREPLICAS)\b|\bcluster is down\b")


@dataclass
class Reading:
    """What came of some pairs."""

    answered: int
    """How many pairs were answered for, from the first on."""
    tally: Tally = field(default_factory=Tally)
    """Counts of the clean ones."""
    outcomes: list[KeyOutcome] = field(default_factory=list)
    """What came of the others, not counted yet; with `every_key` of the clean ones too."""
    big: list[tuple[int, str, int]] = field(default_factory=list)
    """Pairs that are too large for one script: index, type, bytes."""
    moved: list[int] = field(default_factory=list)
    """Pairs that are elsewhere now: indexes."""
    refused: list[int] = field(default_factory=list)
    """Pairs that the server refused, as it would any other at present: indexes."""
    refusal: str = ""
    """The text with which the server refused them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairReader:
    """Reads what the scripts of one verb answer about pairs."""

    possible: frozenset[Word]
    """The words that they may answer."""
    unclean: frozenset[Word]
    """Those that need an outcome of their own."""
    every_key: bool
    """Whether every pair needs one."""
    finds_extra: bool
    """Whether they are asked for targets without a source."""

    def read(self, pairs: Pairs, answers: list[Answer], *, first: bool) -> Reading:
        """Read and count what was answered for the first pairs, or for all.

        Only the `first` check of a pair is measured. Raises Error where the answers make no sense.
        """
        if not 1 <= len(answers) <= len(pairs):
            raise Error(f"the script answered for {len(answers)} of {len(pairs)} keys")
        reading = Reading(len(answers))
        # A batch holds few different answers; those with notes are lists, each of its own.
        words = Counter(answer for answer in answers if isinstance(answer, bytes))
        single = set[bytes]()
        for word, times in words.items():
            is_counted = self._is_counted(reading.tally, word, times, pairs, first=first)
            if not is_counted or (self.every_key and word != PairReply.PAIRED):
                single.add(word)
        if single or words.total() < len(answers):
            for index, answer in enumerate(answers):
                if isinstance(answer, list) or answer in single:
                    self._read_one(reading, pairs, index, answer)
        return reading

    def one(self, outcome: KeyOutcome) -> Reading:
        """Read what came of a pair that no script has answered for alone."""
        reading, clean = Reading(1), outcome.word not in self.unclean
        if clean:
            reading.tally.count(outcome.word, outcome.text)
            reading.tally.measure(outcome.sizes)
        if self.every_key or not clean:
            reading.outcomes.append(replace(outcome, clean=clean))
        return reading

    def _is_counted(self, tally: Tally, answer: bytes, times: int, pairs: Pairs, *, first: bool) -> bool:
        """Count an answer, unless each pair that has it needs an outcome of its own."""
        if answer == PairReply.PAIRED and self.finds_extra:
            return True
        if answer == PairReply.MOVED or answer.startswith(_BIG) or _is_refusal(answer):
            return False
        outcome = self._outcome(b"", b"", answer)
        if outcome.word is Word.GONE and first and pairs.rule.source_names is not None:
            tally.absent += times  # Nothing was found here: the name comes from the rule.
            return True
        if outcome.clean:
            tally.count(outcome.word, outcome.text, times)
            tally.measure(outcome.sizes if first else None, times)
        return outcome.clean

    def _read_one(self, reading: Reading, pairs: Pairs, index: int, answer: Answer) -> None:
        if isinstance(answer, bytes) and answer.startswith(_BIG):
            kind, _, size = printable(answer.removeprefix(_BIG)).partition(" ")
            if not _SIZE.fullmatch(size):
                raise Error(f"the script answered '{printable(answer)}', which has no size")
            reading.big.append((index, kind, int(size)))
        elif answer == PairReply.MOVED:
            reading.moved.append(index)
        elif isinstance(answer, bytes) and _is_refusal(answer):
            reading.refused.append(index)
            reading.refusal = printable(answer.removeprefix(_FAILED))
        else:
            reading.outcomes.append(self._outcome(pairs.sources[index], pairs.targets[index], answer))

    def _outcome(self, source: bytes, target: bytes, answer: Answer) -> KeyOutcome:
        outcome = _outcome(source, target, answer)
        if outcome.word not in self.possible:
            raise Error(f"the script answered '{outcome.word}', which is not for it to say")
        return replace(outcome, clean=False) if outcome.word in self.unclean else outcome


def takes_no_writes(words: str) -> bool:
    """Tell whether the server answers this for every key at present."""
    return _NO_WRITES.search(words) is not None


def _is_refusal(answer: bytes) -> bool:
    return answer.startswith(_FAILED) and takes_no_writes(printable(answer))


def _parse(answer: bytes) -> tuple[Word, str]:
    name, _, text = answer.partition(b" ")
    try:
        return Word(name.decode()), printable(text)
    except ValueError:
        raise Error(f"the script answered '{printable(answer)}', which is not a status word") from None


def _sizes(word: Word, text: str) -> tuple[int, int] | None:
    source, _, target = text.partition(" ")
    if word in (Word.FAILED, Word.IGNORED) or not (_SIZE.fullmatch(source) and _SIZE.fullmatch(target)):
        return None
    return int(source), int(target)


def _outcome(source: bytes, target: bytes, answer: Answer) -> KeyOutcome:
    if isinstance(answer, bytes):
        word, text = _parse(answer)
        sizes = _sizes(word, text)
        return KeyOutcome(source, target, word, "" if sizes else text, sizes)
    word, notes = _parse_notes(answer)
    digest, reason = str(notes.pop("digest", "")), str(notes.pop("reason", ""))
    match notes.pop("source_size", None), notes.pop("target_size", None):
        # A target of another type has been measured as what it is not.
        case (int() as source_size, int() as target_size) if "target_type" not in notes:
            sizes = source_size, target_size
        case _:
            sizes = None
    return KeyOutcome(source, target, word, reason, sizes, notes, lacking_from(digest.encode()))


def _parse_notes(answer: list[object]) -> tuple[Word, dict[str, Note]]:
    name, *rest = (_note(part) for part in answer) if answer else ("",)
    word, text = _parse(str(name).encode())
    if text or len(rest) % 2:
        raise Error("the script's notes on a key are not what they should be")
    notes = {str(key): value for key, value in zip(rest[::2], rest[1::2], strict=True)}
    if _are_odd(word, notes):
        raise Error("the script's notes on a key are not what they should be")
    return word, notes


def _are_odd(word: Word, notes: dict[str, Note]) -> bool:
    """Tell whether notes lack what belongs to others, or are not of their kind."""
    lacking = ("target_type" in notes or (word is Word.EXTRA and notes)) and "source_type" not in notes
    one_sided = ("source_ttl_ms" in notes) != ("target_ttl_ms" in notes)
    return bool(lacking) or one_sided or any(not isinstance(notes.get(name, 0), int) for name in _COUNTS)


def _note(value: object) -> Note:
    if isinstance(value, bytes):
        return printable(value)
    if isinstance(value, list):
        return [_note(part) for part in value]
    if value is None or isinstance(value, int):
        return value
    raise Error("the script's notes on a key are not what they should be")


def said(answer: Answer) -> tuple[bytes, bytes]:
    """Return the word of an answer, and the text behind it; of a list two empty ones."""
    word, _, text = answer.partition(b" ") if isinstance(answer, bytes) else (b"", b"", b"")
    return word, text


KeyId = tuple[bytes, int]
"""By which a key is known again: digest of the payload, and expiry in milliseconds since 1970 or -1."""


class KeyState(NamedTuple):
    """What is known of a key. A tuple, because there are three for each pair that is copied."""

    kind: str
    at: int
    """When it expires, in milliseconds since 1970, or -1."""
    told: bytes
    """The digest of its payload; empty where the payload itself was asked for."""
    size: int
    """In bytes."""
    beside: list[Any]
    """What was asked for: the payload, and how long it was idle; contents and moments; or the number of elements."""

    @property
    def digest(self) -> bytes:
        """That of its payload."""
        return self.told or hashlib.sha1(self.beside[0], usedforsecurity=False).hexdigest().encode()

    @property
    def mark(self) -> bytes:
        """By which a script knows the payload again: a short one by itself, which costs less than its digest."""
        return self.digest if self.told or len(self.beside[0]) > LONGEST_MARK else self.beside[0]

    def expiring(self, at: int) -> KeyState:
        """Return the same, but that it expires then."""
        return self if at == self.at else self._replace(at=at)

    def equals(self, other: KeyState) -> bool:
        """Tell whether their payloads are the same."""
        return self.beside is other.beside or self.digest == other.digest

    @property
    def state(self) -> KeyId:
        """By which it is known again."""
        return self.digest, self.at


_EQUAL_FOR_EVER = CrossSlotReply.EQUAL + b" -1"
_TOLD_OF_A_KEY = 4
_BESIDE: dict[str, tuple[type, ...]] = {
    "": (),
    "payload": (bytes,),
    "idle": (bytes, int),
    "contents": (list, list),
    "size": (int,),
}
"""What follows that, by what was asked for."""
_NAMES = {kind.encode(): kind for kind in TYPES}


def equal_reply(at: int) -> bytes:
    """Return what a script answers for a key that has the payload that was given, and expires at this moment."""
    return _EQUAL_FOR_EVER if at < 0 else CrossSlotReply.EQUAL + b" %d" % at


def equal_expiry(answer: Answer) -> int | None:
    """Return when a key expires of which a script says that it has the payload that was given. Raises Error."""
    if answer == _EQUAL_FOR_EVER:
        return -1
    word, text = said(answer)
    if word != CrossSlotReply.EQUAL:
        return None
    if not _MOMENT.fullmatch(text):
        raise Error("the server does not tell about a key as it should")
    return int(text)


def key_state(answer: Answer, asked_for: str = "") -> KeyState:
    """Read what cross_slot/read.lua tells of a key, and what was asked for beside. Raises Error."""
    if isinstance(answer, list) and len(answer) >= _TOLD_OF_A_KEY:
        kind, at, told, size, *beside = answer
        is_complete = tuple(map(type, beside)) == _BESIDE[asked_for] and (told or asked_for in ("payload", "idle"))
        if (
            is_complete
            and isinstance(kind, bytes)
            and isinstance(at, int)
            and isinstance(told, bytes)
            and isinstance(size, int)
        ):
            return KeyState(_NAMES.get(kind) or printable(kind), at, told, size, beside)
    raise Error("the server does not tell about a key as it should")
