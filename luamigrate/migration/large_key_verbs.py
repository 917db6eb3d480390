"""Large keys, in chunks: copied to a staging key, mirrored, compared, filled, removed, each step within the pause.

Everything happens under WATCH of source and target: see watch.py. Each public function takes one pair: it yields the
progress of each chunk, and returns the outcome.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial

from luamigrate.migration.chunk_diff import ChunkDiff, compare_in_chunks, diff_both_ways
from luamigrate.migration.chunks import (
    KINDS,
    LargePair,
    Progress,
    Stopping,
    Vanished,
    length_of,
    publish,
    raise_if_stopped,
    stage_chunk,
    step_for,
    supply,
    unlink_target,
)
from luamigrate.migration.watch import Act, Attempt, Disturbed, LargeSteps, reconnecting, undisturbed
from luamigrate.model.comparison import Comparison, Filling
from luamigrate.model.errors import Error
from luamigrate.model.status import KeyOutcome, LargePartial, TargetAbsent, Word
from luamigrate.scripts import calls, chunk_replies, library
from luamigrate.scripts.calls import Expiries

LIFETIME_MS = 60_000
"""How long a staging key lives on after its last chunk, so that what a killed run leaves behind ends by itself."""

NAMES_WAITING = 100_000
"""Names that wait to be added to a large target, at most."""
NAMES_PER_CALL = 500

SHARE_BESIDE_OTHERS = 0.25
"""Of a script's pause, for a chunk for which others wait that are to be mirrored at once."""

GONE = -2
"""The expiry of what is not there."""

STRINGS = 40
"""Times what a script copies and compares of others: a string is copied as a block of memory."""


def too_big(pair: LargePair) -> str:
    """Say why a key fails that cannot be copied in chunks."""
    return f"too-big: a {pair.kind} of {pair.size:,} bytes cannot go in chunks; --allow-long-pause takes it whole"


def copy(pair: LargePair, comparison: Comparison) -> LargeSteps:
    """Copy where the target is absent, else compare."""
    return (yield from _staging(pair, lambda target_kind: _copy(pair, target_kind, comparison)))


def mirror(pair: LargePair, may_replace: Callable[[], bool]) -> LargeSteps:
    """Make the target what the source is, to the millisecond; one that may not be replaced is `foreign` unless it is.

    Raises Replaced, and Unheld where the lease of the pair is not ours any more.
    """
    if refusal := _cannot_be_copied(pair):
        return refusal
    gentle = replace(pair, pause=pair.pause.share(SHARE_BESIDE_OTHERS))
    return (yield from _staging(gentle, lambda target_kind: _mirror(gentle, target_kind, may_replace)))


def _staging(pair: LargePair, attempt: Callable[[str], Attempt]) -> LargeSteps:
    """Make attempts that may leave a staging key, and leave none."""
    library.register(pair.target_node, "chunk/append" if pair.cross_slot else "chunk/stage")
    try:
        return (yield from undisturbed(pair, attempt))
    finally:
        # One that has been published has another name; one that cannot be removed now expires.
        with suppress(Error):
            pair.staging_key.call("UNLINK", writes=True)


def compare(pair: LargePair, comparison: Comparison) -> LargeSteps:
    """Compare and write nothing; where sizes are wanted, tell what a copy would do."""
    outcome = yield from undisturbed(pair, lambda target_kind: _compare(pair, target_kind, comparison))
    return _fillable(pair, outcome, comparison.filling)


def fill(pair: LargePair, comparison: Comparison) -> LargeSteps:
    """Copy where the target is absent; else compare, and add what two checks found missing."""
    outcome = _fillable(pair, (yield from copy(pair, comparison)), comparison.filling)
    if not outcome or outcome.lacking != LargePartial() or pair.lacking != LargePartial():
        return outcome
    try:
        yield from reconnecting(pair, lambda: _add_what_is_missing(pair))
    except Stopping:
        return None
    after = yield from compare(pair, replace(comparison, filling=Filling.NOTHING))
    return pair.outcome(Word.FILLED) if after and after.word is Word.SAME else after


