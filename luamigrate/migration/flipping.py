"""The flip of a cut-over: writes are held, what is left is mirrored, and the flag is set while nobody can have written.

What was told is mirrored until a barrier brings nothing. The server's count of changes, read before that barrier, is
the proof: flip.lua sets the flag only where nobody has written since.
"""

from __future__ import annotations

from collections.abc import Callable

from luamigrate.migration.dirty import UNTOLD
from luamigrate.migration.groups import streams_with_groups
from luamigrate.migration.keeper import Keeper
from luamigrate.migration.sides import CutoverState, Found
from luamigrate.model.cutover import CutoverOptions, Kill, Side, Wish
from luamigrate.model.errors import Error, Refused, printable
from luamigrate.model.following import Rescan
from luamigrate.scripts import cutover_calls, library
from luamigrate.scripts.cutover_calls import FlipReply
from luamigrate.server.changes import read_changes
from luamigrate.server.clients import Killed, kill, waiting_clients
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered, ConnectionLost, ScriptMissing, ServerChanged
from luamigrate.server.freeze import Freeze, permitted
from luamigrate.server.info import connected_replicas
from luamigrate.server.listener import wait_for

HARMLESS = "find_extra"
"""A script that does nothing where it is given no key; while others hold writes it is not answered."""
SCRIPTS = ("flip", "in_database", HARMLESS)
"""What is called for a cut-over: a server that holds writes keeps no new script."""
PAIRS_AT_ONCE = 50
"""In one packet, which has to stay small."""
SECONDS_TO_LOOK = 0.002
"""Between two looks at the clock, in a freeze."""
MOST_KILLED_NAMES = 5
"""Of whose connections were closed, as many are told."""
WAIT_MS = 100
"""For which a replica is waited for that has the flip too."""
SIDES = {Wish.CUTOVER: Side.TARGETS, Wish.BACK: Side.SOURCES}
"""The names that the application writes afterwards."""


def refuse_without_permission(deployment: Deployment) -> None:
    """Raise Refused where this user may not hold writes, or close connections."""
    for server in deployment.primaries:
        if problem := permitted(server):
            raise Refused(
                f"cut-over: this user may not do what a freeze needs: {problem}; grant +client|pause, +client|unpause, "
                "+client|kill and +client|list, or take --no-freeze"
            )


class NotNow(Exception):
    """Why nothing was flipped in this attempt; the next one may succeed."""


class Denied(Exception):
    """Why nothing was flipped, and another attempt would not help."""


