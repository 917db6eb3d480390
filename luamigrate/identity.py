"""Who a server says it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from luamigrate.errors import printable


@dataclass(frozen=True, slots=True)
class Identity:
    """Product, version, mode and role, as HELLO has them, and the process."""

    product: str
    version: str
    mode: str
    role: str
    run_id: str = ""
    """Of the process; empty where the user may not ask."""

    def is_at_least(self, redis: tuple[int, int], valkey: tuple[int, int]) -> bool:
        """Compare the version, by product."""
        return self._numbers[:2] >= (valkey if self.product == "valkey" else redis)

    @property
    def crashes_of_no_touch(self) -> bool:
        """Whether the server may crash of a client with NO-TOUCH.

        Where its write wakes a client that waits on the key: Redis 8.0 to 8.2.2 (redis/redis#14415), Valkey 8.1
        (valkey-io/valkey#2347). Where it asks for a key of a slot that is being moved: nodes of Redis 8.2.3 too.
        """
        if self.product == "valkey":
            return (8, 1) <= self._numbers < (9, 0)
        return self.mode == "cluster" or (8, 0) <= self._numbers < (8, 2, 3)

    @property
    def _numbers(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.version.split(".") if part.isdecimal() and part.isascii())


def identity_of(hello: Any) -> Identity | None:
    """Read what a server answers to HELLO; None where it is neither Redis nor Valkey."""
    facts = zip(hello[::2], hello[1::2], strict=False) if isinstance(hello, list) else ()
    texts = {name: printable(value) for name, value in facts if isinstance(name, bytes) and isinstance(value, bytes)}
    if b"server" not in texts:
        return None
    return Identity(texts[b"server"], texts.get(b"version", ""), texts.get(b"mode", ""), texts.get(b"role", ""))
