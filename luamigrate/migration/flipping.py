"""The flip of a cut-over: writes are held, what is left is mirrored, and the flag is set while nobody can have written.

What was told is mirrored until a barrier brings nothing. The server's count of changes, read before that barrier, is
the proof: flip.lua sets the flag only where nobody has written since.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

from luamigrate.migration.keeper import Keeper
from luamigrate.migration.lease import Lease
from luamigrate.migration.sides import CutoverState, Found
from luamigrate.migration.witness import Witness
from luamigrate.model.control import Control
from luamigrate.model.cutover import CutoverOptions, Kill, Side, Wish
from luamigrate.model.errors import Error, printable
from luamigrate.model.following import Rescan
from luamigrate.scripts import cutover_calls, library
from luamigrate.scripts.cutover_calls import FlipReply
from luamigrate.server.changes import UNKNOWN
from luamigrate.server.clients import Killed, kill, waiting_clients
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.freeze import Freeze, permitted
from luamigrate.server.info import connected_replicas
from luamigrate.server.listener import wait_for

HARMLESS = "find_extra"
"""A script that does nothing where it is given no key; while others hold writes it is not answered."""
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


class NotNow(Exception):
    """Why nothing was flipped in this attempt; the next one may succeed."""


class Denied(Exception):
    """Why nothing was flipped, and another attempt would not help."""


@dataclass
class Flipper:
    """Flips the flag of one cut-over, there and back."""

    deployment: Deployment
    options: CutoverOptions
    control: Control
    keeper: Keeper
    lease: Lease
    state: CutoverState
    note: Callable[[str], None]
    """Is told of each step."""
    is_unsure: bool = field(init=False, default=False)
    """Whether the flag may have been flipped: the answer was lost."""

    def prepare(self) -> None:
        """Do what can be done before. Raises Denied where this user may not hold writes or close connections."""
        for server in self.deployment.primaries:
            for name in ("flip", HARMLESS):
                library.register(server, name)
            if self.options.freezes and (problem := permitted(server)):
                raise Denied(
                    f"this user may not do what a freeze needs: {problem}; grant +client|pause, +client|unpause, "
                    "+client|kill and +client|list, or use --no-freeze"
                )

    def in_freeze(self, wish: Wish, found: Found) -> float:
        """Hold writes, and flip; return for how many milliseconds they were held.

        Raises NotNow where it took too long, Denied where the flag is another by now, and what calls do.
        """
        primaries = self.deployment.primaries
        home = self.deployment.node_for(self.state.flag)
        harmless = ("EVALSHA", library.digest(HARMLESS), 0, 1, 1)
        self._confirm_nodes()
        self.keeper.mirror.prepare()
        freeze = Freeze(primaries, home, self.options.freeze_ms, harmless, beside=self.keeper.mirror.connections)
        witness = Witness(self.deployment, home)
        held = 0.0
        try:
            freeze.prepare()
            if reason := witness.begin():
                raise NotNow(reason)
            freeze.begin()
            killed = self._flip_frozen(freeze, witness, wish, found)
        finally:
            held = freeze.end()
            self.keeper.mirror.may_wait = 0 if self.keeper.direction.is_back else None
        self.note(f"writes were held for {held:.1f} ms; {_killed_text(killed, self.options)}")
        return held

    def in_quiet(self, wish: Wish, found: Found) -> None:
        """Flip without holding writes: what is told from now on is a straggler's. Raises NotNow, Denied."""
        self._flip(self.deployment.node_for(self.state.flag), wish, found, deadline=None, changes=None)

    def _confirm_nodes(self) -> None:
        """See that the nodes of a cluster are those that we listen to. Raises NotNow, ServerChanged."""
        if self.deployment.slots:
            self.deployment.confirm()
            if not self.keeper.hearing.hears_all:
                raise NotNow("a node has joined that is not listened to yet")

    def _flip_frozen(self, freeze: Freeze, witness: Witness, wish: Wish, found: Found) -> Killed:
        # Workers that wait for jobs under the new names take none while these are mirrored back.
        if wish is Wish.BACK:
            self._free_queues(freeze)
        while True:
            mark = self._drained(freeze, witness)
            if reason := witness.refusal():
                raise NotNow(reason)
            if self._flip(witness.home, wish, found, deadline=freeze.deadline, changes=mark):
                break
            self.note("somebody wrote between the last barrier and the flip: drained again")
        try:
            self._say_what_is_doubtful(freeze, witness)
            self._wait_for_replica(freeze, witness.home)
        except Error as problem:
            # It is flipped all the same.
            self.note(f"see whether stragglers are told, for after the flip there was a problem: {problem}")
        return self._kill(freeze, self.options.kill)

    def _free_queues(self, freeze: Freeze) -> None:
        """Close the connections of who waits for jobs. Raises NotNow where somebody still does."""
        if self.keeper.waiting:
            self._kill(freeze, Kill.NONE if self.options.kill is Kill.NONE else Kill.HELD)
            waiting = chain.from_iterable(map(waiting_clients, self.deployment.primaries))
            if self.deployment.database in waiting:
                raise NotNow("clients wait for something, and would be handed what is mirrored back: stop them")
        self.keeper.try_waiting(in_freeze=True)
        self.keeper.mirror.may_wait = None

    def _drained(self, freeze: Freeze, witness: Witness) -> bytes:
        """Mirror what was told until a barrier brings nothing; return the mark of changes from before that barrier."""
        keeper, hearing, mark, ticket = self.keeper, self.keeper.hearing, b"", 0
        while not (freeze.is_over or self.control.stop()):
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
                mark = witness.read_changes()
                ticket = 0 if mark == UNKNOWN else hearing.barrier()
            elif hearing.passed >= ticket:
                return mark
        if self.control.stop():
            raise NotNow("it was stopped")
        problem = freeze.problem
        raise NotNow(str(problem) if problem else f"the {self.options.freeze_ms} ms of --freeze were not enough")

    def _trouble(self) -> str:
        """Say what cannot be put right while writes are held; empty where nothing is wrong."""
        keeper = self.keeper
        if keeper.doubt:
            return f"{keeper.doubt}: both sides are compared again"
        if keeper.fence is not None:
            return "the lease was lost"
        if keeper.large:
            return "a big key has changed, whose copy would take too long"
        return keeper.standing.trouble

    def _flip(self, home: Connection, wish: Wish, found: Found, *, deadline: int | None, changes: bytes | None) -> bool:
        """Set the flag; return False where somebody has written since the mark of changes was read."""
        flag, record, value = self.state.flag, self.state.record, self.options.value
        self.is_unsure = True
        if wish is Wish.CUTOVER:
            reply = cutover_calls.flip(
                home, flag, record, value=value, former=found.former, deadline=deadline, changes=changes
            )
        else:
            reply = cutover_calls.flip_back(home, flag, record, value=value, deadline=deadline, changes=changes)
        self.is_unsure = False
        match reply:
            case FlipReply.LATE:
                raise NotNow(f"late: the {self.options.freeze_ms} ms of --freeze had passed before the flip")
            case FlipReply.OTHER:
                raise Denied(f"somebody else has written the flag '{printable(flag)}' or its record: see who")
            case FlipReply.FLIPPED:
                self.keeper.turn(SIDES[wish])
        return reply is FlipReply.FLIPPED

    def _say_what_is_doubtful(self, freeze: Freeze, witness: Witness) -> None:
        for doubt in [*witness.doubts(), *([] if freeze.left_ms else ["writes were not held any more"])]:
            self.note(f"see whether stragglers are told, for this may have let them write: {doubt}")

    def _wait_for_replica(self, freeze: Freeze, home: Connection) -> None:
        """Have a replica take the flip too, so that a failover does not undo it."""
        if connected_replicas(home) and not home.call("WAIT", 1, max(1, min(WAIT_MS, int(freeze.left_ms)))).answer():
            self.note(f"no replica has confirmed the flip within {WAIT_MS} ms: a failover now may undo it")

    def _kill(self, freeze: Freeze, kind: Kill) -> Killed:
        """Close connections; what they have sent and is held is never carried out."""
        ours = {
            server: [
                freeze.client_ids.get(server),
                self.keeper.hearing.client_ids.get(server),
                *(connection.client_id for connection in self.keeper.mirror.connections.get(server, ())),
                *(connection.client_id for connection in self.deployment.lent(server)),
            ]
            for server in self.deployment.primaries
        }
        plan = self.keeper.direction.plan
        databases = {self.deployment.database if each is None else each for each in (None, *plan.databases)}
        try:
            return kill(
                self.deployment.primaries, kind=kind, user=self.options.kill_user, databases=databases, ours=ours
            )
        except Error as problem:
            self.note(f"connections could not be closed: {problem}")
            return Killed()


def _killed_text(killed: Killed, options: CutoverOptions) -> str:
    if options.kill is Kill.NONE:
        return "no connection was closed (--kill none): whoever has read the old flag may write the old names once more"
    names = ", ".join(
        f"{count:,} of {name or 'no name'}" for name, count in killed.names.most_common(MOST_KILLED_NAMES)
    )
    return f"{killed.count:,} connections were closed" + (f": {names}" if names else "")
