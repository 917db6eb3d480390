"""What a follow is told, sorted: sources that have changed, and targets that somebody else has written."""

from __future__ import annotations

from luamigrate.migration.dirty import UNTOLD, DirtyNames
from luamigrate.migration.listening import Listening
from luamigrate.migration.ownership import OwnWrites
from luamigrate.migration.standing import Standing
from luamigrate.model.control import Control
from luamigrate.model.plans import Plan
from luamigrate.server.deployment import Deployment


class Hearing(Listening):
    """Puts what is told where it belongs; `told` counts changes of sources."""

    def __init__(self, deployment: Deployment, plan: Plan, standing: Standing, dirty: DirtyNames) -> None:
        super().__init__(deployment, plan)
        self._standing, self._dirty = standing, dirty
        self.own_writes = OwnWrites()

    def _sort(self, name: bytes, now: float) -> None:
        is_source, origins = self._meaning_of(name)
        if is_source:
            self.told += 1
            self._dirty.put(name, now)
            self._standing.source_told(name)
        if not origins or (name in self.own_writes and not self.own_writes.told(name)):
            return
        for source in origins:
            self._standing.suspect(source)
            self._dirty.put(source, UNTOLD)

    def listen_again(self, patience: float, control: Control) -> None:
        """Register anew, as soon as the server lets us. Raises Error where it does not in time, ServerChanged."""
        self._standing.loses_sight()
        super().listen_again(patience, control)
