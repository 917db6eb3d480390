"""What the scripts answer about pairs, read: counts of what is clean, an outcome for each key that is not."""

from __future__ import annotations

from collections import Counter

from luamigrate.errors import Error, printable
from luamigrate.outcome import KeyOutcome, Note, Tally, Word
from luamigrate.rules import Pairs
from luamigrate.scripts import Answer

_PAIRED = b"paired"
"""What extra.lua answers for a target about which there is nothing to say."""


def read(
    pairs: Pairs, answers: list[Answer], unclean: frozenset[Word], *, every_key: bool, first: bool
) -> tuple[Tally, list[KeyOutcome]]:
    """Return the counts of the clean pairs, and an outcome, not counted yet, for each of the others.

    With `every_key` there is an outcome for each of the clean ones too. Only the `first` look at a
    pair is measured. Raises Error where the answers are none.
    """
    if len(answers) != len(pairs.sources):
        raise Error(f"the script answered for {len(answers)} of {len(pairs.sources)} keys")
    tally = Tally()
    single = set()
    # A batch holds few different answers; those with notes are lists, each of its own.
    words = [answer for answer in answers if isinstance(answer, bytes)]
    for answer, times in Counter(words).items():
        if answer == _PAIRED:
            continue
        word, text = _parse(answer)
        sizes = _sizes(word, text)
        if word is Word.GONE and first and not pairs.rule.source.has_star:
            continue  # Nothing was found here: the name comes from the rule.
        if word not in unclean:
            tally.count(word, text, times)
            if first:
                tally.measure(sizes, times)
        if every_key or word in unclean:
            single.add(answer)
    if not single and len(words) == len(answers):
        return tally, []
    outcomes = [
        _outcome(source, target, answer, unclean)
        for source, target, answer in zip(pairs.sources, pairs.targets, answers, strict=True)
        if isinstance(answer, list) or answer in single
    ]
    return tally, outcomes


def _parse(answer: bytes) -> tuple[Word, str]:
    name, _, text = answer.partition(b" ")
    try:
        return Word(name.decode()), printable(text)
    except ValueError:
        raise Error(f"the script answered '{printable(answer)}', which is not a status word") from None


def _sizes(word: Word, text: str) -> tuple[int, int] | None:
    source, _, target = text.partition(" ")
    if word in (Word.FAILED, Word.IGNORED) or not (source.isdecimal() and target.isdecimal()):
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
    return KeyOutcome(source, target, word, reason, sizes, notes, digest.encode(), clean=word not in unclean)


def _parse_notes(answer: list[object]) -> tuple[Word, dict[str, Note]]:
    name, *rest = (_note(part) for part in answer) if answer else ("",)
    word, text = _parse(str(name).encode())
    if text or len(rest) % 2:
        raise Error("the script's notes on a key are not what they should be")
    return word, {str(key): value for key, value in zip(rest[::2], rest[1::2], strict=True)}


def _note(value: object) -> Note:
    if isinstance(value, bytes):
        return printable(value)
    if isinstance(value, list):
        return [_note(part) for part in value]
    if value is None or isinstance(value, int):
        return value
    raise Error("the script's notes on a key are not what they should be")
