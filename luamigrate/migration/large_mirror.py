"""Pairs too big for one script, mirrored one after the other: a chunk at a time, between the batches of all others."""

from __future__ import annotations

import secrets
from dataclasses import replace
from functools import partial

from redis.crc import key_slot

from luamigrate.migration import large_key_verbs
from luamigrate.migration.chunks import LargePair
from luamigrate.migration.direction import Direction
from luamigrate.migration.dirty import SEEN
from luamigrate.migration.hearing import Hearing
from luamigrate.migration.lease import Lease
from luamigrate.migration.mirror import Arrived, Big, Result
from luamigrate.migration.pace import Pace
from luamigrate.migration.standing import Pair, Standing
from luamigrate.migration.watch import Disturbed, LargeSteps, Replaced, Unheld
from luamigrate.model.control import Control
from luamigrate.model.errors import Refused
from luamigrate.model.limits import Limits
from luamigrate.model.status import KeyOutcome, Reason, Word
from luamigrate.scripts.replies import takes_no_writes
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered

BUSY = "busy: it is written faster than it can be copied in chunks, and is tried again now and then"


class LargeMirror:
    """Takes big pairs in chunks, in the order in which they came; nobody waits for more than one chunk."""

    def __init__(
        self,
        deployment: Deployment,
        direction: Direction,
        limits: Limits,
        control: Control,
        *,
        lease: Lease,
        standing: Standing,
        hearing: Hearing,
    ) -> None:
        self._deployment, self._direction, self._control = deployment, direction, control
        self._lease, self._standing, self._hearing = lease, standing, hearing
        self._waiting: dict[bytes, Big] = {}
        """Big pairs to be mirrored, by source; if one is under way, it is the first."""
        self._steps: LargeSteps | None = None
        self._is_disturbed = False
        """Whether what is under way was told to have changed, so that it has to begin anew."""
        self._done = 0.0
        self._nonce = secrets.token_hex(8)

        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """Go by these limits from the next pair on."""
        self._limits, self._pause = limits, Pace(limits, 0.0).pause

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def progress(self) -> tuple[bytes, float] | None:
        """The source that is under way, and the share of it that is done."""
        return (next(iter(self._waiting)), self._done) if self._steps else None

    def put(self, big: Big) -> None:
        """Take a pair, or what has been seen of it since; one that waits keeps its place."""
        pair, before = big.pair, self._waiting.get(big.pair.source)
        if before:
            # After a cut-over it says whose the copy is, whatever has been told since.
            is_untouched = before.is_untouched and (pair.moment >= SEEN or self._direction.is_back)
            big = replace(big, is_untouched=big.is_untouched or is_untouched)
            has_changed = pair.moment < SEEN or pair.rights != before.pair.rights
            self._is_disturbed |= has_changed and self._is_under_way(pair.source)
        self._waiting[pair.source] = big

    def drop(self, source: bytes) -> None:
        """Leave a pair alone that one script has answered for since."""
        if self._is_under_way(source):
            self.close()
        self._waiting.pop(source, None)

    def dropped(self) -> list[Pair]:
        """Drop all pairs, and return them."""
        self.close()
        waiting, self._waiting = self._waiting, {}
        return [big.pair for big in waiting.values()]

    def close(self) -> None:
        """End what is under way, and delete its staging key."""
        steps, self._steps, self._is_disturbed = self._steps, None, False
        if steps:
            steps.close()

    def advance(self) -> Arrived | None:
        """Take one chunk; return what came of it, None where there is nothing to do. Raises what calls do."""
        if not self._waiting:
            return None
        big = next(iter(self._waiting.values()))
        steps, self._steps = self._steps or self._begun(big), None
        is_disturbed, self._is_disturbed = self._is_disturbed, False
        try:
            progress = steps.throw(Disturbed()) if is_disturbed else next(steps)
        except StopIteration as end:
            arrived = _what_came(big, end.value)
        except (Replaced, Unheld) as reason:
            arrived = Arrived(undone=[big.pair], is_unheld=isinstance(reason, Unheld))
        except (Refused, Answered) as problem:
            arrived = _refused(big, str(problem))
        else:
            self._steps, self._done = steps, progress.done
            return Arrived(seconds=progress.seconds)
        del self._waiting[big.pair.source]
        for pair in (*(result.pair for result in arrived.results), *arrived.undone):
            self._hearing.own_writes.sent(self._direction.copy_of(pair))
        return arrived

    def _begun(self, big: Big) -> LargeSteps:
        pair, deployment, direction = big.pair, self._deployment, self._direction
        live, copy = direction.ends(pair)
        live_database, copy_database = direction.databases(pair.rule)
        live_place = deployment.place(live)._replace(database=live_database)
        copy_place = deployment.place(copy)._replace(database=copy_database)
        is_cluster = deployment.slots is not None
        # The lease is where the old names are.
        is_beside = not is_cluster and live_database == deployment.database
        large = LargePair(
            source_place=live_place,
            target_place=copy_place,
            cross_slot=is_cluster and key_slot(live) != key_slot(copy),
            source=live,
            target=copy,
            kind=big.kind,
            size=big.size,
            pause=self._pause,
            control=self._control,
            allow_long_pause=self._limits.allow_long_pause,
            nonce=self._nonce,
            lease=(lambda: self._lease.proof) if is_beside else partial(self._lease.held_until, copy_place.node),
        )
        return large_key_verbs.mirror(large, lambda: self._may_replace(pair.source))

    def _may_replace(self, source: bytes) -> bool:
        big = self._waiting[source]
        return big.pair.may_replace and not big.is_untouched and not self._standing.is_somebody_elses(source)

    def _is_under_way(self, source: bytes) -> bool:
        return self._steps is not None and source == next(iter(self._waiting))


def _what_came(big: Big, outcome: KeyOutcome | None) -> Arrived:
    pair = big.pair
    if outcome is None or outcome.word is Word.GONE:
        # What becomes of a target without a source is decided by one script.
        return Arrived(undone=[pair])
    texts: dict[Reason | None, str] = {Reason.BUSY: BUSY, Reason.TOO_BIG: _too_big(big)}
    if outcome.word is Word.FOREIGN and not big.is_untouched:
        # It was found out after the pair was sent; the source may have changed too.
        pair = replace(pair, may_replace=False, may_delete=False)
    return Arrived(results=[Result(pair, outcome.word, texts.get(outcome.reason, outcome.text))])


def _refused(big: Big, words: str) -> Arrived:
    if takes_no_writes(words):
        return Arrived(undone=[big.pair], refusal=words)
    return Arrived(results=[Result(big.pair, Word.FAILED, words)])


def _too_big(big: Big) -> str:
    # Without its size, which may be another each time: it is named once.
    return f"too-big: this {big.kind} is too big for one script, and cannot go in chunks"
