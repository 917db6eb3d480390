"""What a follow is told, sorted: sources that have changed, and targets that somebody else has written."""

from __future__ import annotations

from functools import lru_cache

from luamigrate.migration.direction import Direction
from luamigrate.migration.dirty import UNTOLD, DirtyNames
from luamigrate.migration.listening import REMEMBERED, Listening
from luamigrate.migration.ownership import OwnWrites
from luamigrate.migration.proof import Proof
from luamigrate.migration.standing import Standing
from luamigrate.migration.throttle import SECONDS_TO_SLEEP
from luamigrate.model.control import Control
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import ConnectionLost
from luamigrate.server.listener import wait_for


class Hearing(Listening):
    """Puts what is told where it belongs; `told` counts changes of sources."""

    def __init__(self, deployment: Deployment, direction: Direction, standing: Standing, dirty: DirtyNames) -> None:
        super().__init__(deployment, direction.plan)
        self._direction, self._standing, self._dirty = direction, standing, dirty
        self._changed_and_copied = lru_cache(REMEMBERED)(self._find_changed_and_copied)
        self.own_writes = OwnWrites()
        self.proof: Proof | None = None
        """What takes the changes that are told while all pairs are compared."""

    @property
    def client_ids(self) -> dict[Connection, int | None]:
        """By which number each server knows the connection on which it tells of changes."""
        return self._listeners.client_ids

    @property
    def is_asked(self) -> bool:
        """Whether a barrier is under way."""
        return self._listeners.is_asked

    def turned(self) -> None:
        """Take what is told from now on the other way round: the direction has changed."""
        self._changed_and_copied.cache_clear()
        self.own_writes = OwnWrites()

    def keep_up(self, patience: float, control: Control, *, entirely: bool = False) -> None:
        """Take what has been told before anything is mirrored; `entirely`, all that was written before this call."""
        try:
            self.hear()
            ticket = self.barrier() if entirely else 0
            while self.passed < ticket and not control.stop():
                wait_for(self.listeners, SECONDS_TO_SLEEP)
                self.hear()
        except ConnectionLost:
            # The scan of both sides is still to come.
            self.listen_again(patience, control)

    def end_survey(self, patience: float, control: Control, *, owned: bool) -> None:
        """Take all that has been told. Targets that a follow `owned` are not extra where their sources just went."""
        self.keep_up(patience, control, entirely=True)
        for source in self._dirty.told() if owned else ():
            rule = self._plan.rule_for(source)
            # Of one name in two databases either may have been told.
            if rule and rule.target_of(source) != source:
                self._standing.extra.discard(source)

    def _sort(self, name: bytes, now: float) -> None:
        changed, copied = self._changed_and_copied(name)
        for source in changed:
            self.told += 1
            self._dirty.put(source, now)
            self._standing.source_told(source)
            if self.proof:
                self.proof.told(source)
        if not copied or (name in self.own_writes and not self.own_writes.told(name)):
            return
        for source in copied:
            self._standing.suspect(source)
            self._dirty.put(source, UNTOLD)

    def _find_changed_and_copied(self, name: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Return the pairs that a name may be of: as what the application writes, and as what is mirrored from that."""
        is_source, origins = self._find_meaning(name)
        sources = (name,) if is_source else ()
        return (origins, sources) if self._direction.is_back else (sources, origins)

    def listen_again(self, patience: float, control: Control) -> None:
        """Register anew, as soon as the server lets us. Raises Error where it does not in time, ServerChanged."""
        self._standing.loses_sight()
        super().listen_again(patience, control)