class Flipper:
    """Flips the flag of one cut-over, there and back."""

    def __init__(
        self, state: CutoverState, keeper: Keeper, note: Callable[[str], None], *, copies_groups: bool
    ) -> None:
        """Take who is told of each step, and whether streams with groups are copied once more."""
        self._state, self._keeper, self._note = state, keeper, note
        self._deployment, self._options, self._control = state.deployment, state.options, state.control
        self._copies_groups = copies_groups
        self._streams: list[bytes] = []
        self.is_unsure = False
        """Whether the flag may have been flipped: the answer was lost."""
        self._lacks_scripts = False
        """Whether the server has lost scripts: somebody has emptied the cache, or it is another process."""

    def prepare(self) -> None:
        """Do what would take time, or could not be done, while writes are held. Raises Error."""
        # Not each time: Redis 6.2 holds that too while somebody else holds writes.
        if self._lacks_scripts:
            for server in self._deployment.primaries:
                for name in SCRIPTS:
                    library.register(server, name)
        self._lacks_scripts = False
        found = streams_with_groups(self._deployment, self._keeper.direction, self._control.stop)
        self._streams = [source for _, source in found] if self._copies_groups else []

    def copy_groups(self) -> int:
        """Have streams with groups copied once more, and return how many there are: nobody tells of their groups."""
        for source in self._streams:
            self._keeper.dirty.put(source, UNTOLD)
        if self._streams:
            self._note(f"streams with groups are copied once more: {len(self._streams):,}")
        return len(self._streams)

    def in_freeze(self, wish: Wish, found: Found) -> float:
        """Hold writes, and flip; return for how many milliseconds they were held.

        Raises NotNow where it took too long, Denied where the flag is another by now, and what calls do.
        """
        primaries = self._deployment.primaries
        home = self._deployment.node_for(self._state.flag)
        harmless = ("EVALSHA", library.digest(HARMLESS), 0, 1, 1)
        beside = {primaries[0]: self._keeper.mirror.connections}
        freeze = Freeze(primaries, home, self._options.freeze_ms, harmless, beside=beside)
        held = 0.0
        try:
            freeze.prepare()
            freeze.begin()
            killed = self._flip_frozen(freeze, home, wish, found)
        except ScriptMissing:
            self._lacks_scripts = True
            raise
        except (ConnectionLost, ServerChanged):
            if self.is_unsure:
                # If it was flipped, nobody who has read the old flag may go on.
                self._kill(freeze, self._options.kill)
            raise
        finally:
            held = freeze.end()
            self._keeper.mirror.may_wait = 0 if self._keeper.direction.is_back else None
        self._note(f"writes were frozen for {held:.1f} ms; {_killed_text(killed, self._options)}")
        return held

    def in_quiet(self, wish: Wish, found: Found) -> None:
        """Flip without holding writes: what is told from now on is a straggler's. Raises NotNow, Denied."""
        self._announce(wish)
        self._flip(self._deployment.node_for(self._state.flag), wish, found, deadline=None, changes=None)

    def _announce(self, wish: Wish) -> None:
        try:
            if wish is Wish.CUTOVER:
                self._state.announce()
        except Refused as problem:
            raise Denied(str(problem).removeprefix("cut-over: ")) from None

    def _flip_frozen(self, freeze: Freeze, home: Connection, wish: Wish, found: Found) -> Killed:
        # Workers that wait for jobs under the new names take none while these are mirrored back.
        if wish is Wish.BACK:
            self._free_queues(freeze)
        self._announce(wish)
        self.copy_groups()
        while True:
            mark = self._drained(freeze, home)
            if self._flip(home, wish, found, deadline=freeze.deadline, changes=mark):
                break
            self._note("somebody wrote between the last barrier and the flip: drained again")
        # First, for a replica may take as long as is left, and then what is held is carried out.
        killed = self._kill(freeze, self._options.kill)
        self._wait_for_replica(freeze, home)
        return killed

    def _free_queues(self, freeze: Freeze) -> None:
        """Close the connections of who waits for jobs. Raises NotNow where somebody still does."""
        if self._keeper.waiting:
            self._kill(freeze, Kill.NONE if self._options.kill is Kill.NONE else Kill.HELD)
            if any(
                database == self._deployment.database for database in waiting_clients(self._deployment.primaries[0])
            ):
                raise NotNow("clients wait for something, and would be handed what is mirrored back: stop them")
        self._keeper.try_waiting(in_freeze=True)
        self._keeper.mirror.may_wait = None

    def _drained(self, freeze: Freeze, home: Connection) -> bytes:
        """Mirror what was told until a barrier brings nothing; return the mark of changes from before that barrier."""
        keeper, hearing, mark, ticket = self._keeper, self._keeper.hearing, b"", 0
        while not (freeze.is_over or self._control.stop()):
            mirror = keeper.mirror
            wait_for([*hearing.listeners, *mirror.busy], 0 if mirror.has_arrived else SECONDS_TO_LOOK)
            if hearing.hear():
                keeper.doubt = keeper.doubt or Rescan.EMPTIED
            keeper.take_all()
            keeper.after_barriers()
            keeper.send_a_little(PAIRS_AT_ONCE)
            if trouble := self._trouble():
                raise NotNow(trouble)
            if keeper.is_busy or keeper.standing.is_doubtful:
                ticket = 0
                if keeper.standing.is_doubtful and not hearing.is_asked:
                    hearing.barrier()
            elif not ticket:
                freeze.confirm()
                mark, ticket = read_changes(home), hearing.barrier()
            elif hearing.passed >= ticket:
                return mark
        if self._control.stop():
            raise NotNow("it was stopped")
        problem = freeze.problem
        raise NotNow(str(problem) if problem else f"the {self._options.freeze_ms} ms of --freeze were not enough")

    def _trouble(self) -> str:
        """Say what cannot be put right while writes are held; empty where nothing is wrong."""
        keeper = self._keeper
        if keeper.doubt:
            return f"{keeper.doubt}: both sides are compared again"
        if keeper.fence is not None:
            return "the lease was lost"
        if keeper.large:
            return "a big key has changed, whose copy would take too long"
        return keeper.standing.trouble

    def _flip(self, home: Connection, wish: Wish, found: Found, *, deadline: int | None, changes: bytes | None) -> bool:
        """Set the flag; return False where somebody has written since the mark of changes was read."""
        flag, record, value = self._state.flag, self._state.record, self._options.value
        self.is_unsure = True
        if wish is Wish.CUTOVER:
            reply = cutover_calls.flip(
                home, flag, record, value=value, former=found.former, deadline=deadline, changes=changes
            )
        else:
            reply = cutover_calls.flip_back(home, flag, record, value=value, deadline=deadline, changes=changes)
        self.is_unsure = reply is FlipReply.FLIPPED
        match reply:
            case FlipReply.LATE:
                raise NotNow(f"late: the {self._options.freeze_ms} ms of --freeze had passed before the flip")
            case FlipReply.OTHER:
                raise Denied(f"somebody else has written the flag '{printable(flag)}' or its record: see who")
            case FlipReply.FLIPPED:
                self._keeper.turn(SIDES[wish])
                self.is_unsure = False
        return reply is FlipReply.FLIPPED

    def _wait_for_replica(self, freeze: Freeze, home: Connection) -> None:
        """Have a replica take the flip too, so that a failover does not undo it."""
        most_ms = max(1, min(WAIT_MS, int(freeze.left_ms)))
        try:
            if connected_replicas(home) and not home.call("WAIT", 1, most_ms).answer():
                self._note(f"no replica has confirmed the flip within {most_ms} ms: a failover now may undo it")
        except Answered as problem:
            self._note(f"nobody can tell whether a replica has the flip: {problem}")

    def _kill(self, freeze: Freeze, kind: Kill) -> Killed:
        """Close connections; what they have sent and is held is never carried out."""
        ours = {
            server: [
                freeze.client_ids.get(server),
                self._keeper.hearing.client_ids.get(server),
                *(connection.client_id for connection in self._keeper.mirror.connections),
            ]
            for server in self._deployment.primaries
        }
        plan = self._keeper.direction.plan
        databases = {self._deployment.database if each is None else each for each in (None, *plan.databases)}
        try:
            return kill(
                self._deployment.primaries, kind=kind, user=self._options.kill_user, databases=databases, ours=ours
            )
        except Error as problem:
            self._note(f"connections could not be closed: {problem}")
            return Killed()


def _killed_text(killed: Killed, options: CutoverOptions) -> str:
    if options.kill is Kill.NONE:
        return (
            "no connection was closed (--kill none): whoever has read the flag before may write once more the names "
            "that were left"
        )
    names = ", ".join(
        f"{count:,} of {name or 'no name'}" for name, count in killed.names.most_common(MOST_KILLED_NAMES)
    )
    closed = "1 connection was closed" if killed.count == 1 else f"{killed.count:,} connections were closed"
    return closed + (f": {names}" if names else "")
