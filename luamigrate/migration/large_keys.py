"""Big keys, in chunks: copied to a staging key, compared, filled, removed, each step within the pause.

Everything happens under WATCH of source and target, and counts only if EXEC says that nobody wrote to
either meanwhile. Otherwise it is done again, a few times, and then the word is `failed: busy`.

Each public function goes through one pair: a generator that yields what came of each chunk, and returns
what came of the pair.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from luamigrate.migration.chunk_diff import Findings, contrast, contrast_both
from luamigrate.migration.chunks import (
    KINDS,
    Big,
    Ended,
    Progress,
    Vanished,
    go_on,
    length_of,
    publish,
    stage_chunk,
    step_for,
    supply,
)
from luamigrate.model.errors import Error, printable
from luamigrate.model.status import KeyOutcome, Word
from luamigrate.scripts import calls, library, replies
from luamigrate.scripts.calls import Expiries
from luamigrate.scripts.replies import ChunkReply
from luamigrate.server.connection import Call, Server
from luamigrate.server.errors import Answered, ConnectionLost, ScriptMissing, explain

ATTEMPTS = 5
"""To find a moment in which nobody writes to a big key."""

RECONNECTIONS = 20
"""In the middle of one key."""

LIFETIME_MS = 60_000
"""Of a staging key, from its last chunk on: what a killed run leaves behind ends by itself."""

BIG = b"big"
"""The digest of a big partial target that can be filled: its names themselves are looked at twice."""

FILLABLE = {"": (), "sets": ("hash", "set"), "queues": ("hash", "set", "zset")}
"""Types, by what is to be filled."""

NAMES_WAITING = 100_000
"""Names that wait to be added to a big target, at most."""
NAMES_PER_CALL = 500

GONE = -2
"""The expiry of what is not there."""

STRINGS = 40
"""Times what a script copies and compares of others: a string is copied as a block of memory."""

Steps = Generator[Progress, None, KeyOutcome | None]
"""Returns None where somebody wanted it to end first."""


def too_big(big: Big) -> str:
    """Say why a key fails that cannot be taken apart."""
    return f"too-big: a {big.kind} of {big.size:,} bytes cannot be taken apart; --allow-long-pause takes it whole"


class Replaced(Exception):
    """The source is of another type now: it is to be looked at as any other."""


class _Disturbed(Exception):
    """Somebody wrote to the source or the target, or the staging key has expired."""


def copy(big: Big, *, validate: bool = True, ignore_expiry: bool = False) -> Steps:
    """Copy where the target is absent, else compare."""
    library.register(big.target_server, "chunk/append" if big.across else "chunk/stage")
    try:
        return (
            yield from _undisturbed(
                big, lambda target_kind: _copy(big, target_kind, validate=validate, ignore_expiry=ignore_expiry)
            )
        )
    finally:
        # One that has been published has another name; one that cannot be removed now expires.
        with suppress(Error):
            big.target_server.call("UNLINK", big.staging).answer()


def compare(
    big: Big, *, validate: bool = True, ignore_expiry: bool = False, sizes: bool = False, filling: str = ""
) -> Steps:
    """Say how the pair stands; with `sizes`, as the dry run of a copy would say it."""
    options = {"validate": validate, "ignore_expiry": ignore_expiry, "sizes": sizes}
    outcome = yield from _undisturbed(big, lambda target_kind: _compare(big, target_kind, **options))
    return _with_digest(big, outcome, filling)


def fill(big: Big, *, filling: str, ignore_expiry: bool = False) -> Steps:
    """Copy where the target is absent; else compare, and add what two looks found missing."""
    outcome = _with_digest(big, (yield from copy(big, ignore_expiry=ignore_expiry)), filling)
    if not outcome or outcome.digest != BIG or big.digest != BIG:
        return outcome
    try:
        yield from _connected(big, lambda: _add_what_is_missing(big))
    except Ended:
        return None
    after = yield from compare(big, ignore_expiry=ignore_expiry)
    return big.outcome(Word.FILLED) if after and after.word is Word.SAME else after


def remove(big: Big, *, delete: bool) -> Steps:
    """Delete the target if it equals the source, and the source lives at least as long."""
    return (yield from _undisturbed(big, lambda target_kind: _remove(big, target_kind, delete=delete)))


@dataclass(frozen=True, slots=True)
class Act:
    """What is done to the target, if nobody has written to the pair meanwhile."""

    call: Callable[[], Call]
    makes: bool
    """Whether it makes the target, which must then have been made of a source that is still the same."""


Decision = tuple[KeyOutcome, Act | None]
"""What comes of a pair if nobody has written to it meanwhile, and what is to be done then."""

Attempt = Generator[Progress, None, Decision]

_Result = TypeVar("_Result")


def _undisturbed(big: Big, attempt: Callable[[str], Attempt]) -> Steps:
    """Make attempts until EXEC confirms one."""
    for server, name in (
        ((big.server, "chunk/read"), (big.target_server, "chunk/compare_elements")) if big.across else ()
    ):
        library.register(server, name)
    disturbed = 0
    while disturbed < ATTEMPTS:
        try:
            return (yield from _connected(big, lambda: _watched(big, attempt)))
        except _Disturbed:
            disturbed += 1
        except Ended:
            return None
        finally:
            for server in (big.server, big.target_server):
                with suppress(Error):
                    server.call("UNWATCH").answer()
    text = f"busy: somebody wrote to it in each of {disturbed} attempts; try again when it is quieter"
    return big.outcome(Word.FAILED, text)


def _connected(big: Big, work: Callable[[], Generator[Progress, None, _Result]]) -> Generator[Progress, None, _Result]:
    """Do it again where the connection is lost in between, and made again."""
    for _ in range(RECONNECTIONS):
        try:
            return (yield from work())
        except ConnectionLost:
            if big.server.is_lost or big.target_server.is_lost:
                raise
    raise Answered(f"busy: the connection was lost {RECONNECTIONS} times in the middle of this key")


def _watched(big: Big, attempt: Callable[[str], Attempt]) -> Generator[Progress, None, KeyOutcome]:
    """Make an attempt, given the target's type, that counts only if nobody writes meanwhile.

    Raises _Disturbed where somebody does, Replaced where the source is of another type by now.
    """
    watched = _watch(big)
    try:
        source_kind, target_kind = _types(big)
        if source_kind not in (big.kind, "none"):
            raise Replaced
        gone = source_kind == "none"
        outcome, act = (big.outcome(Word.GONE), None) if gone else (yield from attempt(target_kind))
    except Answered:
        # It may come from what somebody wrote, such as another type. Else it is as it says.
        watched.confirm()
        raise
    match watched.execute(act):
        case ChunkReply.EXISTS | ChunkReply.VANISHED:
            raise _Disturbed
        case ChunkReply.GONE:
            return big.outcome(Word.GONE)
        case _:
            return outcome


@dataclass(frozen=True, slots=True)
class _Watched:
    """Source and target under WATCH, which holds for the connections that they were watched on."""

    big: Big
    connections: dict[Server, int]

    def execute(self, act: Act | None) -> Any:
        """Act, if nobody has written meanwhile; return the answer. Raises _Disturbed."""
        if len(self.connections) == 1:
            return self._exec(self.big.server, act)
        # No node has both. So a second watch on the source begins before the first one ends.
        with self.big.server.once_more() as second:
            second.call("WATCH", self.big.source, once=True).answer()
            self._exec(self.big.server, None)
            answer = self._exec(self.big.target_server, act)
            if act and act.makes:
                try:
                    self._exec(second, None)
                except _Disturbed:
                    self._withdraw(second, act)
                    raise
        return answer

    def _withdraw(self, source_server: Server, act: Act) -> None:
        """Delete what has been made of a source that is gone now, unless somebody has written to it since."""
        if not source_server.call("EXISTS", self.big.source).answer():
            unlink = partial(self.big.target_server.call, "UNLINK", self.big.target, once=True)
            self._exec(self.big.target_server, replace(act, call=unlink))

    def confirm(self) -> None:
        """Raise _Disturbed where somebody has written."""
        for server in self.connections:
            self._exec(server, None)

    def _exec(self, server: Server, act: Act | None) -> Any:
        if server.connections != self.connections.get(server, server.connections):
            # It was lost and made again without anybody noticing, and WATCH with it.
            raise ConnectionLost("the connection was lost")
        server.call("MULTI", once=True)
        queued = act.call() if act else None
        execution = server.call("EXEC", once=True)
        if act and act.makes:
            server.call("WATCH", self.big.target, once=True)
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


def _watch(big: Big) -> _Watched:
    watched = _Watched(big, {server: server.connections for server in (big.server, big.target_server)})
    for keys in ((big.source,), (big.target,)) if big.across else ((big.source, big.target),):
        if big.holder(keys[0]).call("WATCH", *keys, once=True).answer() != b"OK":
            raise Error("the server does not answer WATCH as it should")
    return watched


def _expiry(big: Big) -> int:
    """Return when the source expires, in milliseconds since 1970."""
    call = calls.chunk_read(
        big.server, big.source, replace(big.pause, capacity=1), kind=big.kind, position=b"0", step=1
    )
    return replies.expiry(replies.chunk(call), call)


def _copy(big: Big, target_kind: str, *, validate: bool, ignore_expiry: bool) -> Attempt:
    if big.second_look and big.digest != b"missing" and target_kind == "none":
        return KeyOutcome(big.source, big.target, Word.MISSING, digest=b"missing"), None
    if target_kind != "none":
        return (yield from _stand(big, target_kind, validate=validate, ignore_expiry=ignore_expiry, sizes=False)), None
    if refusal := _cannot_be_copied(big):
        return refusal, None
    big.target_server.call("UNLINK", big.staging, once=True).answer()
    if not (yield from _stage(big, 0.5 if validate else 1.0)):
        return big.outcome(Word.GONE), None  # all its fields have expired
    if validate:
        findings = yield from contrast_both(big, big.staging, Expiries.DIFFERENT, after=0.5, lifetime_ms=LIFETIME_MS)
        if findings.other_is_gone:
            raise _Disturbed
        if findings.word is not Word.SAME or findings.expiring_apart:
            notes = findings.notes_but(ignore_expiry=True)
            return big.outcome(Word.FAILED, f"the fresh copy is not the same: {findings.word}", notes), None
    library.register(big.target_server, "chunk/publish")
    expires_at = _expiry(big) if big.across else None
    if expires_at == GONE:
        return big.outcome(Word.GONE), None
    return big.outcome(Word.COPIED), Act(partial(publish, big, expires_at), makes=True)


def _compare(big: Big, target_kind: str, *, validate: bool, ignore_expiry: bool, sizes: bool) -> Attempt:
    if target_kind != "none":
        return (yield from _stand(big, target_kind, validate=validate, ignore_expiry=ignore_expiry, sizes=sizes)), None
    refusal = _cannot_be_copied(big) if sizes else None
    return refusal or big.sized(Word.MISSING, (length_of(big), 0) if sizes else None), None


def _stand(
    big: Big, target_kind: str, *, validate: bool, ignore_expiry: bool, sizes: bool
) -> Generator[Progress, None, KeyOutcome]:
    """Say how a target that is there stands to its source."""
    if not validate:
        return big.outcome(Word.EXISTS)
    if target_kind != big.kind:
        return big.unlike(Word.DIFFERS, target_kind)
    if big.kind not in KINDS:
        return big.outcome(Word.FAILED, too_big(big))
    findings = yield from contrast_both(big, big.target, Expiries.NONE if ignore_expiry else Expiries.DIFFERENT)
    if findings.is_gone:
        return big.outcome(Word.GONE)
    word, notes = findings.word_with_expiry(ignore=ignore_expiry), findings.notes_but(ignore_expiry=ignore_expiry)
    return big.sized(word, findings.lengths if sizes or findings.tells_sizes else None, notes)


def _remove(big: Big, target_kind: str, *, delete: bool) -> Attempt:
    if target_kind == "none":
        return big.outcome(Word.MISSING), None
    if target_kind != big.kind:
        return big.unlike(Word.KEPT, target_kind, "differs"), None
    if big.kind not in KINDS:
        return big.outcome(Word.FAILED, too_big(big)), None
    findings = yield from contrast_both(big, big.target, Expiries.SOONER)
    if findings.is_gone:
        return big.outcome(Word.GONE), None
    if findings.word is not Word.SAME:
        lengths = findings.lengths if findings.tells_sizes else None
        return replace(big.sized(Word.KEPT, lengths, findings.notes), text=str(findings.word)), None
    if findings.expiring_apart or not findings.source_lasts:
        return big.outcome(Word.KEPT, "expiry", findings.notes_but(ignore_expiry=False)), None
    if not delete:
        return big.outcome(Word.SAME), None
    unlink = partial(big.target_server.call, "UNLINK", big.target, once=True)
    return big.outcome(Word.REMOVED), Act(unlink, makes=False)


def _cannot_be_copied(big: Big) -> KeyOutcome | None:
    if big.kind not in KINDS:
        return big.outcome(Word.FAILED, too_big(big))
    if big.kind == "string" and not big.across and big.size > STRINGS * big.pause.capacity and not big.allow_long_pause:
        return big.outcome(Word.FAILED, too_big(big))
    return None


def _types(big: Big) -> tuple[str, str]:
    calls = [big.holder(key).call("TYPE", key, once=True) for key in (big.source, big.target)]
    source_kind, target_kind = (printable(call.answer()) for call in calls)
    return source_kind, target_kind


def _stage(big: Big, most: float) -> Generator[Progress, None, int]:
    """Copy the source to the staging key, yielding progress up to `most`; return how many elements there were."""
    length, position, done = max(1, length_of(big)), b"0", 0
    step = step_for(big, length)
    while True:
        go_on(big)
        try:
            position, copied, progress = stage_chunk(big, position, step, LIFETIME_MS)
        except Vanished:
            raise _Disturbed from None
        done += copied
        yield replace(progress, done=min(1.0, done / length)).within(0.0, most)
        if position == b"0":
            return done


def _with_digest(big: Big, outcome: KeyOutcome | None, filling: str) -> KeyOutcome | None:
    """Mark a partial target that differs in nothing else as one that can be filled."""
    if not outcome or outcome.word is not Word.PARTIAL or big.kind not in FILLABLE[filling]:
        return outcome
    expires_apart = "source_ttl_ms" in outcome.notes or "expiring_apart" in outcome.notes
    return outcome if expires_apart else replace(outcome, digest=BIG)


def _add_what_is_missing(big: Big) -> Generator[Progress, None, None]:
    """Add what the target lacks now, and still lacks after the time to settle.

    The names wait here, a bounded number of them; each is looked at again in the moment in which it
    is added, so what is deleted or written meanwhile stays as it is.
    """
    library.register(big.target_server, "chunk/add_fields")
    waiting: deque[tuple[float, list[bytes]]] = deque()
    findings = Findings(big.kind)
    for chunk, progress in contrast(big, (big.source, big.target), Expiries.NONE, findings, NAMES_WAITING):
        names = chunk["missing_names"]
        if names:
            waiting.append((time.monotonic() + big.settle, names))
        yield progress.within(0.0, 0.5)
        while sum(len(names) for _, names in waiting) >= NAMES_WAITING:
            yield from _add_oldest(big, waiting, progress.done / 2)
    while waiting:
        yield from _add_oldest(big, waiting, 0.5)


def _add_oldest(big: Big, waiting: deque[tuple[float, list[bytes]]], done: float) -> Iterator[Progress]:
    due, names = waiting.popleft()
    while (left := due - time.monotonic()) > 0:
        go_on(big)
        time.sleep(min(0.1, left))
        yield Progress(done)
    while names:
        try:
            looked_at, seconds = supply(big, names[:NAMES_PER_CALL])
        except Vanished:
            return
        names = names[looked_at:]
        yield Progress(done, seconds)
