"""What each command has the server do: the commands that the scripts call, by type of key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from luamigrate.model.rules import ANY, Plan
from luamigrate.model.status import Command

Commands = dict[str, str]
"""Commands, and what each is needed for."""


@dataclass(frozen=True, kw_only=True)
class OfType:
    """What the scripts call on keys of one type."""

    size: str
    read: tuple[str, ...]
    fill: tuple[str, ...] = ()
    weigh: tuple[str, ...] = ()
    """Beside `size`, where MEMORY is refused."""
    read_cross_slot: tuple[str, ...] = ()
    read_large: tuple[str, ...] = ()
    write_large: tuple[str, ...] = ()
    write_large_cross_slot: tuple[str, ...] = ()
    compares_payloads: bool = True
    """Whether payloads are compared first."""


TYPES = {
    "hash": OfType(
        size="HLEN",
        read=("HGETALL", "HKEYS", "HGET", "HSCAN", "HPEXPIRETIME"),
        fill=("HSETNX", "HPEXPIREAT"),
        weigh=("HSCAN",),
        read_large=("HLEN", "HMGET"),
        write_large=("HSET", "HPEXPIREAT"),
    ),
    "zset": OfType(
        size="ZCARD",
        read=("ZRANGE", "ZSCORE"),
        fill=("ZADD",),
        weigh=("ZRANGE",),
        read_large=("ZCARD", "ZMSCORE"),
        write_large=("ZADD",),
    ),
    "set": OfType(
        size="SCARD",
        read=("SDIFF",),
        fill=("SISMEMBER", "SADD"),
        weigh=("SSCAN",),
        read_cross_slot=("SMEMBERS",),
        read_large=("SCARD", "SSCAN", "SMISMEMBER"),
        write_large=("SADD",),
        compares_payloads=False,
    ),
    "list": OfType(size="LLEN", read=("LRANGE",), weigh=("LRANGE",), read_large=("LLEN",), write_large=("RPUSH",)),
    "string": OfType(
        size="STRLEN",
        read=("GET",),
        read_large=("STRLEN", "GETRANGE"),
        write_large_cross_slot=("APPEND",),
        compares_payloads=False,
    ),
    "stream": OfType(size="XLEN", read=("XINFO",), weigh=("XRANGE",)),
}
WRITING = {Command.RUN: ("COPY", "UNLINK"), Command.ROLLBACK: ("UNLINK",)}
WRITING_CROSS_SLOT = {Command.RUN: ("RESTORE", "UNLINK"), Command.ROLLBACK: ("UNLINK",)}
PUBLISHING = ("EXISTS", "RENAMENX", "PERSIST", "PEXPIRE", "PEXPIREAT", "UNLINK")
"""What gives the staged copy of a large key the target's name."""
VECTORS = ("DUMP", "VCARD", "VRANDMEMBER", "VEMB", "VGETATTR")

OPTIONAL = frozenset(("HPEXPIRETIME", "HPEXPIREAT", "PEXPIRETIME"))
"""The scripts do without them where the server does not have them."""
SPARING = "to spare work"
FOR_VECTORS = "for vector sets, where there are any"
FOR_LARGE = "to take big keys apart"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What is to be done, as far as it matters for what has to be permitted."""

    plan: Plan
    command: Command
    dry_run: bool = False
    """A dry run asks for what the real run will need, and finds the same."""
    fills: bool = False
    extra: bool = False

    @property
    def reads_only(self) -> bool:
        """Whether the real command writes nothing."""
        return self.command is Command.VERIFY

    @property
    def same_slot(self) -> Commands:
        """What the scripts call on pairs in one slot."""
        what = "to copy" if self._copies else "to delete"
        commands = _for("to look at keys", ("TYPE", "PTTL")) | _for(what, WRITING.get(self.command, ()))
        commands |= _for("to compare", (name for kind in self._types for name in kind.read))
        if self.dry_run and self._copies:
            commands |= _for("to tell sizes", (kind.size for kind in self._types))
        if self.fills:
            commands |= _for("to fill", (name for kind in self._types for name in kind.fill))
        return commands

    @property
    def cross_slot(self) -> Commands:
        """What the scripts call beside that on pairs in two slots."""
        reading = (name for kind in self._types for name in kind.read_cross_slot)
        writing = WRITING_CROSS_SLOT.get(self.command, ())
        return _for("for keys of two slots", ("TIME", "PEXPIRETIME", "DUMP", *writing, *reading))

    @property
    def sparing(self) -> Commands:
        """What the scripts do without, for whatever reason it is refused."""
        payloads = ("DUMP", "OBJECT") if any(kind.compares_payloads for kind in self._types) else ()
        return _for(SPARING, ("MEMORY", *payloads))

    @property
    def vectors(self) -> Commands:
        """What the scripts call on vector sets."""
        of_any_type = any(rule.type == ANY for rule in self.plan)
        return _for(FOR_VECTORS, (*VECTORS, *(("RESTORE",) if self._copies else ()))) if of_any_type else {}

    @property
    def weighing(self) -> Commands:
        """What the scripts call to weigh keys where MEMORY is refused."""
        commands = [*(kind.size for kind in self._types), *(name for kind in self._types for name in kind.weigh)]
        return _for("to weigh keys, because MEMORY is refused", commands)

    def large(self, *, cross_slot: bool) -> Commands:
        """Return what the scripts call beside that on large keys."""
        commands = [*(PUBLISHING if self._copies else ()), *(name for kind in self._types for name in kind.read_large)]
        if self._copies:
            commands += [name for kind in self._types for name in kind.write_large]
        if self._copies and cross_slot:
            commands += [name for kind in self._types for name in kind.write_large_cross_slot]
        return _for(FOR_LARGE, commands)

    @property
    def _copies(self) -> bool:
        return self.command is Command.RUN

    @property
    def _types(self) -> list[OfType]:
        types = {rule.type for rule in self.plan}
        return [kind for name, kind in TYPES.items() if name in types or ANY in types]


def _for(why: str, commands: Iterable[str]) -> Commands:
    return dict.fromkeys(commands, why)
