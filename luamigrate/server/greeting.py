"""The first questions on a new connection: who the server is, and whether it is ready."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import hiredis
import redis
from redis.connection import AbstractConnection
from redis.exceptions import InvalidResponse, ResponseError

from luamigrate.model.errors import Error, printable
from luamigrate.server.errors import FIRST_COMMAND, ClosedAt, asks_for_login, passes
from luamigrate.server.identity import Identity, facts_of_info, identity_of, role_of


def identify(connection: AbstractConnection, url: str) -> Identity:
    """Ask who the server is, and check that it is ready. Raises RedisError where it is not."""
    # HELLO needs no permission, INFO does. A proxy may not have HELLO.
    hello, refusal = None, None
    try:
        hello = ask(connection, FIRST_COMMAND)
    except ResponseError as error:
        if asks_for_login(error):
            raise
        refusal = error
    _see_that_it_is_ready(connection)
    about = facts_of_info(_ask_if_permitted(connection, "INFO", "server"))
    identity = identity_of(hello, about)
    if refusal and not identity:
        raise refusal
    if not identity:
        raise Error(f"what answers at {url} is neither Redis nor Valkey")
    return replace(_with_mode_and_role(connection, identity), run_id=about.get("run_id", ""))


def ask(connection: AbstractConnection, *command: str) -> Any:
    """Send a command and return the answer. Raises RedisError."""
    try:
        connection.send_packed_command([hiredis.pack_command(command)], check_health=False)  # type: ignore[arg-type]
        return read(connection)
    except redis.ConnectionError as error:
        if type(error) is redis.ConnectionError and not (error.__cause__ or error.__context__):
            raise ClosedAt(error, command[0]) from None
        raise


def read(connection: AbstractConnection) -> Any:
    """Read the next answer. Raises RedisError."""
    try:
        return connection.read_response(disable_decoding=True)
    except (InvalidResponse, ValueError, TypeError) as error:
        # The client library fails on a MOVED without a node, for example: where the next answer begins is unknown.
        raise redis.ConnectionError(f"what the server sends cannot be understood: {error}") from None


def _with_mode_and_role(connection: AbstractConnection, identity: Identity) -> Identity:
    """Ask other commands for what HELLO lacks, as it does in proxies and in servers that imitate Redis."""
    if not identity.mode:
        # A node of a cluster lists its slots; a single server refuses, and so does whatever hides a cluster.
        slots = _ask_if_permitted(connection, "CLUSTER", "SLOTS")
        identity = replace(identity, mode="cluster" if isinstance(slots, list) and slots else "standalone")
    if identity.role or identity.mode == "sentinel":
        return identity
    role = _ask_if_permitted(connection, "ROLE")
    word = role[0] if isinstance(role, list) and role and isinstance(role[0], bytes) else b""
    told = role_of(printable(word)) or role_of(
        facts_of_info(_ask_if_permitted(connection, "INFO", "replication")).get("role", "")
    )
    return replace(identity, role=told, mode="sentinel" if word == b"sentinel" else identity.mode)


def _see_that_it_is_ready(connection: AbstractConnection) -> None:
    try:
        ask(connection, "PING")
    except ResponseError as error:
        # A server that refuses to answer has at least understood.
        if passes(error):
            raise


def _ask_if_permitted(connection: AbstractConnection, *command: str) -> Any:
    """Ask, and return None where the server refuses to answer."""
    with suppress(ResponseError):
        return ask(connection, *command)
    return None
