"""How the pairs of a follow stand: which targets are its own, which are somebody else's, and which sources fail.

A target that was written by somebody else is looked at before it is touched. If it is not what its source is, either
the source has changed too, which is told by the next barrier, or the target is foreign.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from luamigrate.migration.dirty import SEEN
from luamigrate.migration.ownership import KnownNames
from luamigrate.model.errors import Error
from luamigrate.model.rules import Rule
from luamigrate.model.status import KeyOutcome, Word, reason_for

MOST_FAILED = 100_000
"""When more sources cannot be copied, something is wrong with the server."""
MOST_GONE_LATELY = 100_000
"""More than a server loses that is killed, or that a replica lacks."""
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
"""Seconds before a source that failed is tried again; they double each time."""

DELETED = "its target was deleted by somebody else, and is copied again"
WRITTEN = "its target was written by somebody else: if the source is right, delete the target, and it is made anew"
LATE_WRITE = (
    "the {left} name was written after it had been left, and stays as it is: bring what it has to the {other} name "
    "yourself, then delete the {left} one, and it is made anew"
)
LATE_DELETION = (
    "the {left} name was deleted after it had been left, and is copied again. Should the {other} one go too?"
)
LATE_EQUAL = (
    "the {left} name was written after it had been left, and equals the {other} one now: if that was a change such as "
    "adding to a counter, the {other} one lacks it"
)
OTHERS = {"old": "new", "new": "old"}

_EQUAL = frozenset((Word.SAME, Word.COPIED))
_ABSENT = frozenset((Word.REMOVED, Word.GONE, Word.IGNORED))


@dataclass(slots=True)
class Pair:
    """A source that is looked at, and its target. Not frozen, because to make a frozen one takes twice as long."""

    rule: Rule
    source: bytes
    target: bytes
    moment: float
    """When the first change of the source was told that this look answers to; SEEN or UNTOLD where none was."""
    is_told: bool
    """Whether that proves that the source has changed."""
    blind: bool
    """Whether it may have changed without being told."""
    may_replace: bool
    """Whether the target may be made anew."""
    may_delete: bool
    """Whether the target may be deleted where there is no source."""

    @property
    def rights(self) -> str:
        """What mirror.lua is told of this."""
        return "2" if self.may_delete else "1" if self.may_replace else "0"


@dataclass(slots=True)
class _Doubt:
    """A pair whose target somebody else has written."""

    has_one_name: bool
    """Whether source and target have one name, in two databases: what is told of it may be of either."""
    told: bool = False
    """Whether its source was told since."""
    blind: bool = False
    """Whether its source may have changed without being told."""
    barrier: int = 0
    """By which that is known; 0 before there is anything to decide."""
    pair: Pair | None = None
    word: Word = Word.FOREIGN


@dataclass(slots=True)
class _Failure:
    text: str
    tries: int
    due: float


class Standing:
    """Knows of each pair that was looked at how it stands, in some bytes for each."""

    def __init__(self) -> None:
        self.claiming = True
        """Whether every target that nobody else has written since we listen is our own."""
        self.blind = False
        """Whether sources may have changed that nobody told of: then none of our own targets can be proven foreign."""
        self.known = KnownNames()
        """Sources whose targets we have made, or seen to be equal."""
        self.extra = KnownNames()
        """Sources that are not there, whose targets are somebody else's."""
        self.foreign: dict[bytes, bytes] = {}
        """Sources whose targets somebody else has written, and those targets."""
        self.foreign_seen = self.stragglers_seen = 0
        self.is_confirmed = False
        """Whether copies may be deleted that have nothing to be copied of, because somebody has confirmed that."""
        self.left = ""
        """Which names the application has left by a flip, `old` or `new`; empty where there was none.

        What others write there is never written over unseen.
        """
        self._former_extra = KnownNames()
        """Those of before the scan that is under way."""
        self._suspects: set[bytes] = set()
        self._behind: set[bytes] = set()
        """Sources that have changed, and whose targets we have not made what they are: these may expire meanwhile."""
        self._doubts: dict[bytes, _Doubt] = {}
        self._due: deque[tuple[int, bytes]] = deque()
        """Sources with a doubt, by the barrier that decides."""
        self._gone_lately: deque[bytes] = deque(maxlen=MOST_GONE_LATELY)
        """Sources that went, and their targets with them: another process may have the targets back."""
        self._failures: dict[bytes, _Failure] = {}
        self._postponed: set[bytes] = set()
        """Sources whose targets stay claimed when the scan is over, because big ones are answered for late."""

    @property
    def failed(self) -> int:
        """How many sources cannot be copied at present."""
        return len(self._failures)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is doubtful, foreign, extra or failed."""
        return not (self.is_doubtful or self.foreign or self.extra or self._failures)

    @property
    def trouble(self) -> str:
        """Say what of the pairs is for somebody to see to: it does not get well by itself. Empty where nothing is."""
        set_aside = "stragglers that are set aside" if self.left else "foreign"
        counts = {set_aside: len(self.foreign), "extra": len(self.extra)}
        return ", ".join(f"{what}: {count:,}" for what, count in counts.items() if count)

    @property
    def is_doubtful(self) -> bool:
        """Whether something waits for a look, or for a barrier."""
        return bool(self._suspects or self._doubts)

    def turned(self, left: str) -> None:
        """Note that pairs are mirrored to the names that were `left` from now on: all of them are equal."""
        self.left = left
        self._gone_lately.clear()
        self._behind.clear()

    def pair(self, rule: Rule, source: bytes, target: bytes, moment: float) -> Pair:
        """Return a pair to be looked at, with what may be done to its target."""
        is_ours = not self.is_somebody_elses(source)
        known = is_ours and source in self.known
        claimed = is_ours and (self.claiming or source in self._postponed)
        is_told = moment < SEEN and source != target
        # Nobody's word but the server's makes us delete: it told that the source changed, or a scan has seen it.
        may_delete = known or (claimed and (is_told or moment == SEEN or self.is_confirmed))
        pair = Pair(rule, source, target, moment, is_told, self.blind, known or claimed, may_delete)
        if not may_delete:
            self._doubt(pair)
        return pair

    def _doubt(self, pair: Pair) -> _Doubt:
        doubt = self._doubts.setdefault(pair.source, _Doubt(pair.source == pair.target))
        doubt.told |= pair.is_told or pair.source in self._behind
        doubt.blind |= pair.blind
        return doubt

    @property
    def _is_calm(self) -> bool:
        """Whether nothing is remembered but what is known, as mostly."""
        return not (
            self._suspects
            or self._doubts
            or self._failures
            or self._behind
            or self._postponed
            or self.foreign
            or self.extra.is_used
        )

    def postpone(self, pair: Pair) -> bool:
        """Note that a pair is too big to be answered for at once; return whether it may be tried now."""
        if pair.may_replace:
            self._postponed.add(pair.source)
        failure = self._failures.get(pair.source)
        return not failure or failure.due <= time.monotonic()

    def is_postponed(self, source: bytes) -> bool:
        """Tell whether a target of which nothing was known is claimed until its big source is answered for."""
        return source in self._postponed

    def is_somebody_elses(self, source: bytes) -> bool:
        """Tell whether its target was written by somebody else, as far as is known now."""
        return (
            source in self._suspects or source in self.foreign or source in self.extra or source in self._former_extra
        )

    def suspect(self, source: bytes) -> None:
        """Note that somebody else has written its target."""
        self._suspects.add(source)

    def source_told(self, source: bytes) -> None:
        """Note that a source has changed."""
        doubt = self._doubts.get(source) if self._doubts else None
        if doubt and not doubt.has_one_name:
            doubt.told = True

    def answered(self, pair: Pair, word: Word, barrier: int, *, repeated: bool = False) -> list[KeyOutcome]:
        """Take the word on a pair; `barrier` will tell what changed until now. Return what is news.

        Where it was sent twice because an answer was lost (`repeated`), the first one may have made the target.
        """
        source = pair.source
        if word in _EQUAL and self._is_calm:
            self.known.add(source)
            return []
        if repeated and not self.is_somebody_elses(source):
            self.known.add(source)
        self._failures.pop(source, None)
        # Where it was foreign, somebody has deleted it so that it is made anew.
        was_ours = source in self._suspects and source in self.known and source not in self.foreign
        was_deleted = word is Word.COPIED and was_ours
        if word in _EQUAL:
            self.known.add(source)
        elif word in _ABSENT:
            if source in self.known:
                self._gone_lately.append(source)
            self.known.discard(source)
        if word in _EQUAL or word in _ABSENT:
            self._postponed.discard(source)
            self._behind.discard(source)
            self.foreign.pop(source, None)
            self.extra.discard(source)
            if not was_deleted:
                self._suspects.discard(source)
                self._doubts.pop(source, None)
                return [self._equal_straggler(pair)] if self.left and was_ours and word is Word.SAME else []
        elif source in self.foreign and (word is Word.FOREIGN or (self.left and word is Word.EXTRA)):
            self._suspects.discard(source)
            self._doubts.pop(source, None)
            return []
        doubt = self._doubt(pair)
        # One that was sent before we knew that the target is our own is sent again.
        doubt.told |= not (pair.may_replace or self.is_somebody_elses(source)) and source in self.known
        doubt.barrier, doubt.pair, doubt.word = barrier, pair, word
        return self._decided(pair, word, barrier)

    def _decided(self, pair: Pair, word: Word, barrier: int) -> list[KeyOutcome]:
        """Say whose a target is, or have it wait for a barrier."""
        if self._is_certain(pair, word):
            return self._judge(pair.source)
        if self.left:
            # Whatever has become of the one before, this one is our own.
            self._suspects.discard(pair.source)
        self._due.append((barrier, pair.source))
        return []

    def _is_certain(self, pair: Pair, word: Word) -> bool:
        """Tell whether it needs no barrier to decide whose a target is."""
        # What we have never made, or what was not touched for longer than nobody followed, needs none.
        is_untouched = word is Word.FOREIGN and pair.may_replace
        is_claimed = self.claiming or pair.source in self.known or pair.source in self._postponed
        # A name that has gone may have expired: it has, if what it was copied from was written since.
        is_written = bool(self.left) and word is not Word.COPIED
        return is_untouched or is_written or not is_claimed

    def passed(self, barrier: int) -> Iterator[KeyOutcome | bytes]:
        """Decide what was doubtful until a barrier; yield news, and names of sources to look at once more."""
        while self._due and self._due[0][0] <= barrier:
            _, source = self._due.popleft()
            doubt = self._doubts.get(source)
            if not doubt or not 0 < doubt.barrier <= barrier:
                continue
            is_claimed = self.claiming and doubt.word is not Word.EXTRA
            is_ours = doubt.blind and (is_claimed or source in self.known)
            if (doubt.told or is_ours) and source not in self.foreign:
                # The source has changed too: the target is our own, and behind.
                del self._doubts[source]
                self._suspects.discard(source)
                self._behind.add(source)
                yield source
            else:
                yield from self._judge(source)

    def _judge(self, source: bytes) -> list[KeyOutcome]:
        """Say whose a target is, now that nothing is to come that could tell."""
        doubt = self._doubts.pop(source)
        self._suspects.discard(source)
        self._postponed.discard(source)
        pair = doubt.pair
        if pair is None:
            return []
        if self.left:
            return [self._straggler(pair, doubt.word)]
        text = ""
        match doubt.word:
            case Word.EXTRA:
                self.known.discard(source)
                self.foreign.pop(source, None)
                was_extra = source in self.extra or source in self._former_extra
                self.extra.add(source)
                if was_extra:
                    return []
            case Word.COPIED:
                text, self.foreign_seen = DELETED, self.foreign_seen + 1
            case _:
                text, self.foreign_seen = WRITTEN, self.foreign_seen + 1
                self.foreign[source] = pair.target
                self.extra.discard(source)
        word = Word.EXTRA if doubt.word is Word.EXTRA else Word.FOREIGN
        return [KeyOutcome(source, pair.target, word, text, clean=False)]

    def _straggler(self, pair: Pair, word: Word) -> KeyOutcome:
        """Say that somebody has written a name that had been left; it is set aside, unless it is absent."""
        self.stragglers_seen += 1
        if word is not Word.COPIED:
            self.foreign[pair.source] = pair.target
        text = (LATE_DELETION if word is Word.COPIED else LATE_WRITE).format(left=self.left, other=OTHERS[self.left])
        return KeyOutcome(pair.source, pair.target, Word.STRAGGLER, text, clean=False)

    def _equal_straggler(self, pair: Pair) -> KeyOutcome:
        """Say that somebody has written a name that had been left, though it is equal to the other one."""
        self.stragglers_seen += 1
        text = LATE_EQUAL.format(left=self.left, other=OTHERS[self.left])
        return KeyOutcome(pair.source, pair.target, Word.STRAGGLER, text, clean=False)

    def failed_with(self, pair: Pair, text: str) -> list[KeyOutcome]:
        """Take that a source could not be copied; return news where it could before. Raises Error for too many."""
        before = self._failures.get(pair.source)
        tries = before.tries + 1 if before else 0
        wait = min(LONGEST_RETRY, FIRST_RETRY * 2**tries)
        self._failures[pair.source] = _Failure(text, tries, time.monotonic() + wait)
        if pair.may_replace:
            self.known.add(pair.source)
        self._postponed.discard(pair.source)
        self._doubts.pop(pair.source, None)
        if len(self._failures) > MOST_FAILED:
            raise Error(
                f"more than {MOST_FAILED:,} keys cannot be copied: see why, then follow again; the last: {text}"
            )
        is_news = not before or reason_for(before.text) is not reason_for(text)
        return [KeyOutcome(pair.source, pair.target, Word.FAILED, text, clean=False)] if is_news else []

    def due_again(self) -> list[bytes]:
        """Return the sources that failed and are to be tried again now."""
        now = time.monotonic()
        return [source for source, failure in self._failures.items() if failure.due <= now]

    def loses_sight(self, *, claiming: bool = False) -> None:
        """Note that sources may have changed without being told; or `claiming`, that targets of ours may be unknown."""
        self.blind = True
        self.claiming |= claiming
        for doubt in self._doubts.values():
            doubt.blind = True

    def goes_back(self) -> None:
        """Note that another process answers, which may lack the last writes of both sides."""
        self.loses_sight(claiming=True)
        for source in self._gone_lately:
            self.known.add(source)

    def scan_begins(self) -> list[bytes]:
        """Return the sources that have to be looked at, whether a scan of both sides finds them or not."""
        self._former_extra, self.extra = self.extra, KnownNames()
        return [*self._suspects, *self.foreign, *self._failures]

    def scan_ended(self) -> None:
        """Forget what a scan of both sides has not found again."""
        self._former_extra.clear()
        self.claiming = self.blind = self.is_confirmed = False

    def forget(self) -> None:
        """Forget all pairs: their keys went with the whole database."""
        self.known.clear()
        self.extra.clear()
        self._former_extra.clear()
        self.foreign.clear()
        self._suspects.clear()
        self._behind.clear()
        self._doubts.clear()
        self._failures.clear()
        self._postponed.clear()
