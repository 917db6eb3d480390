"""What the scripts answer about pairs, read: counts of what is clean, an outcome for each key that is not."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace

from luamigrate.model.errors import Error, printable
from luamigrate.model.rules import Pairs
from luamigrate.model.status import KeyOutcome, Note, Word, lacking_from
from luamigrate.model.summary import Tally
from luamigrate.scripts.calls import Answer

_PAIRED = b"paired"
"""What extra.lua answers for a target about which there is nothing to say."""

_BIG = b"big "
"""What any script answers for a pair that is too big for it: with type and bytes."""

_MOVED = b"moved"
"""What any script answers for a pair that another node of the cluster has, or is about to have."""

_FAILED = b"failed "

_SIZE = re.compile(r"[0-9]{1,20}")

_COUNTS = ("missing", "additional", "contradicting", "expiring_apart")
"""Notes that are numbers."""

_NO_WRITES = re.compile(r"\b(READONLY|MISCONF|NOREPLICAS)\b|\bcluster is down\b")


@dataclass
class Reading:
    """What came of some pairs."""

    answered: int
    """How many of them, from the first on."""
    tally: Tally = field(default_factory=Tally)
    """Counts of the clean ones."""
    outcomes: list[KeyOutcome] = field(default_factory=list)
    """What came of the others, not counted yet; with `every_key` of the clean ones too."""
    big: list[tuple[int, str, int]] = field(default_factory=list)
    """Pairs that have to be taken apart: index, type, bytes."""
    moved: list[int] = field(default_factory=list)
    """Pairs that are elsewhere now: indexes."""
    refused: list[int] = field(default_factory=list)
    """Pairs that the server refused, as it would any other at present: indexes."""
    refusal: str = ""
    """Its words."""


def read(pairs: Pairs, answers: list[Answer], unclean: frozenset[Word], *, every_key: bool, first: bool) -> Reading:
    """Read what was answered for the first pairs, or for all.

    Only the `first` look at a pair is measured. Raises Error where the answers are none.
    """
    if not 1 <= len(answers) <= len(pairs):
        raise Error(f"the script answered for {len(answers)} of {len(pairs)} keys")
    reading = Reading(len(answers))
    # A batch holds few different answers; those with notes are lists, each of its own.
    words = [answer for answer in answers if isinstance(answer, bytes)]
    single = {
        answer
        for answer, times in Counter(words).items()
        if not _is_counted(reading.tally, answer, times, unclean, first=first, has_star=pairs.rule.source.has_star)
        or (every_key and answer != _PAIRED)
    }
    if single or len(words) < len(answers):
        for index, answer in enumerate(answers):
            if isinstance(answer, list) or answer in single:
                _read_one(reading, pairs, index, answer, unclean)
    return reading


def one(outcome: KeyOutcome, unclean: frozenset[Word], *, every_key: bool) -> Reading:
    """Read what came of a pair that no script has answered for alone."""
    reading, clean = Reading(1), outcome.word not in unclean
    if clean:
        reading.tally.count(outcome.word, outcome.text)
        reading.tally.measure(outcome.sizes)
    if every_key or not clean:
        reading.outcomes.append(replace(outcome, clean=clean))
    return reading


def takes_no_writes(words: str) -> bool:
    """Tell whether the server answers this for every key at present."""
    return _NO_WRITES.search(words) is not None


def _is_refusal(answer: bytes) -> bool:
    return answer.startswith(_FAILED) and takes_no_writes(printable(answer))


def _is_counted(
    tally: Tally, answer: bytes, times: int, unclean: frozenset[Word], *, first: bool, has_star: bool
) -> bool:
    """Count an answer, unless each pair that has it needs an outcome of its own."""
    if answer == _PAIRED:
        return True
    if answer == _MOVED or answer.startswith(_BIG) or _is_refusal(answer):
        return False
    outcome = _outcome(b"", b"", answer, unclean)
    if outcome.word is Word.GONE and first and not has_star:
        return True  # Nothing was found here: the name comes from the rule.
    if outcome.clean:
        tally.count(outcome.word, outcome.text, times)
        tally.measure(outcome.sizes if first else None, times)
    return outcome.clean


def _read_one(reading: Reading, pairs: Pairs, index: int, answer: Answer, unclean: frozenset[Word]) -> None:
    if isinstance(answer, bytes) and answer.startswith(_BIG):
        kind, _, size = printable(answer.removeprefix(_BIG)).partition(" ")
        if not _SIZE.fullmatch(size):
            raise Error(f"the script answered '{printable(answer)}', which has no size")
        reading.big.append((index, kind, int(size)))
    elif answer == _MOVED:
        reading.moved.append(index)
    elif isinstance(answer, bytes) and _is_refusal(answer):
        reading.refused.append(index)
        reading.refusal = printable(answer.removeprefix(_FAILED))
    else:
        reading.outcomes.append(_outcome(pairs.sources[index], pairs.targets[index], answer, unclean))


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


def _outcome(source: bytes, target: bytes, answer: Answer, unclean: frozenset[Word]) -> KeyOutcome:
    if isinstance(answer, bytes):
        word, text = _parse(answer)
        sizes = _sizes(word, text)
        return KeyOutcome(source, target, word, "" if sizes else text, sizes, clean=word not in unclean)
    word, notes = _parse_notes(answer)
    digest, reason = str(notes.pop("digest", "")), str(notes.pop("reason", ""))
    match notes.pop("source_size", None), notes.pop("target_size", None):
        case (int() as source_size, int() as target_size):
            sizes = source_size, target_size
        case _:
            sizes = None
    return KeyOutcome(
        source, target, word, reason, sizes, notes, lacking_from(digest.encode()), clean=word not in unclean
    )


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
    apart = ("source_ttl_ms" in notes) != ("target_ttl_ms" in notes)
    return bool(lacking) or apart or any(not isinstance(notes.get(name, 0), int) for name in _COUNTS)


def _note(value: object) -> Note:
    if isinstance(value, bytes):
        return printable(value)
    if isinstance(value, list):
        return [_note(part) for part in value]
    if value is None or isinstance(value, int):
        return value
    raise Error("the script's notes on a key are not what they should be")
