"""Batches of pairs that are mirrored: sent to the server in flight together, and what came of each pair."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from luamigrate.migration.direction import Direction
from luamigrate.migration.lease import Lease
from luamigrate.migration.pace import Pace
from luamigrate.migration.routing import PairsCall
from luamigrate.migration.scan import IN_FLIGHT
from luamigrate.migration.standing import Pair
from luamigrate.model.errors import Error, printable
from luamigrate.model.limits import Limits, Pause
from luamigrate.model.status import Word
from luamigrate.scripts import follow_calls
from luamigrate.scripts.calls import Answer, ScriptCall
from luamigrate.scripts.replies import MirrorReply, PairReply, said, takes_no_writes
from luamigrate.server.connection import Connection

_WORDS = {word.reply: word for word in (Word.SAME, Word.COPIED, Word.REMOVED, Word.GONE, Word.EXTRA, Word.FOREIGN)}
_BIG = re.compile(r"(?P<kind>\S+) (?P<size>[0-9]{1,20})(?P<untouched> untouched)?")
WROTE = frozenset((Word.COPIED, Word.REMOVED))


@dataclass(slots=True)
class Result:
    """What came of a pair; like that one, it is made for each change."""

    pair: Pair
    word: Word
    text: str = ""


@dataclass(frozen=True, slots=True)
class Big:
    """A pair whose source is too big for one script."""

    pair: Pair
    kind: str
    size: int
    """Bytes of memory."""
    is_untouched: bool = False
    """Whether a target that differs may be somebody else's: see mirror.lua."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What came of a batch, or of a chunk of a big pair."""

    results: list[Result] = field(default_factory=list)
    big: list[Big] = field(default_factory=list)
    """Pairs that have to go in chunks."""
    waited: list[Pair] = field(default_factory=list)
    """Pairs for which nothing was done, because clients wait for something."""
    undone: list[Pair] = field(default_factory=list)
    """Pairs for which nothing was done, and which have to be sent again."""
    moving: list[Pair] = field(default_factory=list)
    """The same, but that it is in vain for a while: their slot is being moved to another node."""
    seconds: float = 0.0
    """How long the script held the server."""
    is_unheld: bool = False
    """Whether the lease was not ours any more."""
    refusal: str = ""
    """The words with which the server takes no writes at present."""
    repeated: bool = False
    """Whether it was sent again, because the connection was lost before its answer came."""


@dataclass(frozen=True, slots=True)
class Flight:
    """Pairs that a server is being asked about, at its pace."""

    pairs: Sequence[Pair]
    call: PairsCall
    pace: Pace
    is_whole: bool = False
    """Whether it is one pair that may take the longest pause alone."""
    is_plain: bool = False
    """Whether it was sent to the script that leaves what is not plain to the other one."""


