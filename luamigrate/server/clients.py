"""The clients of servers: who waits for something, and whose connections are closed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from luamigrate.model.cutover import Kill
from luamigrate.model.errors import Error, printable
from luamigrate.server.call import Call
from luamigrate.server.connection import Connection

Ours = Mapping[Connection, Collection[int | None]]
"""By which numbers each server knows connections that are not to be closed; None for one of which it does not tell."""

_POPS = re.compile(r"b[lrz]|xread")
"""How the names begin of commands that wait until there is something to be taken, or read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Client:
    """A connection to a server, as it tells of it."""

    client_id: int
    database: int
    is_blocked: bool
    """Whether its command is held, or waits for something."""
    command: str
    """The last one, in small letters."""
    name: str
    """What it calls itself; empty where it does not."""
    user: str


@dataclass
class Killed:
    """How many connections were closed, and whose they were."""

    count: int = 0
    names: Counter[str] = field(default_factory=Counter)
    """How many there were of each name; of a user, where they have none."""

    @classmethod
    def of(cls, clients: Iterable[Client]) -> Self:
        """Count the connections of these."""
        names = Counter(client.name or client.user for client in clients)
        return cls(names.total(), names)

    def __add__(self, other: Killed) -> Killed:
        return Killed(self.count + other.count, self.names + other.names)


def normal_clients(server: Connection) -> Iterator[Client]:
    """Yield all clients but replicas and subscribers. Raises Error."""
    reply = server.call("CLIENT", "LIST", "TYPE", "normal").answer()
    if not isinstance(reply, bytes):
        raise _odd()
    for line in reply.splitlines():
        facts = dict(fact.split("=", 1) for fact in printable(line).split(" ") if "=" in fact)
        try:
            yield Client(
                client_id=int(facts["id"]),
                database=int(facts["db"]),
                is_blocked="b" in facts["flags"],
                command=facts["cmd"].lower(),
                name=facts["name"],
                user=facts.get("user", ""),
            )
        except (KeyError, ValueError):
            raise _odd() from None


def _odd() -> Error:
    return Error("the server does not answer CLIENT LIST as it should")


def waiting_clients(server: Connection, until: int | None = None) -> Iterator[int]:
    """Yield the database of each client that waits for something to be taken or read. Raises Error.

    With `until`, of those only who had connected before the client of this number.
    """
    for client in normal_clients(server):
        if client.is_blocked and _POPS.match(client.command) and (until is None or client.client_id < until):
            yield client.database


def chosen(server: Connection, *, kind: Kill, user: str | None, databases: Collection[int], ours: Ours) -> list[Client]:
    """Return the clients of others in these databases whose connections are to be closed. Raises Error."""
    if kind is Kill.NONE:
        return []
    mine = {*ours.get(server, ()), server.client_id}
    if None in mine:
        raise Error("the server does not tell by which numbers it knows our own connections: HELLO says no id")
    return [
        client
        for client in normal_clients(server)
        if client.database in databases
        and user in (None, client.user)
        and client.client_id not in mine
        and (kind is Kill.ALL or client.is_blocked)
    ]


def kill(
    servers: Iterable[Connection], *, kind: Kill, user: str | None, databases: Collection[int], ours: Ours
) -> Killed:
    """Close connections of others in these databases, of one user only if one is given. Raises Error.

    What they have sent and is held is never carried out. Whoever has gone by himself is not counted.
    """
    closing: list[tuple[Client, Call]] = []
    for server in servers:
        clients = chosen(server, kind=kind, user=user, databases=databases, ours=ours)
        closing += [(client, server.call("CLIENT", "KILL", "ID", client.client_id)) for client in clients]
        server.flush()
    return Killed.of(client for client, call in closing if call.answer() == 1)
