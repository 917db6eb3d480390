"""Batches that have been sent and not been counted yet."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from luamigrate.migration.recheck import Recheck
from luamigrate.migration.routing import PairsCall, RoutedBatch
from luamigrate.model.status import Stage
from luamigrate.model.summary import Batch
from luamigrate.scripts.replies import Reading


@dataclass(frozen=True, slots=True)
class InFlight:
    """A batch that has been sent, and what came of it has not been counted."""

    batch: RoutedBatch
    call: PairsCall
    stage: Stage
    scanned: float
    undecided: dict[bytes, Recheck] = field(default_factory=dict)
    """Rechecks that it belongs to, by source, of which nothing has come yet."""
    replaced: Counter[bytes] = field(default_factory=Counter)
    """How often a source was of another type than had just been answered."""

    def decided(self, reading: Reading) -> dict[bytes, Recheck]:
        """Take out the rechecks that have been answered, but for pairs that have to be asked about again."""
        if not self.undecided:
            return {}
        open_ones = {*reading.refused, *reading.moved, *(index for index, _, _ in reading.big)}
        sources = [self.batch.pairs.sources[index] for index in range(reading.answered) if index not in open_ones]
        return {source: self.undecided.pop(source) for source in sources if source in self.undecided}

    @property
    def news(self) -> Batch:
        """Return what is told about this batch in any case: its rule, stage and node, and how far the scan was."""
        return Batch(self.batch.pairs.rule, self.stage, scanned=self.scanned, shard=self.batch.shard)


def arrived(in_flight: deque[InFlight], *, full: int = 0, but: int = 0) -> Iterator[InFlight]:
    """Once there are `full`, take out all batches but the last ones, when they have taken all steps before the last.

    They take them side by side, before anybody is told of any: whoever is told may take his time, and between
    two steps the application writes.
    """
    count = len(in_flight) - but if len(in_flight) >= full else 0
    calls = [flight.call for flight in islice(in_flight, count)]
    while sum(call.advance() for call in calls):
        pass
    for _ in range(count):
        yield in_flight.popleft()
