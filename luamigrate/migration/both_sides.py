"""The names that a follow has to look at again: all of both sides of a plan, or those in slots that were moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from luamigrate.migration import scan
from luamigrate.migration.direction import Direction
from luamigrate.migration.pace import Pace
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.slots import Layout


class Sighting(NamedTuple):
    """Some sources that have to be looked at."""

    sources: list[bytes]
    was_there: bool = False
    """Whether the scan has seen what is mirrored, and not only its copy."""


class BothSides:
    """Finds sources, be it by their names or by those of their targets."""

    def __init__(
        self,
        deployment: Deployment,
        direction: Direction,
        pace_of: Callable[[Connection], Pace],
        stop: Callable[[], bool],
    ) -> None:
        self._deployment, self._direction, self._pace_of, self._stop = deployment, direction, pace_of, stop
        self._plan = direction.plan
        self._layout: Layout | None = None
        self.moved()

    def scanned(self) -> Iterator[Sighting]:
        """Yield the pairs of the names that the application writes, then those of their copies that are there."""
        if self._direction.is_back:
            yield from self._by_targets(are_copies=False)
            yield from self._by_sources(are_copies=True)
        else:
            yield from self._by_sources(are_copies=False)
            yield from self._by_targets(are_copies=True)

    def _by_sources(self, *, are_copies: bool) -> Iterator[Sighting]:
        for rule in self._plan:
            wanted = scan.Names(rule.source, self._plan.choosing_sources(rule), rule.source_names)
            for found in self._everywhere(wanted):
                # Of a table, names come that may not be there.
                yield Sighting(found.keys, was_there=not are_copies and rule.source_names is None)

    def _by_targets(self, *, are_copies: bool) -> Iterator[Sighting]:
        for rule in self._plan:
            wanted = scan.Names(rule.target, self._plan.choosing_targets(rule), rule.target_names, rule.database)
            for found in self._everywhere(wanted):
                sources = rule.pairs_of_targets(found.keys).sources
                yield Sighting(sources, was_there=not are_copies and rule.target_names is None)

    def _everywhere(self, wanted: scan.Names) -> Iterator[scan.Found]:
        return scan.everywhere(self._deployment, wanted, self._pace_of, self._stop)

    @property
    def is_moving(self) -> bool:
        """Whether slots were being moved when that was asked last."""
        return bool(self._layout and self._layout.moving)

    def moved(self) -> list[int]:
        """Return the slots whose keys may be elsewhere than when this was asked last, and learn where they are."""
        slots = self._deployment.slots
        if not slots:
            return []
        before, now = self._layout, slots.layout()
        if before and now == before and not now.moving:
            return []
        slots.refresh()
        self._layout = slots.layout()
        return self._layout.changed_since(before) if before else []

    def in_slots(self, moved: list[int], sources_of: Callable[[Iterable[bytes]], list[bytes]]) -> Iterator[list[bytes]]:
        """Yield the sources that have to do with the keys in some slots, as `sources_of` names tells them."""
        slots = self._deployment.slots
        if not slots:
            return
        naming = slots.keys_of(moved)
        while True:
            try:
                _, names = next(naming)
            except StopIteration as end:
                crowded = end.value
                break
            yield sources_of(names)
        if crowded:
            yield from (sighting.sources for sighting in self.scanned())
