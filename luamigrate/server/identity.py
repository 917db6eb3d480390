"""The identity of a server, as it tells it itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from luamigrate.model.errors import printable

PRIMARY, REPLICA = "master", "replica"
_ROLES = {"master": PRIMARY, "primary": PRIMARY, "slave": REPLICA, "replica": REPLICA}
"""Roles by the names that servers and proxies give them."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Product, version, mode and role of a server, from HELLO or INFO, and its process."""

    product: str
    version: str
    """Empty where the server does not tell."""
    mode: str
    """Empty where the server does not tell."""
    role: str
    """`PRIMARY` or `REPLICA`; empty where the server does not tell, and of a Sentinel."""
    run_id: str = ""
    """Identifies the server process; empty where the user may not ask."""
    client_id: int | None = field(default=None, compare=False)
    """By which number the server knows the connection that has asked; None where it does not tell."""

    def is_at_least(self, redis: tuple[int, int], valkey: tuple[int, int]) -> bool:
        """Compare the version with the one of its product; an unknown version is not enough."""
        return self._numbers[:2] >= (valkey if self.product == "valkey" else redis)

    @property
    def crashes_of_no_touch(self) -> bool:
        """Whether a client with NO-TOUCH may crash the server.

        A write that wakes a waiting client crashes Redis 8.0 to 8.2.2 (redis/redis#14415) and Valkey 8.1
        (valkey-io/valkey#2347). Asking for a key of a slot that is being moved crashes nodes of Redis 8.2.3 too.
        An unknown version may be any of these.
        """
        if not self._numbers:
            return True
        if self.product == "valkey":
            return (8, 1) <= self._numbers < (9, 0)
        return self.mode == "cluster" or (8, 0) <= self._numbers < (8, 2, 3)

    @property
    def _numbers(self) -> tuple[int, ...]:
        return tuple(int(text) for text in self.version.split(".") if text.isdecimal() and text.isascii())


def identity_of(hello: Any, info: Mapping[str, str]) -> Identity | None:
    """Read the answer to HELLO, and INFO for what that lacks; None where it is neither Redis nor Valkey."""
    told = facts_of_pairs(hello)
    product = told.get("server") or _product(info)
    if not product:
        return None
    version = told.get("version") or info.get("valkey_version" if product == "valkey" else "redis_version", "")
    mode = told.get("mode") or info.get("server_mode") or info.get("redis_mode", "")
    return Identity(product, version, mode, role_of(told.get("role", "")), client_id=client_id_of(hello))


def client_id_of(hello: Any) -> int | None:
    """Read in the answer to HELLO by which number the server knows a connection; None where it does not tell."""
    if isinstance(hello, dict):
        client_id = hello.get(b"id")
    else:
        pairs = zip(hello[::2], hello[1::2], strict=False) if isinstance(hello, list) else ()
        client_id = next((value for name, value in pairs if name == b"id"), None)
    return client_id if type(client_id) is int else None


def _product(info: Mapping[str, str]) -> str:
    # Valkey has a redis_version too, that of the last Redis it was made of.
    return next((product for product in ("valkey", "redis") if f"{product}_version" in info), "")


def role_of(word: str) -> str:
    """Return the role for a server's name of it; empty for an unknown name."""
    return _ROLES.get(word.lower(), "")


def facts_of_pairs(reply: Any) -> dict[str, str]:
    """Return the facts of a flat list of names and values, escaped; all but text is left out."""
    # A proxy may answer with a map, though nobody has asked for one.
    flat = [fact for pair in reply.items() for fact in pair] if isinstance(reply, dict) else reply
    pairs = zip(flat[::2], flat[1::2], strict=False) if isinstance(flat, list) else ()
    return {
        printable(name): printable(value)
        for name, value in pairs
        if isinstance(name, bytes) and isinstance(value, bytes)
    }


def facts_of_info(reply: Any) -> dict[str, str]:
    """Return the facts of an answer to INFO, escaped; none where it is no text."""
    lines = [printable(line) for line in reply.splitlines()] if isinstance(reply, bytes) else []
    return dict(line.split(":", 1) for line in lines if ":" in line)
