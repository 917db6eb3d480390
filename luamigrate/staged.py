"""Big keys, in chunks: copied to a staging key, compared, filled, removed, each step within the pause.

Everything happens under WATCH of source and target, and counts only if EXEC says that nobody wrote to
either meanwhile. Otherwise it is done again, a few times, and then the word is `failed: busy`.

Each public function goes through one pair: a generator that yields what came of each chunk, and returns
what came of the pair.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from luamigrate import scripts
from luamigrate.chunks import Big, Ended, Findings, Progress, contrast, contrast_both, go_on, length_of, step_for
from luamigrate.errors import Error, printable
from luamigrate.outcome import KeyOutcome, Word
from luamigrate.rules import RESERVED
from luamigrate.servers import Call, ConnectionLost, ScriptMissing, explain

ATTEMPTS = 5
"""To find a moment in which nobody writes to a big key."""

LIFETIME_MS = 60_000
"""Of a staging key, from its last chunk on: what a killed run leaves behind ends by itself."""

BIG = b"big"
"""The digest of a big partial target that can be filled: its names themselves are looked at twice."""

FILLABLE = {"": (), "sets": ("hash", "set"), "queues": ("hash", "set", "zset")}
"""Types, by what is to be filled."""

NAMES_WAITING = 100_000
"""Names that wait to be added to a big target, at most."""
NAMES_PER_CALL = 500

STRINGS = 40
"""Times what a script copies and compares of others: a string is copied as a block of memory."""

Steps = Generator[Progress, None, KeyOutcome | None]
"""Returns None where somebody wanted it to end first."""


def too_big(kind: str, size: int) -> str:
    """Say why a key fails that cannot be taken apart."""
    return f"too-big: a {kind} of {size:,} bytes cannot be taken apart; --allow-long-pause takes it whole"


class _Disturbed(Exception):
    """Somebody wrote to the source or the target, or the staging key has expired."""


def copy(big: Big, *, validate: bool = True, ignore_expiry: bool = False) -> Steps:
    """Copy where the target is absent, else compare."""
    scripts.register(big.server, "stage")
    scripts.register(big.server, "publish")
    return (yield from _undisturbed(big, lambda: _copy(big, validate=validate, ignore_expiry=ignore_expiry)))


def compare(
    big: Big, *, validate: bool = True, ignore_expiry: bool = False, sizes: bool = False, filling: str = ""
) -> Steps:
    """Say how the pair stands."""
    options = {"validate": validate, "ignore_expiry": ignore_expiry, "sizes": sizes}
    outcome = yield from _undisturbed(big, lambda: _compare(big, **options))
    return _with_digest(big, outcome, filling)


def fill(big: Big, *, filling: str, ignore_expiry: bool = False) -> Steps:
    """Copy where the target is absent; else compare, and add what two looks found missing."""
    outcome = _with_digest(big, (yield from copy(big, ignore_expiry=ignore_expiry)), filling)
    if not outcome or outcome.digest != BIG or big.digest != BIG:
        return outcome
    added = yield from _undisturbed(big, lambda: _add_what_is_missing(big))
    after = (yield from compare(big, ignore_expiry=ignore_expiry)) if added else None
    return big.outcome(Word.FILLED) if after and after.word is Word.SAME else after


def remove(big: Big, *, delete: bool) -> Steps:
    """Delete the target if it equals the source, and the source lives at least as long."""
    return (yield from _undisturbed(big, lambda: _remove(big, delete=delete)))


def _undisturbed(big: Big, attempt: Callable[[], Steps]) -> Steps:
    """Make attempts until EXEC confirms one."""
    scripts.register(big.server, "contrast")
    disturbed = 0
    while disturbed < ATTEMPTS:
        try:
            return (yield from attempt())
        except _Disturbed:
            disturbed += 1
        except Ended:
            return None
        except ConnectionLost:
            continue
        finally:
            with suppress(Error):
                big.server.call("UNWATCH").answer()
    text = f"busy: somebody wrote to it in each of {disturbed} attempts; try again when it is quieter"
    return big.outcome(Word.FAILED, text)


def _copy(big: Big, *, validate: bool, ignore_expiry: bool) -> Steps:
    _watch(big)
    source_kind, target_kind = _types(big)
    if source_kind != big.kind:
        return _replaced(big, source_kind)
    if big.second_look and big.digest != b"missing" and target_kind == "none":
        return KeyOutcome(big.source, big.target, Word.MISSING, digest=b"missing")
    if target_kind != "none":
        return (yield from _stand(big, target_kind, validate=validate, ignore_expiry=ignore_expiry))
    if big.kind == "string" and big.size > STRINGS * big.pause.capacity and not big.allow_long_pause:
        return big.outcome(Word.FAILED, too_big(big.kind, big.size))
    staging = _staging_name(big.target)
    try:
        yield from _stage(big, staging, 0.5 if validate else 1.0)
        if validate:
            findings = yield from contrast_both(big, staging, "apart", after=0.5)
            if findings.word is not Word.SAME:
                return big.outcome(Word.FAILED, f"the fresh copy is not the same: {findings.word}", findings.notes)
        published = _execute(big, lambda: scripts.publish(big.server, big.source, staging, big.target))
        match published:
            case b"published":
                return big.outcome(Word.COPIED)
            case b"gone":
                return big.outcome(Word.GONE)
            case _:
                raise _Disturbed
    finally:
        # One that has been published has another name; one that was lost with the connection expires.
        with suppress(Error):
            big.server.call("UNLINK", staging).answer()


def _compare(big: Big, *, validate: bool, ignore_expiry: bool, sizes: bool) -> Steps:
    _watch(big)
    source_kind, target_kind = _types(big)
    if source_kind != big.kind:
        return _replaced(big, source_kind)
    if target_kind == "none":
        _execute(big)
        return KeyOutcome(big.source, big.target, Word.MISSING, sizes=(length_of(big), 0) if sizes else None)
    return (yield from _stand(big, target_kind, validate=validate, ignore_expiry=ignore_expiry))


def _stand(big: Big, target_kind: str, *, validate: bool, ignore_expiry: bool) -> Steps:
    """Say how a target that is there stands to its source."""
    if not validate:
        _execute(big)
        return big.outcome(Word.EXISTS)
    if target_kind != big.kind:
        _execute(big)
        return big.unlike(Word.DIFFERS, target_kind)
    findings = yield from contrast_both(big, big.target, "" if ignore_expiry else "apart")
    _execute(big)
    return big.outcome(
        findings.word_with_expiry(ignore=ignore_expiry), notes=findings.notes_but(ignore_expiry=ignore_expiry)
    )


def _remove(big: Big, *, delete: bool) -> Steps:
    _watch(big)
    source_kind, target_kind = _types(big)
    if source_kind != big.kind:
        return _replaced(big, source_kind)
    if target_kind == "none":
        _execute(big)
        return big.outcome(Word.MISSING)
    if target_kind != big.kind:
        _execute(big)
        return big.unlike(Word.KEPT, target_kind, "differs")
    findings = yield from contrast_both(big, big.target, "sooner")
    if findings.word is not Word.SAME:
        _execute(big)
        return big.outcome(Word.KEPT, str(findings.word), findings.notes)
    if findings.expiring_apart or not findings.source_lasts:
        _execute(big)
        return big.outcome(Word.KEPT, "expiry", findings.notes_but(ignore_expiry=False))
    if not delete:
        _execute(big)
        return big.outcome(Word.SAME)
    _execute(big, lambda: big.server.call("UNLINK", big.target, once=True))
    return big.outcome(Word.REMOVED)


def _watch(big: Big) -> None:
    big.server.call("WATCH", big.source, big.target, once=True).answer()


def _types(big: Big) -> tuple[str, str]:
    calls = [big.server.call("TYPE", key, once=True) for key in (big.source, big.target)]
    source_kind, target_kind = (printable(call.answer()) for call in calls)
    return source_kind, target_kind


def _replaced(big: Big, source_kind: str) -> KeyOutcome:
    """Say what came of a source that was of another type a moment ago. Raises _Disturbed."""
    if source_kind != "none":
        raise _Disturbed
    return big.outcome(Word.GONE)


def _execute(big: Big, put: Callable[[], Call] | None = None) -> Any:
    """Do it, if nobody has written since WATCH, and return its answer. Raises _Disturbed."""
    big.server.call("MULTI", once=True)
    queued = put() if put else None
    execution = big.server.call("EXEC", once=True)
    if queued:
        queued.answer()  # what is refused here and now says why
    answers = execution.answer()
    if not isinstance(answers, list) or len(answers) != (queued is not None):
        raise _Disturbed
    if queued and isinstance(answers[0], Exception):
        problem = explain(answers[0])
        # What EXEC runs is not sent again where the scripts have been forgotten meanwhile.
        raise _Disturbed if isinstance(problem, ScriptMissing) else problem
    return answers[0] if queued else None


def _staging_name(target: bytes) -> bytes:
    """Return a name that nobody uses and that lives in the slot of the target."""
    _, brace, rest = target.partition(b"{")
    tag, end, _ = rest.partition(b"}")
    tag = tag if brace and end and tag else target
    return RESERVED + b"staging:" + secrets.token_hex(8).encode() + b":{" + tag + b"}"


def _stage(big: Big, staging: bytes, most: float) -> Iterator[Progress]:
    """Copy the source to the staging key, yielding progress up to `most`."""
    length, position, done = max(1, length_of(big)), b"0", 0
    step = step_for(big, length)
    while True:
        go_on(big)
        call = scripts.stage(
            big.server,
            (big.source, staging),
            big.pause,
            kind=big.kind,
            position=position,
            step=step,
            lifetime_ms=LIFETIME_MS,
        )
        match call.reply():
            case [bytes() as position, int() as copied, int() as largest, int() as microseconds]:
                done += copied
            case b"vanished":
                raise _Disturbed
            case _:
                raise call.odd()
        progress = Progress(min(1.0, done / length), microseconds / 1e6 or call.seconds, largest)
        yield progress.within(0.0, most)
        if position == b"0":
            return


def _with_digest(big: Big, outcome: KeyOutcome | None, filling: str) -> KeyOutcome | None:
    """Mark a partial target that differs in nothing else as one that can be filled."""
    if not outcome or outcome.word is not Word.PARTIAL or big.kind not in FILLABLE[filling]:
        return outcome
    expires_apart = "source_ttl_ms" in outcome.notes or "expiring_apart" in outcome.notes
    return outcome if expires_apart else replace(outcome, digest=BIG)


def _add_what_is_missing(big: Big) -> Steps:
    """Add what the target lacks now, and still lacks after the time to settle.

    The names wait here, a bounded number of them; each is looked at again in the moment in which it
    is added, so what is deleted or written meanwhile stays as it is.
    """
    scripts.register(big.server, "supply")
    waiting: deque[tuple[float, list[bytes]]] = deque()
    findings = Findings(big.kind)
    for chunk, progress in contrast(big, (big.source, big.target), "", findings, NAMES_WAITING):
        names = chunk["missing_names"]
        if names:
            waiting.append((time.monotonic() + big.settle, names))
        yield progress.within(0.0, 0.5)
        while sum(len(names) for _, names in waiting) >= NAMES_WAITING:
            yield from _add_oldest(big, waiting, progress.done / 2)
    while waiting:
        yield from _add_oldest(big, waiting, 0.5)
    return big.outcome(Word.FILLED)


def _add_oldest(big: Big, waiting: deque[tuple[float, list[bytes]]], done: float) -> Iterator[Progress]:
    due, names = waiting.popleft()
    while (left := due - time.monotonic()) > 0:
        go_on(big)
        time.sleep(min(0.1, left))
        yield Progress(done)
    while names:
        call = scripts.supply(
            big.server, (big.source, big.target), big.pause, kind=big.kind, names=names[:NAMES_PER_CALL]
        )
        match call.reply():
            case [int() as looked_at, int() as microseconds] if looked_at > 0:
                names = names[looked_at:]
            case b"vanished":
                return
            case _:
                raise call.odd()
        yield Progress(done, microseconds / 1e6 or call.seconds)