class Mirror:
    """Sends batches at the pace of one server."""

    def __init__(self, server: Connection, direction: Direction, limits: Limits, lease: Lease) -> None:
        self._server, self._direction, self._limits, self._lease = server, direction, limits, lease
        self.away: int | None = None
        """How long nobody followed, while that is asked for; see mirror.lua."""
        self.may_wait: int | None = None
        """How many clients may wait for something while queues are written; None for any number."""
        self._pace = Pace(limits, server.round_trip)
        self._flights: deque[Flight] = deque()

    def pace_of(self, _server: Connection) -> Pace:
        """Return the pace of a server."""
        return self._pace

    def limit(self, limits: Limits) -> None:
        """Go by other limits from now on."""
        if limits is not self._limits:
            self._limits = limits
            for pace in self._all_paces():
                pace.limit(limits)

    def _all_paces(self) -> Iterable[Pace]:
        return (self._pace,)

    @property
    def size(self) -> int:
        """The most pairs for the next batch."""
        return self._pace.size

    @property
    def busy(self) -> list[Connection]:
        """The connections on which answers are to come, for `select`."""
        return [self._server] if self._server.is_waiting else []

    def flush(self) -> None:
        """See that what was asked is sent."""
        self._server.poll()

    @property
    def is_full(self) -> bool:
        """Whether as many batches are in flight as may be."""
        # A look counts as use on old servers: another one at the same pair would take its source for touched.
        return len(self._flights) >= (IN_FLIGHT if self.away is None else 1)

    @property
    def has_arrived(self) -> bool:
        """Whether a batch is answered already."""
        call = self._flights[0].call if self._flights else None
        return isinstance(call, ScriptCall) and call.is_answered

    @property
    def in_flight(self) -> int:
        """How many pairs are in flight."""
        return sum(len(flight.pairs) for flight in self._flights)

    def send(self, pairs: Sequence[Pair]) -> None:
        """Send a batch, whose targets are in one database."""
        if self.away is None and pairs[0].rule.database is None:
            keys, how = self._keys_and_how(pairs)
            call = follow_calls.mirror_plain(self._server, keys, self._pace.pause, lease=self._lease.proof, how=how)
            self._flights.append(Flight(pairs, call, self._pace, is_plain=True))
        else:
            self.send_on(pairs)

    def send_on(self, pairs: Sequence[Pair], *, whole: bool = False) -> None:
        """Send a batch to the script that decides about whatever there is."""
        call = self._called(self._server, pairs, whole=whole)
        self._flights.append(Flight(pairs, call, self._pace, is_whole=whole))

    def _called(self, server: Connection, pairs: Sequence[Pair], *, whole: bool) -> ScriptCall:
        keys, how = self._keys_and_how(pairs)
        pause = Pause(int(self._limits.max_pause * 1000), self._pace.whole_key) if whole else self._pace.pause
        rule = pairs[0].rule
        # The lease is where the old names are, whichever names come first.
        databases = (*self._direction.databases(rule) * len(pairs), self._direction.database)
        return follow_calls.mirror(
            server,
            keys,
            pause,
            lease=self._lease.proof,
            away=self.away,
            may_wait=self.may_wait,
            how=how,
            databases=() if rule.database is None else databases,
        )

    def _keys_and_how(self, pairs: Sequence[Pair]) -> tuple[list[bytes], list[str]]:
        """Return what the scripts take for pairs: their keys, and two texts for each."""
        if self._direction.is_back:
            keys = [key for pair in pairs for key in (pair.target, pair.source)]
        else:
            keys = [key for pair in pairs for key in (pair.source, pair.target)]
        return keys, [text for pair in pairs for text in (pair.rule.type, pair.rights)]

    def knows_all(self) -> None:
        """Note that all pairs have been looked at since changes were last not told."""
        self.away = None

    def reconnect(self, *, unwatched_since: float) -> None:
        """Make its own connections anew; since that moment, by `time.monotonic`, nobody was told of changes."""

    def prepare(self) -> None:
        """Make those that will be needed, before writes are held. Raises ConnectionLost."""

    @property
    def connections(self) -> Mapping[Connection, Sequence[Connection]]:
        """The connections that it has of its own, by the main one of their server."""
        return {}

    def keep_in_touch(self) -> None:
        """See that the server does not close them because they are idle. Raises what calls do."""

    def close(self) -> None:
        """Close them."""

    def arrived(self, *, wait: bool = False) -> Iterator[Arrived]:
        """Yield what came of the batches that are answered; with `wait`, of all. Raises what calls do."""
        self.flush()
        while self.has_arrived or (wait and self._flights):
            flight = self._flights[0]
            answers, seconds = flight.call.answers()
            if not 1 <= len(answers) <= len(flight.pairs):
                raise Error(f"the script answered for {len(answers)} of {len(flight.pairs)} keys")
            self._flights.popleft()
            self._learn(flight, len(answers), seconds)
            yield self._read(flight, answers, seconds or flight.call.seconds)

    def dropped(self) -> list[Pair]:
        """Drop what is in flight, whose answers will not come; return the pairs."""
        pairs = [pair for flight in self._flights for pair in flight.pairs]
        self._flights.clear()
        return pairs

    def _learn(self, flight: Flight, answered: int, seconds: float) -> None:
        if seconds:
            flight.pace.answered(answered, seconds)
        if answered < len(flight.pairs):
            flight.pace.cut_short(answered)

    def _read(self, flight: Flight, answers: list[Answer], seconds: float) -> Arrived:
        results, big, undone = list[Result](), list[Big](), list(flight.pairs[len(answers) :])
        left_open, waited = list[Pair](), list[Pair]()
        refusal, is_unheld = "", False
        for pair, answer in zip(flight.pairs, answers, strict=False):
            word = _WORDS.get(answer) if isinstance(answer, bytes) else None
            if word:
                results.append(Result(pair, word))
            elif answer == MirrorReply.UNDECIDED and flight.is_plain:
                left_open.append(pair)
            elif answer == MirrorReply.WAITED:
                waited.append(pair)
            elif answer in (MirrorReply.UNHELD, MirrorReply.UNDECIDED):
                is_unheld |= answer == MirrorReply.UNHELD
                undone.append(pair)
            else:
                result = self._read_rest(flight, pair, answer)
                if isinstance(result, Big):
                    big.append(result)
                elif result and takes_no_writes(result.text):
                    refusal = result.text
                    undone.append(pair)
                elif result:
                    results.append(result)
        if left_open:
            self.send_on(left_open)
        return Arrived(
            results=results,
            big=big,
            waited=waited,
            undone=undone,
            seconds=seconds,
            is_unheld=is_unheld,
            refusal=refusal,
            repeated=flight.call.repeated,
        )

    def _read_rest(self, flight: Flight, pair: Pair, answer: Answer) -> Result | Big | None:
        """Read an answer with a text; None where the pair was sent once more."""
        first, rest = said(answer)
        text = printable(rest)
        if first == PairReply.BIG:
            if not (told := _BIG.fullmatch(text)):
                raise Error(f"the script answered 'big {text}', which has no size")
            big = Big(pair, told["kind"], int(told["size"]), bool(told["untouched"]))
            if flight.is_whole or big.size > flight.pace.whole_key:
                return big
            self.send_on([pair], whole=True)
            return None
        if first == Word.FAILED.reply:
            return Result(pair, Word.FAILED, text)
        if first == Word.IGNORED.reply:
            return Result(pair, Word.IGNORED, text)
        raise Error(f"the script answered '{printable(first)}', which is not for it to say")
