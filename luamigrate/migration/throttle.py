"""Guards that watch the servers while the work goes on: why it waits, and when it stops.

A guard measures once a second at most; `Throttle.wait` decides. Whoever waits says why, all the time. Nothing is
lost by waiting or stopping: what is in flight is finished, and running again continues.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, field

from luamigrate.migration.pace import Rate
from luamigrate.migration.verbs import Verb
from luamigrate.model.control import Control
from luamigrate.model.errors import Stopped
from luamigrate.model.limits import FULL, Limits
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import ConnectionLost
from luamigrate.server.info import behind_by, number, read_info, tells_how_far_replicas_are

SECONDS_BETWEEN_CHECKS = 1.0
SECONDS_TO_SLEEP = 0.1
"""At once, so that a wish to stop is heard."""


ACKNOWLEDGED_MS = 500
"""How long one WAIT waits."""


@dataclass(kw_only=True)
class Throttle:
    """The guards of one command: they have it wait, or stop it."""

    deployment: Deployment
    limits: Limits
    verb: Verb
    """Only where it writes replicas matter, and memory where it copies."""
    ignored: frozenset[str]
    """Names of guards that are not to be heard."""
    control: Control
    rate: Rate = field(init=False)
    """The rate of all batches together, whichever server they go to."""
    _watched: dict[Connection, _WatchedServer] = field(default_factory=dict, init=False)
    _checked: float = field(default=-math.inf, init=False)
    _reason: str = field(default="", init=False)
    _scarce_since: float | None = field(default=None, init=False)
    _refused_since: float | None = field(default=None, init=False)
    _given_up: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.rate = Rate(self.limits)

    def must_wait(self) -> bool:
        """Tell whether there is a reason to wait now. Raises Stopped where waiting will not help."""
        return bool(self._seconds_to_wait()) or bool(self.reason_to_wait())

    def wait(self) -> None:
        """Wait for as long as there is a reason to. Raises Stopped where waiting will not help."""
        while (reason := self.reason_to_wait()) and not self.control.stop():
            self.control.tell(reason)
            self.rest(SECONDS_TO_SLEEP)
        while (seconds := self._seconds_to_wait()) and not self.control.stop():
            self.rest(min(seconds, SECONDS_TO_SLEEP))

    def _seconds_to_wait(self) -> float:
        self._take_limits()
        return self.rate.seconds_to_wait(time.monotonic)

    def _take_limits(self) -> None:
        """Go by the limits that have been changed meanwhile."""
        limits = self.control.limits()
        if limits and limits is not self.limits:
            self.limits = limits
            self.rate.limit(limits)

    def refused(self, words: str) -> None:
        """Wait a moment, because a server takes no writes. Raises Stopped where that lasts."""
        if "READONLY" in words:
            self.deployment.find_primary(
                Stopped("role: the server has become a replica; give the address of the primary")
            )
        reason = f"writes: the server takes none: {words}"
        self._refused_since = time.monotonic() if self._refused_since is None else self._refused_since
        self._give_up_after(self._refused_since + self.limits.patience, reason)
        self.control.tell(reason)
        self.rest(SECONDS_TO_SLEEP)

    def accepted(self) -> None:
        """Note that the server takes writes, and wait for replicas to have them."""
        self._refused_since = None
        if self._given_up:
            return  # what is still in flight is only counted
        if self.limits.wait_replicas and self.verb.writes and "replicas" not in self.ignored:
            for server in self._servers():
                self._wait_for_replicas(server, self.limits.wait_replicas)

    def rest(self, seconds: float) -> None:
        """Wait for so long, and be heard by the servers, which may close a connection on which nothing is."""
        time.sleep(seconds)
        for server in self.deployment.primaries:
            server.keep_in_touch()

    def end(self) -> None:
        """Check a last time. Raises Stopped, or ServerChanged."""
        self.deployment.confirm()
        if self.verb.copies:
            self._stop_if_evicting()

    def _servers(self) -> list[_WatchedServer]:
        return [
            self._watched.setdefault(server, _WatchedServer(server, server.connections))
            for server in self.deployment.primaries
        ]

    def _wait_for_replicas(self, server: _WatchedServer, wanted: int) -> None:
        deadline = time.monotonic() + self.limits.patience
        while not self.control.stop():
            found = server.replicas_with_all(wanted)
            if found is None:
                reason = "replicas: the server does not tell how far they are (INFO replication), for --wait-replicas"
            elif found < wanted:
                reason = f"replicas: {found} of {wanted} have acknowledged what was written (--wait-replicas)"
            else:
                return
            self._give_up_after(deadline, reason)
            self.control.tell(reason)

    def reason_to_wait(self) -> str:
        """Return why to wait now, empty for no reason. Raises Stopped where waiting will not help."""
        self._take_limits()
        if self.control.paused():
            self._scarce_since = None  # whoever paused it may be making room
            return "paused by SIGUSR1 or by control: the signal again, or resume, goes on"
        now = time.monotonic()
        if self.verb.writes and now - self._checked >= SECONDS_BETWEEN_CHECKS:
            self._checked = now
            if self.verb.copies:
                self._stop_if_evicting()
            self._reason = (self.verb.copies and self._memory()) or self._lag()
        return self._reason

    def _stop_if_evicting(self) -> None:
        evicted = sum(server.newly_evicted() for server in self._servers())
        if evicted and "eviction" not in self.ignored:
            raise Stopped(
                f"eviction: the server has evicted {evicted:,} keys meanwhile, perhaps sources: "
                "give it more memory, or set maxmemory-policy to noeviction"
            )

    def _memory(self) -> str:
        used = max(server.memory_used() for server in self._servers())
        if used < FULL or "memory" in self.ignored:
            self._scarce_since = None
            return ""
        reason = f"memory: {used:.0%} of maxmemory is used, from {FULL:.0%} on nothing is copied; give it more"
        self._scarce_since = time.monotonic() if self._scarce_since is None else self._scarce_since
        self._give_up_after(self._scarce_since + self.limits.patience, reason)
        return reason

    def _lag(self) -> str:
        if not self.limits.max_lag or "replicas" in self.ignored:
            return ""
        behind = {name: lag for server in self._servers() for name, lag in server.behind().items()}
        name, most = max(behind.items(), key=lambda item: item[1], default=("", 0))
        if most <= self.limits.max_lag:
            return ""
        return f"replicas: {name} is {most:,} bytes behind, more than {self.limits.max_lag:,} (--max-lag)"

    def _give_up_after(self, deadline: float, reason: str) -> None:
        if self._given_up or time.monotonic() >= deadline:
            self._given_up = True
            raise Stopped(f"{reason}; it was waited for {self.limits.patience:.0f} s")


@dataclass
class _WatchedServer:
    """What is known of a server that is watched."""

    server: Connection
    acknowledged_on: int
    """The connection on which everything was written that has not been acknowledged."""
    offset: int = -1
    """The offset by which a replica has all that was written on former connections; -1 where nobody has asked."""
    evicted: int | None = None
    evicted_by: str = ""

    def newly_evicted(self) -> int:
        """How many keys it has evicted since it was asked last."""
        evicted = number(read_info(self.server, "stats"), "evicted_keys")
        if evicted is None:
            return 0  # what it tells the next time is compared with what it told the last time
        known = self.evicted if self.evicted_by == self.server.identity.run_id else None
        self.evicted, self.evicted_by = evicted, self.server.identity.run_id
        return 0 if known is None else max(0, evicted - known)

    def memory_used(self) -> float:
        """Which part of maxmemory is used; 0 where there is none, or the server does not tell."""
        memory = read_info(self.server, "memory")
        most = number(memory, "maxmemory")
        return (number(memory, "used_memory") or 0) / most if most else 0.0

    def replicas_with_all(self, wanted: int) -> int | None:
        """Count the replicas that have all that was written, waiting for them a moment; None where nobody tells."""
        if self.server.connections == self.acknowledged_on:
            with suppress(ConnectionLost):
                found = self.server.call("WAIT", wanted, ACKNOWLEDGED_MS, once=True).answer()
                return found if isinstance(found, int) else 0
        # WAIT speaks of what was written on its own connection: for a former one, the offsets have to.
        time.sleep(SECONDS_TO_SLEEP)
        facts = read_info(self.server, "replication")
        written = number(facts, "master_repl_offset")
        if written is None:
            return None
        self.offset = written if self.offset < 0 else self.offset
        found = sum(written - behind >= self.offset for behind in behind_by(facts).values())
        if found < wanted and not tells_how_far_replicas_are(facts):
            return None
        if found >= wanted:
            self.acknowledged_on, self.offset = self.server.connections, -1
        return found

    def behind(self) -> dict[str, int]:
        """By how many bytes each replica is behind."""
        return behind_by(read_info(self.server, "replication"))
