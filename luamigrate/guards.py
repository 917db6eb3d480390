"""What is watched while the work is under way: why it waits, and when it stops.

A guard measures once a second at most; `hold` decides. Whoever waits says why, all the time. Nothing is
lost by waiting or stopping: what is under way is finished, and running again continues.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from luamigrate.errors import Refused, Stopped
from luamigrate.pace import Limits, Pace
from luamigrate.servers import Answered, ConnectionLost, Server, read_info

SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_SLEEP = 0.1
"""At once, so that a wish to stop is heard."""

FULL = 0.95
"""Of maxmemory: copying waits from here on."""

ACKNOWLEDGED_MS = 500
"""How long one WAIT waits."""

_REPLICA = re.compile(r"ip=(?P<ip>[^,]*),port=(?P<port>\d+),.*offset=(?P<offset>\d+)")


@dataclass(kw_only=True)
class Guards:
    """The guards of one walk."""

    server: Server
    limits: Limits
    pace: Pace
    writes: bool
    """Whether the work writes: only then replicas matter."""
    copies: bool
    """Whether it takes memory."""
    ignored: frozenset[str]
    """Names of guards that are not to be heard."""
    stop: Callable[[], bool]
    held: Callable[[], bool]
    """Whether the user wants it to wait."""
    tell: Callable[[str], None]
    _looked: float = field(default=0.0, init=False)
    _evicted: int | None = field(default=None, init=False)
    _evicted_by: str = field(default="", init=False)
    _offset: int = field(default=-1, init=False)
    """Of replication: who has got so far has all that was written on former connections; -1 where not asked."""
    _reason: str = field(default="", init=False)
    _scarce_since: float = field(default=0.0, init=False)
    _refused_since: float = field(default=0.0, init=False)
    _acknowledged_on: int = field(init=False)
    """The connection on which everything was written that has not been acknowledged."""

    def __post_init__(self) -> None:
        self._acknowledged_on = self.server.connections

    def hold(self) -> None:
        """Wait for as long as there is a reason to. Raises Stopped where waiting will not help."""
        while (reason := self._reason_to_wait()) and not self.stop():
            self.tell(reason)
            self._sleep(SECONDS_TO_SLEEP)
        while (seconds := self.pace.seconds_to_wait(time.monotonic)) and not self.stop():
            self._sleep(min(seconds, SECONDS_TO_SLEEP))

    def refused(self, words: str) -> None:
        """Wait a moment, because the server takes no writes. Raises Stopped where that lasts."""
        if "READONLY" in words:
            self.server.recover(Stopped("role: the server has become a replica; give the address of the primary"))
            return
        reason = f"writes: the server takes none: {words}"
        self._refused_since = self._refused_since or time.monotonic()
        self._give_up_after(self._refused_since + self.limits.patience, reason)
        self.tell(reason)
        self._sleep(SECONDS_TO_SLEEP)

    def accepted(self) -> None:
        """Note that the server takes writes, and wait for replicas to have them."""
        self._refused_since = 0.0
        if self.limits.wait_replicas and self.writes and "replicas" not in self.ignored:
            self._wait_for_replicas(self.limits.wait_replicas)

    def end(self) -> None:
        """Look a last time. Raises Stopped."""
        if self.copies:
            self._look_for_evictions()

    def _wait_for_replicas(self, wanted: int) -> None:
        deadline = time.monotonic() + self.limits.patience
        while not self.stop() and (found := self._replicas_with_all()) < wanted:
            reason = f"replicas: {found} of {wanted} have acknowledged what was written (--wait-replicas)"
            self._give_up_after(deadline, reason)
            self.tell(reason)

    def _replicas_with_all(self) -> int:
        """Count the replicas that have all that was written, waiting for them a moment."""
        if self.server.connections == self._acknowledged_on:
            with suppress(ConnectionLost):
                found = self.server.call("WAIT", self.limits.wait_replicas, ACKNOWLEDGED_MS, once=True).answer()
                return found if isinstance(found, int) else 0
        # WAIT speaks of what was written on its own connection: for a former one, the offsets have to.
        time.sleep(SECONDS_TO_SLEEP)
        facts = read_info(self.server, "replication")
        written = int(facts.get("master_repl_offset", 0))
        self._offset = written if self._offset < 0 else self._offset
        found = sum(written - behind >= self._offset for behind in self._behind(facts).values())
        if found >= self.limits.wait_replicas:
            self._acknowledged_on, self._offset = self.server.connections, -1
        return found

    def _reason_to_wait(self) -> str:
        if self.held():
            self._scarce_since = 0.0  # whoever holds it may be making room
            return "held by SIGUSR1: the same signal again goes on"
        now = time.monotonic()
        if self.writes and now - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._looked = now
            if self.copies:
                self._look_for_evictions()
            self._reason = (self.copies and self._memory()) or self._lag()
        return self._reason

    def _look_for_evictions(self) -> None:
        evicted = int(read_info(self.server, "stats").get("evicted_keys", 0))
        if self._evicted_by != self.server.identity.run_id:
            self._evicted, self._evicted_by = None, self.server.identity.run_id
        if self._evicted is not None and evicted > self._evicted and "eviction" not in self.ignored:
            raise Stopped(
                f"eviction: the server has evicted {evicted - self._evicted:,} keys meanwhile, perhaps sources: "
                "give it more memory, or set maxmemory-policy to noeviction"
            )
        self._evicted = evicted

    def _memory(self) -> str:
        memory = read_info(self.server, "memory")
        used, most = int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0))
        if not most or used < FULL * most or "memory" in self.ignored:
            self._scarce_since = 0.0
            return ""
        reason = f"memory: {used / most:.0%} of maxmemory is used, from {FULL:.0%} on nothing is copied; give it more"
        self._scarce_since = self._scarce_since or time.monotonic()
        self._give_up_after(self._scarce_since + self.limits.patience, reason)
        return reason

    def _lag(self) -> str:
        if not self.limits.max_lag or "replicas" in self.ignored:
            return ""
        behind = self._behind(read_info(self.server, "replication"))
        name, most = max(behind.items(), key=lambda item: item[1], default=("", 0))
        if most <= self.limits.max_lag:
            return ""
        return f"replicas: {name} is {most:,} bytes behind, more than {self.limits.max_lag:,} (--max-lag)"

    def _behind(self, facts: dict[str, str]) -> dict[str, int]:
        """Return by how many bytes each replica is behind."""
        written = int(facts.get("master_repl_offset", 0))
        return {
            f"{match['ip']}:{match['port']}": written - int(match["offset"])
            for name, text in facts.items()
            if re.fullmatch(r"slave\d+", name) and (match := _REPLICA.search(text))
        }

    def _give_up_after(self, deadline: float, reason: str) -> None:
        if time.monotonic() >= deadline:
            raise Stopped(f"{reason}; it was waited for {self.limits.patience:.0f} s")

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        # A server may close a connection on which nothing is heard, and one that is lost is noticed.
        with suppress(Refused, Answered):
            self.server.call("PING").answer()
