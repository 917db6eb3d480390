"""What a follow is told, sorted: sources that have changed, and targets that somebody else has written."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache

from luamigrate.migration.dirty import UNTOLD, DirtyNames
from luamigrate.migration.ownership import OwnWrites
from luamigrate.migration.standing import Standing
from luamigrate.migration.throttle import SECONDS_TO_SLEEP
from luamigrate.model.control import Control
from luamigrate.model.errors import Error, Refused
from luamigrate.model.plans import Plan
from luamigrate.model.prefixes import told_prefixes
from luamigrate.preflight.following import CHANNEL
from luamigrate.server.connection import ANSWER_SECONDS, FIRST_DELAY
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import ConnectionLost, ServerChanged
from luamigrate.server.listener import EVERYTHING, Listener, Listeners, wait_for

REMEMBERED = 65_536
"""Names of which it is remembered what they are to the plan: many are told again and again."""


class Hearing:
    """Listens for a plan, to every server that has keys, and puts what is told where it belongs."""

    def __init__(self, deployment: Deployment, plan: Plan, standing: Standing, dirty: DirtyNames) -> None:
        self._deployment, self._plan, self._standing, self._dirty = deployment, plan, standing, dirty
        self._prefixes = told_prefixes(plan)
        self._meaning_of = lru_cache(REMEMBERED)(self._find_meaning)
        self.own_writes = OwnWrites()
        self.told = 0
        """Changes of sources that were told."""
        self.was_emptied = False
        """Whether a database was emptied since somebody last looked."""
        self._asked = 0.0
        self._listeners = self._listen()

    def _listen(self) -> Listeners:
        return Listeners(self._deployment.primaries, self._prefixes, CHANNEL)

    @property
    def listeners(self) -> list[Listener]:
        """What `select` waits for."""
        return self._listeners.all

    @property
    def hears_all(self) -> bool:
        """Whether every server that has keys now tells of changes."""
        return self._listeners.hear(self._deployment.primaries)

    @property
    def passed(self) -> int:
        """How many barriers there have been."""
        return self._listeners.passed

    @property
    def next_barrier(self) -> int:
        """How many will have passed after the next one that begins."""
        return self._listeners.next_barrier

    def barrier(self) -> int:
        """Begin a barrier; return how many will have passed after it."""
        if not self._listeners.is_asked:
            self._asked = time.monotonic()
        return self._listeners.barrier()

    def hear(self) -> bool:
        """Take all that has been told; return whether everything may have changed. Raises ConnectionLost."""
        now, everything = time.perf_counter(), False
        for names in self._listeners.read():
            if names is EVERYTHING:
                everything = self.was_emptied = True
            else:
                for name in names:
                    self._sort(name, now)
        if self._listeners.is_asked and time.monotonic() - self._asked > ANSWER_SECONDS:
            raise ConnectionLost(f"the listening connection was lost: nothing came for {ANSWER_SECONDS} s")
        return everything

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

    def sources_of(self, names: Iterable[bytes]) -> list[bytes]:
        """Return the sources among some names, and those of the targets among them."""
        found: list[bytes] = []
        for name in names:
            is_source, origins = self._meaning_of(name)
            found += (name, *origins) if is_source else origins
        return found

    def _find_meaning(self, name: bytes) -> tuple[bool, tuple[bytes, ...]]:
        """Return whether a name is a source, and the sources of which it is the target, in whatever database.

        Nobody tells in which database a name was written. Where source and target have one name, it is the source.
        """
        plan = self._plan
        origins = {origin[1] for database in plan.databases if (origin := plan.origin(name, database))}
        return plan.rule_for(name) is not None, tuple(origins - {name})

    def listen_again(self, patience: float, control: Control) -> None:
        """Register anew, as soon as the server lets us. Raises Error where it does not in time, ServerChanged."""
        deadline = time.monotonic() + patience
        self._listeners.close()
        # What waits for a barrier has to wait for one of the new connection.
        passed = self._listeners.passed + 2
        self._standing.loses_sight()
        while True:
            try:
                # It waits for the servers, and notices where one is another.
                for server in self._deployment.primaries:
                    server.keep_in_touch()
                self._listeners = self._listen()
            except (Refused, ServerChanged):
                raise
            except Error as problem:
                is_lost = any(server.is_lost for server in self._deployment.primaries)
                if is_lost or time.monotonic() > deadline or control.stop():
                    raise
                control.tell(f"waiting for the server: {problem}")
                time.sleep(FIRST_DELAY)
            else:
                self._listeners.passed = passed
                return

    def close(self) -> None:
        """Stop listening."""
        self._listeners.close()
