"""What a plan's servers tell of changes, taken in: every name with what it is to the plan."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from functools import lru_cache

from luamigrate.model.control import Control
from luamigrate.model.errors import Error, Refused
from luamigrate.model.plans import Plan
from luamigrate.model.prefixes import told_prefixes
from luamigrate.preflight.following import CHANNEL
from luamigrate.server.connection import ANSWER_SECONDS, FIRST_DELAY
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import ConnectionLost, ServerChanged
from luamigrate.server.listener import EVERYTHING, Listener, Listeners

REMEMBERED = 65_536
"""Names of which it is remembered what they are to the plan: many are told again and again."""


class Listening(ABC):
    """Listens for a plan, to every server that has keys; what is told of a name goes to `_sort`."""

    def __init__(self, deployment: Deployment, plan: Plan) -> None:
        """Register for both sides. Raises Refused where a server does not tell this user, Error."""
        self._deployment, self._plan = deployment, plan
        self._prefixes = told_prefixes(plan)
        self._meaning_of = lru_cache(REMEMBERED)(self._find_meaning)
        self.told = 0
        """Changes that were told, as far as they are counted."""
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

    @abstractmethod
    def _sort(self, name: bytes, now: float) -> None:
        """Put a name that was told, now by `time.perf_counter`, where it belongs."""

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
