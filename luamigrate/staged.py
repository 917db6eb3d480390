"""Big keys, in chunks: copied to a staging key, compared, filled, removed, each step within the pause.

Everything happens under WATCH of source and target, and counts only if EXEC says that nobody wrote to
either meanwhile. Otherwise it is done again, a few times, and then the word is `failed: busy`.

Each public function goes through one pair: a generator that yields after each chunk the part that is
done, and how long the chunk held the server, in seconds; and that returns what came of the pair.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from luamigrate import scripts
from luamigrate.errors import Error, printable
from luamigrate.outcome import KeyOutcome, Note, Notes, Word
from luamigrate.pace import Pause
from luamigrate.rules import RESERVED
from luamigrate.servers import ConnectionLost, Server

ATTEMPTS = 5
"""To find a moment in which nobody writes to a big key."""

LIFETIME_MS = 60_000
"""Of a staging key, from its last chunk on: what a killed run leaves behind ends by itself."""

KINDS = ("hash", "set", "zset", "list", "string")
"""Types that can be taken apart."""

LENGTH = {"hash": "HLEN", "set": "SCARD", "zset": "ZCARD", "list": "LLEN", "string": "STRLEN"}

BIG = b"big"
"""The digest of a big partial target that can be filled: its names themselves are looked at twice."""

FILLABLE = {"": (), "sets": ("hash", "set"), "queues": ("hash", "set", "zset")}
"""Types, by what is to be filled."""

NAMES_SHOWN = 5
NAMES_WAITING = 100_000
"""Names that wait to be added to a big target, at most."""
NAMES_PER_CALL = 500

STEPS_PER_CHUNK = 8
"""Readings of one chunk: between two of them the script looks at its time."""
LARGEST_STEP = 1000
BYTES_OF_STRING = 64 * 1024

STRINGS = 40
"""Times what a script copies and compares of others: a string is copied as a block of memory."""

EXPIRY_TOLERANCE_MS = 1000
"""As in lua/shared/moments.lua."""

Progress = tuple[float, float]
"""The part that is done, 0 to 1, and how long the last chunk held the server, in seconds."""

Steps = Generator[Progress, None, KeyOutcome | None]
"""Returns None where somebody wanted it to end first."""


def too_big(kind: str, size: int) -> str:
    """Say why a key fails that cannot be taken apart."""
    return f"too-big: a {kind} of {size:,} bytes cannot be taken apart; --allow-long-pause takes it whole"


class _Disturbed(Exception):
    """Somebody wrote to the source or the target, or the staging key has expired."""


class _Ended(Exception):
    """Somebody wants it to end."""


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

    def outcome(self, word: Word, text: str = "", notes: Notes | None = None) -> KeyOutcome:
        """Say what came of it."""
        return KeyOutcome(self.source, self.target, word, text, notes=notes or {})

    def unlike(self, word: Word, target_kind: str, text: str = "") -> KeyOutcome:
        """Say what came of it where the target is of another type."""
        return self.outcome(word, text, {"source_type": self.kind, "target_type": target_kind})


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
        except _Ended:
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
            findings = yield from _contrast_both(big, staging, "apart", after=0.5)
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
        return KeyOutcome(big.source, big.target, Word.MISSING, sizes=(_length(big), 0) if sizes else None)
    return (yield from _stand(big, target_kind, validate=validate, ignore_expiry=ignore_expiry))


def _stand(big: Big, target_kind: str, *, validate: bool, ignore_expiry: bool) -> Steps:
    """Say how a target that is there stands to its source."""
    if not validate:
        _execute(big)
        return big.outcome(Word.EXISTS)
    if target_kind != big.kind:
        _execute(big)
        return big.unlike(Word.DIFFERS, target_kind)
    findings = yield from _contrast_both(big, big.target, "" if ignore_expiry else "apart")
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
    findings = yield from _contrast_both(big, big.target, "sooner")
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


def _execute(big: Big, put: Callable[[], Any] | None = None) -> Any:
    """Do it, if nobody has written since WATCH, and return its answer. Raises _Disturbed."""
    big.server.call("MULTI", once=True)
    if put:
        put()
    answers = big.server.call("EXEC", once=True).answer()
    if not isinstance(answers, list) or (put and len(answers) != 1):
        raise _Disturbed
    if put and isinstance(answers[0], Exception):
        # As when the scripts have been forgotten meanwhile: what EXEC runs is not sent again.
        raise _Disturbed
    return answers[0] if put else None


def _length(big: Big) -> int:
    length = big.server.call(LENGTH[big.kind], big.source).answer()
    return length if isinstance(length, int) else 0


def _staging_name(target: bytes) -> bytes:
    """Return a name that nobody uses and that lives in the slot of the target."""
    _, brace, rest = target.partition(b"{")
    tag, end, _ = rest.partition(b"}")
    tag = tag if brace and end and tag else target
    return RESERVED + b"staging:" + secrets.token_hex(8).encode() + b":{" + tag + b"}"


def _step(big: Big, length: int) -> int:
    """How many elements to read at once, so that a chunk has some steps."""
    if big.kind == "string":
        return BYTES_OF_STRING
    per_element = max(1, big.size // max(1, length))
    return max(1, min(LARGEST_STEP, big.pause.capacity // STEPS_PER_CHUNK // per_element))


def _stage(big: Big, staging: bytes, most: float) -> Iterator[Progress]:
    """Copy the source to the staging key, yielding progress up to `most`."""
    length, position, done = max(1, _length(big)), b"0", 0
    step = _step(big, length)
    while True:
        _go_on(big)
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
            case [bytes() as position, int() as copied, int() as microseconds]:
                done += copied
            case b"vanished":
                raise _Disturbed
            case _:
                raise call.odd()
        yield min(1.0, done / length) * most, microseconds / 1e6 or call.seconds
        if position == b"0":
            return


def _go_on(big: Big) -> None:
    if big.stop():
        raise _Ended


_VALUES = ("missing", "additional", "contradicting")
_FOUND = (*_VALUES, "expiring_apart")


@dataclass
class _Findings:
    """What holding a source against another key has found."""

    kind: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_FOUND, 0))
    names: dict[str, list[Note]] = field(default_factory=lambda: {what: [] for what in _FOUND})
    lengths: tuple[int, int] = (0, 0)
    exact: bool = True
    """Whether the lengths count what readers see."""
    ttls: tuple[int, int] = (-1, -1)
    """Milliseconds that source and target have left; -1 for never."""

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
        if self.kind in ("list", "string"):
            notes: dict[str, Note] = {"source_size": self.lengths[0], "target_size": self.lengths[1]}
            first = self.names["contradicting"]
            if self.kind == "list":
                notes["first_difference"] = int(str(first[0])) if first else min(self.lengths)
            return notes
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


def _contrast_both(big: Big, other: bytes, expiries: str, after: float = 0.0) -> Generator[Progress, None, _Findings]:
    """Hold the source against another key, and that one against the source where it may have more."""
    findings = _Findings(big.kind)
    half = (1.0 - after) / 2
    for _chunk, progress, seconds in _contrast(big, (big.source, other), expiries, findings):
        yield after + progress * half, seconds
    # Where all is there and the lengths are equal, there can be no more.
    complete = findings.exact and not findings.counts["missing"] and findings.lengths[0] == findings.lengths[1]
    if not complete and big.kind in ("hash", "set", "zset"):
        backwards = _Findings(big.kind)
        for _chunk, progress, seconds in _contrast(big, (other, big.source), "", backwards):
            yield after + half + progress * half, seconds
        findings.counts["additional"] = backwards.counts["missing"]
        findings.names["additional"] = backwards.names["missing"]
    return findings


_Chunk = dict[str, Any]


def _contrast(
    big: Big, keys: tuple[bytes, bytes], expiries: str, findings: _Findings, names: int = NAMES_SHOWN
) -> Iterator[tuple[_Chunk, float, float]]:
    """Go through the first key, chunk by chunk, into the findings."""
    position, done, step = b"0", 0, 0
    while True:
        _go_on(big)
        step = step or _step(big, max(1, _length(big)))
        call = scripts.contrast(
            big.server, keys, big.pause, kind=big.kind, position=position, step=step, expiries=expiries, names=names
        )
        chunk = _parse(call)
        position, seconds = chunk["position"], chunk["microseconds"] / 1e6 or call.seconds
        done += chunk["visited"]
        findings.lengths, findings.exact = tuple(chunk["lengths"]), findings.exact and bool(chunk["exact"])
        findings.ttls = tuple(chunk["ttls"])
        for what in ("missing", "contradicting", "expiring_apart"):
            findings.add(what, chunk[what], chunk[f"{what}_names"])
        yield chunk, min(1.0, done / max(1, findings.lengths[0])), seconds
        if position == b"0":
            return


def _parse(call: scripts.ScriptCall) -> _Chunk:
    reply = call.reply()
    if not isinstance(reply, list) or len(reply) % 2 or not all(isinstance(name, bytes) for name in reply[::2]):
        raise call.odd()
    chunk = {name.decode("ascii", "replace"): value for name, value in zip(reply[::2], reply[1::2], strict=True)}
    numbers = ("visited", "microseconds", "exact", "missing", "contradicting", "expiring_apart")
    lists = ("lengths", "ttls", "missing_names", "contradicting_names", "expiring_apart_names")
    if not (
        isinstance(chunk.get("position"), bytes)
        and all(isinstance(chunk.get(name), int) for name in numbers)
        and all(isinstance(chunk.get(name), list) for name in lists)
    ):
        raise call.odd()
    return chunk


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
    findings = _Findings(big.kind)
    for chunk, progress, seconds in _contrast(big, (big.source, big.target), "", findings, NAMES_WAITING):
        names = chunk["missing_names"]
        if names:
            waiting.append((time.monotonic() + big.settle, names))
        yield progress / 2, seconds
        while sum(len(names) for _, names in waiting) >= NAMES_WAITING:
            yield from _add_oldest(big, waiting, progress / 2)
    while waiting:
        yield from _add_oldest(big, waiting, 0.5)
    return big.outcome(Word.FILLED)


def _add_oldest(big: Big, waiting: deque[tuple[float, list[bytes]]], progress: float) -> Iterator[Progress]:
    due, names = waiting.popleft()
    while (left := due - time.monotonic()) > 0:
        _go_on(big)
        time.sleep(min(0.1, left))
        yield progress, 0.0
    while names:
        call = scripts.supply(
            big.server, (big.source, big.target), big.pause, kind=big.kind, names=names[:NAMES_PER_CALL]
        )
        match call.reply():
            case [int() as done, int() as microseconds] if done > 0:
                names = names[done:]
            case b"vanished":
                return
            case _:
                raise call.odd()
        yield progress, microseconds / 1e6 or call.seconds