def remove(pair: LargePair, *, delete: bool) -> LargeSteps:
    """Delete the target if it equals the source, and the source lives at least as long."""
    return (yield from undisturbed(pair, lambda target_kind: _remove(pair, target_kind, delete=delete)))


def _expiry(pair: LargePair) -> int:
    """Return when the source expires, in milliseconds since 1970."""
    call = calls.chunk_read(
        pair.source_node, pair.source, replace(pair.pause, capacity=1), kind=pair.kind, position=b"0", step=1
    )
    return chunk_replies.read_chunk(call).expiry


def _copy(pair: LargePair, target_kind: str, comparison: Comparison) -> Attempt:
    if pair.is_recheck and pair.lacking != TargetAbsent() and target_kind == "none":
        return KeyOutcome(pair.source, pair.target, Word.MISSING, lacking=TargetAbsent()), None
    if target_kind != "none":
        return (yield from _stand(pair, target_kind, comparison)), None
    if refusal := _cannot_be_copied(pair):
        return refusal, None
    return (yield from _make(pair, validate=comparison.validate))


def _make(pair: LargePair, *, validate: bool) -> Attempt:
    """Make a staging key of the source; it is to become the target."""
    pair.staging_key.call("UNLINK", writes=True)
    if not (yield from _stage(pair, 0.5 if validate else 1.0)):
        return pair.outcome(Word.GONE), None  # all its fields have expired
    if validate:
        diff = yield from diff_both_ways(pair, pair.staging_key, Expiries.DIFFERENT, after=0.5, lifetime_ms=LIFETIME_MS)
        if diff.other_is_gone:
            raise Disturbed
        if diff.word is not Word.SAME or diff.expiring_apart:
            notes = diff.notes_but(ignore_expiry=True)
            return pair.outcome(Word.FAILED, f"the fresh copy is not the same: {diff.word}", notes), None
    library.register(pair.target_node, "chunk/publish")
    expires_at = _expiry(pair) if pair.cross_slot else None
    if expires_at == GONE:
        return pair.outcome(Word.GONE), None
    return pair.outcome(Word.COPIED), Act(partial(publish, pair, expires_at), makes=True)


def _mirror(pair: LargePair, target_kind: str, may_replace: Callable[[], bool]) -> Attempt:
    if target_kind == pair.kind:
        diff = yield from diff_both_ways(pair, pair.target_key, Expiries.EXACT, only_whether=True)
        if diff.is_gone:
            return pair.outcome(Word.GONE), None
        if diff.word_with_expiry(ignore=False) is Word.SAME:
            return pair.outcome(Word.SAME), None
    if target_kind != "none" and not may_replace():
        return pair.outcome(Word.FOREIGN), None
    outcome, act = yield from _make(pair, validate=True)
    # Somebody may have been told of as its writer meanwhile.
    if act and target_kind != "none" and not may_replace():
        raise Disturbed
    return outcome, act


def _compare(pair: LargePair, target_kind: str, comparison: Comparison) -> Attempt:
    if target_kind != "none":
        return (yield from _stand(pair, target_kind, comparison)), None
    refusal = _cannot_be_copied(pair) if comparison.sizes else None
    return refusal or pair.sized(Word.MISSING, (length_of(pair), 0) if comparison.sizes else None), None


def _stand(pair: LargePair, target_kind: str, comparison: Comparison) -> Generator[Progress, None, KeyOutcome]:
    """Return how a target that is there compares to its source."""
    if not comparison.validate:
        return pair.outcome(Word.EXISTS)
    if target_kind != pair.kind:
        return pair.unlike(Word.DIFFERS, target_kind)
    if pair.kind not in KINDS:
        return pair.outcome(Word.FAILED, too_big(pair))
    ignore_expiry = comparison.ignore_expiry
    diff = yield from diff_both_ways(pair, pair.target_key, Expiries.NONE if ignore_expiry else Expiries.DIFFERENT)
    if diff.is_gone:
        return pair.outcome(Word.GONE)
    word, notes = diff.word_with_expiry(ignore=ignore_expiry), diff.notes_but(ignore_expiry=ignore_expiry)
    return pair.sized(word, diff.lengths if comparison.sizes or diff.tells_sizes else None, notes)


