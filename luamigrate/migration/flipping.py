"""The flip of a cut-over: writes are held, what is left is mirrored, and the flag is set while nobody can have written.

What was told is mirrored until a barrier brings nothing. The server's count of changes, read before that barrier, is
the proof: flip.lua sets the flag only where nobody has written since.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any

from luamigrate.migration.cross_slot_mirror import scripts_for
from luamigrate.migration.dirty import UNTOLD
from luamigrate.migration.groups import streams_with_groups
from luamigrate.migration.keeper import Keeper
from luamigrate.migration.sides import CutoverState, Found
from luamigrate.migration.witness import Witness
from luamigrate.model.cutover import CutoverOptions, Kill, Side, Wish
from luamigrate.model.errors import Error, Refused, printable
from luamigrate.model.following import Rescan
from luamigrate.scripts import cutover_calls, library
from luamigrate.scripts.cutover_calls import FlipReply, Together
from luamigrate.server.changes import UNKNOWN
from luamigrate.server.clients import Client, Killed, chosen, kill, waiting_clients
from luamigrate.server.connection import Connection
from luamigrate.server.errors import Answered, ConnectionLost, ScriptMissing, ServerChanged
from luamigrate.server.freeze import Freeze
from luamigrate.server.info import connected_replicas
from luamigrate.server.listener import wait_for

HARMLESS = "find_extra"
"""A script that does nothing where it is given no key; while others hold writes it is not answered."""
SCRIPTS = ("flip", "in_database", HARMLESS)
"""What is called for a cut-over: a server that holds writes keeps no new script."""
PAIRS_AT_ONCE = 50
"""In one packet, which has to stay small; in a cluster each node gets one."""
SHARE_TO_CLOSE = 0.2
"""Of a freeze, what is left at least after the flip: in that time connections are closed."""
MOST_CLOSED_AT_ONCE = 250
"""Connections, by the packet that flips: it has to stay small. The others are closed behind it."""
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


class Flipper:
    """Flips the flag of one cut-over, there and back."""

    def __init__(
        self, state: CutoverState, keeper: Keeper, note: Callable[[str], None], *, copies_groups: bool
    ) -> None:
        """Take who is told of each step, and whether streams with groups are copied once more."""
        self._state, self._keeper, self._note = state, keeper, note
        self._deployment, self._options, self._control = state.deployment, state.options, state.control
        self._copies_groups = copies_groups
        self.streams: list[bytes] = []
        """The old names of streams with groups, of whose changes nobody is told."""
        self._with_scripts = {server.identity.run_id for server in self._deployment.primaries}
        """Server processes that have all scripts, as they should when a follow begins."""
        self._killed = Killed()
        """Connections that were closed with the flip."""
        self.is_unsure = False
        """Whether the flag may have been flipped: the answer was lost."""

    def prepare(self) -> None:
        """Do what would take time, or could not be done, while writes are held. Raises Error."""
        found = streams_with_groups(self._deployment, self._keeper.direction, self._control.stop)
        self.streams = [source for _, source in found] if self._copies_groups else []

    def copy_groups(self) -> int:
        """Have streams with groups copied once more, and return how many there are: nobody tells of their groups."""
        for source in self.streams:
            self._keeper.dirty.put(source, UNTOLD)
        if self.streams:
            self._note(f"streams with groups are copied once more: {len(self.streams):,}")
        return len(self.streams)

    def in_freeze(self, wish: Wish, found: Found) -> float:
        """Hold writes, and flip; return for how many milliseconds they were held.

        Raises NotNow where it took too long, Denied where the flag is another by now, and what calls do.
        """
        self._confirm_nodes()
        # A node that has just been found may have none of them.
        self._have_scripts()
        primaries = self._deployment.primaries
        home = self._deployment.node_for(self._state.flag)
        harmless = ("EVALSHA", library.digest(HARMLESS), 0, 1, 1)
        self._keeper.mirror.prepare()
        freeze = Freeze(primaries, home, self._options.freeze_ms, harmless, beside=self._keeper.mirror.connections)
        witness = Witness(self._deployment, home)
        held = 0.0
        try:
            freeze.prepare()
            if reason := witness.begin():
                raise NotNow(reason)
            freeze.begin()
            killed = self._flip_frozen(freeze, witness, wish, found)
        except ScriptMissing:
            self._with_scripts.clear()
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
        # Not before: a server that holds writes asks no replica, so all of the freeze might pass.
        self._wait_for_replica(home)
        return held

    def in_quiet(self, wish: Wish, found: Found) -> None:
        """Flip without holding writes: what is told from now on is a straggler's. Raises NotNow, Denied."""
        self._announce(wish)
        self._flip(self._deployment.node_for(self._state.flag), wish, found)

    def _announce(self, wish: Wish) -> None:
        try:
            if wish is Wish.CUTOVER:
                self._state.announce()
        except Refused as problem:
            raise Denied(str(problem).removeprefix("cut-over: ")) from None

    def _have_scripts(self) -> None:
        """Have servers keep the scripts that may not: those that were started again, or have taken over. Raises Error.

        The others are not asked: Redis 6.2 does not answer that while somebody else holds writes.
        """
        for server in self._deployment.primaries:
            if server.identity.run_id not in self._with_scripts:
                for name in (*scripts_for(self._deployment), *SCRIPTS):
                    library.register(server, name)
                self._with_scripts.add(server.identity.run_id)

    def _confirm_nodes(self) -> None:
        """See that the nodes of a cluster are those that we listen to. Raises NotNow, ServerChanged."""
        if self._deployment.slots:
            self._deployment.confirm()
            if not self._keeper.hearing.hears_all:
                raise NotNow("a node has joined that is not listened to yet")

    def _flip_frozen(self, freeze: Freeze, witness: Witness, wish: Wish, found: Found) -> Killed:
        # Workers that wait for jobs under the new names take none while these are mirrored back.
        if wish is Wish.BACK:
            self._free_queues(freeze)
        self._announce(wish)
        self.copy_groups()
        while True:
            mark = self._drained(freeze, witness)
            if reason := witness.refusal():
                raise NotNow(reason)
            if self._flip(witness.home, wish, found, freeze=freeze, changes=mark):
                break
            self._note("somebody wrote between the last barrier and the flip: drained again")
        killed = self._killed + self._kill(freeze, self._options.kill)
        try:
            self._say_what_is_doubtful(freeze, witness)
        except Error as problem:
            # It is flipped all the same.
            self._note(f"see whether stragglers are told, for after the flip there was a problem: {problem}")
        return killed

    def _free_queues(self, freeze: Freeze) -> None:
        """Close the connections of who waits for jobs. Raises NotNow where somebody still does."""
        if self._keeper.waiting:
            self._kill(freeze, Kill.NONE if self._options.kill is Kill.NONE else Kill.HELD)
            # Who has connected since waits for the freeze to end; and for jobs under names that are not written now.
            waiting = [waiting_clients(server, until) for server, until in freeze.client_ids.items()]
            if self._deployment.database in chain.from_iterable(waiting):
                raise NotNow("clients wait for something, and would be handed what is mirrored back: stop them")
        # While writes are held, nobody begins to wait.
        self._keeper.release({*self._keeper.waiting})
        self._keeper.mirror.may_wait = None

    def _drained(self, freeze: Freeze, witness: Witness) -> bytes:
        """Mirror what was told until a barrier brings nothing; return the mark of changes from before that barrier."""
        keeper, hearing, mark, ticket = self._keeper, self._keeper.hearing, b"", 0
        while not (freeze.is_over or self._control.stop()):
            mirror = keeper.mirror
            wait_for([*hearing.listeners, *mirror.busy], 0 if mirror.has_arrived else SECONDS_TO_LOOK)
            if hearing.hear():
                keeper.doubt = keeper.doubt or Rescan.EMPTIED
            keeper.take_all()
            keeper.after_barriers()
            keeper.send_a_little(PAIRS_AT_ONCE * len(self._deployment.primaries))
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
        return keeper.standing.trouble or (f"{keeper.standing.failed:,} failed" if keeper.standing.failed else "")

    def _flip(
        self, home: Connection, wish: Wish, found: Found, *, freeze: Freeze | None = None, changes: bytes | None = None
    ) -> bool:
        """Set the flag; return False where somebody has written since the mark of changes was read."""
        flag, record, value = self._state.flag, self._state.record, self._options.value
        call = partial(cutover_calls.flip, former=found.former) if wish is Wish.CUTOVER else cutover_calls.flip_back
        clients = self._chosen(freeze, home) if freeze else []
        deadline, together = self._at_once(freeze, clients) if freeze else (None, None)
        self.is_unsure = True
        reply = call(home, flag, record, value=value, deadline=deadline, changes=changes, together=together)
        # The first answer is that of CLIENT PAUSE.
        answers = together.answers[1:] if together else []
        self._killed = Killed.of(client for client, answer in zip(clients, answers, strict=True) if answer == 1)
        self.is_unsure = reply is FlipReply.FLIPPED
        match reply:
            case FlipReply.LATE:
                raise NotNow(self._late())
            case FlipReply.OTHER:
                raise Denied(f"somebody else has written the flag '{printable(flag)}' or its record: see who")
            case FlipReply.FLIPPED:
                self._keeper.turn(SIDES[wish])
                self.is_unsure = False
        return reply is FlipReply.FLIPPED

    def _say_what_is_doubtful(self, freeze: Freeze, witness: Witness) -> None:
        late = "the freeze was used up before all connections were closed"
        for doubt in [*witness.doubts(), *([] if freeze.left_ms else [late])]:
            self._note(f"old names may have been written once more, and are then named as stragglers: {doubt}")

    def _wait_for_replica(self, home: Connection) -> None:
        """Tell where no replica takes the flip too, so that a failover may undo it."""
        if not connected_replicas(home):
            return
        try:
            if home.call("WAIT", 1, WAIT_MS, once=True).answer():
                return
            why = f"within {WAIT_MS} ms"
        except Error as problem:
            why = f"({problem})"  # it is flipped all the same; who asks next finds out what there is
        self._note(f"no replica has confirmed the flip {why}: a failover now may undo it")

    def _chosen(self, freeze: Freeze, home: Connection) -> list[Client]:
        """Return clients whose connections are to be closed by one packet."""
        try:
            return chosen(home, kind=self._options.kill, **self._whose(freeze))[:MOST_CLOSED_AT_ONCE]
        except Answered:
            return []  # that it is refused is told when it is tried again

    def _at_once(self, freeze: Freeze, clients: list[Client]) -> tuple[int, Together]:
        """Return until when it may be flipped, and what is carried out with that: nobody who is held comes between.

        Nor is anybody let go if we are killed then. Raises NotNow where writes may not be held any more.
        """
        if freeze.is_over:
            raise NotNow(self._late())
        pause = ("CLIENT", "PAUSE", max(1, int(freeze.left_ms)), "WRITE")
        together = Together([pause, *(("CLIENT", "KILL", "ID", client.client_id) for client in clients)])
        # Who is let go before his connection is closed writes the names that he has read of.
        return freeze.deadline - int(self._options.freeze_ms * SHARE_TO_CLOSE), together

    def _late(self) -> str:
        return f"late: the {self._options.freeze_ms} ms of --freeze had passed before the flip"

    def _kill(self, freeze: Freeze, kind: Kill) -> Killed:
        """Close connections; what they have sent and is held is never carried out."""
        try:
            return kill(self._deployment.primaries, kind=kind, **self._whose(freeze))
        except Error as problem:
            self._note(f"connections could not be closed: {problem}")
            return Killed()

    def _whose(self, freeze: Freeze) -> Any:
        """Return whose connections may be closed, as `kill` takes it."""
        ours = {
            server: [
                freeze.client_ids.get(server),
                self._keeper.hearing.client_ids.get(server),
                *(connection.client_id for connection in self._keeper.mirror.connections.get(server, ())),
                *(connection.client_id for connection in self._deployment.lent(server)),
            ]
            for server in self._deployment.primaries
        }
        plan = self._keeper.direction.plan
        databases = {self._deployment.database if each is None else each for each in (None, *plan.databases)}
        return {"user": self._options.kill_user, "databases": databases, "ours": ours}


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