def _remove(pair: LargePair, target_kind: str, *, delete: bool) -> Attempt:
    if target_kind == "none":
        return pair.outcome(Word.MISSING), None
    if target_kind != pair.kind:
        return pair.unlike(Word.KEPT, target_kind, "differs"), None
    if pair.kind not in KINDS:
        return pair.outcome(Word.FAILED, too_big(pair)), None
    diff = yield from diff_both_ways(pair, pair.target_key, Expiries.SOONER)
    if diff.is_gone:
        return pair.outcome(Word.GONE), None
    if diff.word is not Word.SAME:
        lengths = diff.lengths if diff.tells_sizes else None
        return replace(pair.sized(Word.KEPT, lengths, diff.notes), text=str(diff.word)), None
    if diff.expiring_apart or not diff.source_lasts:
        return pair.outcome(Word.KEPT, "expiry", diff.notes_but(ignore_expiry=False)), None
    if not delete:
        return pair.outcome(Word.SAME), None
    if pair.spans_databases:
        library.register(pair.target_node, "in_database")
    return pair.outcome(Word.REMOVED), Act(partial(unlink_target, pair), makes=False)


def _cannot_be_copied(pair: LargePair) -> KeyOutcome | None:
    if pair.kind not in KINDS:
        return pair.outcome(Word.FAILED, too_big(pair))
    if (
        pair.kind == "string"
        and not pair.cross_slot
        and pair.size > STRINGS * pair.pause.capacity
        and not pair.allow_long_pause
    ):
        return pair.outcome(Word.FAILED, too_big(pair))
    return None


def _stage(pair: LargePair, most: float) -> Generator[Progress, None, int]:
    """Copy the source to the staging key, yielding progress up to `most`; return how many elements there were."""
    length, position, done = max(1, length_of(pair)), b"0", 0
    step = step_for(pair, length)
    while True:
        raise_if_stopped(pair)
        try:
            position, copied, progress = stage_chunk(pair, position, step, LIFETIME_MS)
        except Vanished:
            raise Disturbed from None
        done += copied
        yield replace(progress, done=min(1.0, done / length)).within(0.0, most)
        if position == b"0":
            return done


def _fillable(pair: LargePair, outcome: KeyOutcome | None, filling: Filling) -> KeyOutcome | None:
    """Mark a partial target that differs in nothing else as one that can be filled."""
    if not outcome or outcome.word is not Word.PARTIAL or not filling.covers(pair.kind):
        return outcome
    expiries_differ = "source_ttl_ms" in outcome.notes or "expiring_apart" in outcome.notes
    return outcome if expiries_differ else replace(outcome, lacking=LargePartial())


def _add_what_is_missing(pair: LargePair) -> Generator[Progress, None, None]:
    """Add what the target lacks now, and still lacks after the time to settle.

    The names wait here, a bounded number of them; each is compared again in the moment in which it
    is added, so what is deleted or written meanwhile stays as it is.
    """
    library.register(pair.target_node, "chunk/add_fields")
    waiting: deque[tuple[float, list[bytes]]] = deque()
    diff = ChunkDiff(pair.kind)
    keys = pair.source_key, pair.target_key
    for chunk, progress in compare_in_chunks(pair, keys, Expiries.NONE, diff, NAMES_WAITING):
        names = chunk.names["missing"]
        if names:
            waiting.append((time.monotonic() + pair.settle, names))
        yield progress.within(0.0, 0.5)
        while sum(len(names) for _, names in waiting) >= NAMES_WAITING:
            yield from _add_oldest(pair, waiting, progress.done / 2)
    while waiting:
        yield from _add_oldest(pair, waiting, 0.5)


def _add_oldest(pair: LargePair, waiting: deque[tuple[float, list[bytes]]], done: float) -> Iterator[Progress]:
    due, names = waiting.popleft()
    while (left := due - time.monotonic()) > 0:
        raise_if_stopped(pair)
        time.sleep(min(0.1, left))
        yield Progress(done)
    while names:
        try:
            tried, seconds = supply(pair, names[:NAMES_PER_CALL])
        except Vanished:
            return
        names = names[tried:]
        yield Progress(done, seconds)
