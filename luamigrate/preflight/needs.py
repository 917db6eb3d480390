"""What each command has the server do: the commands that the scripts call, by type of key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from luamigrate.model.cutover import CUTOVERS
from luamigrate.model.patterns import STAR, Pattern
from luamigrate.model.plans import Plan
from luamigrate.model.rules import ANY, RESERVED
from luamigrate.model.status import Command

Commands = dict[str, str]
"""Commands, and what each is needed for."""
FOLLOWS = RESERVED + b"follow"
"""Begins the names of the keys that a follow writes for itself."""

ALWAYS = ("TYPE", "PTTL")
READING = {
    "hash": ("HGETALL", "HKEYS", "HGET", "HSCAN", "HPEXPIRETIME"),
    "zset": ("ZRANGE", "ZSCORE"),
    "set": ("SDIFF",),
    "list": ("LRANGE",),
    "string": ("GET",),
    "stream": ("XINFO",),
}
WRITING = {Command.RUN: ("COPY", "UNLINK"), Command.ROLLBACK: ("UNLINK",), Command.FOLLOW: ("COPY", "UNLINK")}
FILLING = {"hash": ("HSETNX", "HPEXPIREAT"), "zset": ("ZADD",), "set": ("SISMEMBER", "SADD")}
SIZES = {"hash": "HLEN", "zset": "ZCARD", "set": "SCARD", "list": "LLEN", "string": "STRLEN", "stream": "XLEN"}

WEIGHING = {"hash": ("HSCAN",), "zset": ("ZRANGE",), "set": ("SSCAN",), "list": ("LRANGE",), "stream": ("XRANGE",)}
"""Beside SIZES, where MEMORY is refused."""
COMPARED_BY_PAYLOAD = ("hash", "zset", "set", "list", "stream")
"""Types whose payloads are compared first."""
READING_VECTORS = ("DUMP", "VCARD", "VRANDMEMBER", "VEMB", "VGETATTR")

READING_APART = {"set": ("SMEMBERS",)}
"""Where source and target are in two slots, or two databases."""
WRITING_CROSS_SLOT = {Command.RUN: ("RESTORE", "UNLINK"), Command.ROLLBACK: ("UNLINK",)}

READING_LARGE = {
    "hash": ("HLEN", "HMGET"),
    "zset": ("ZCARD", "ZMSCORE"),
    "set": ("SCARD", "SSCAN", "SMISMEMBER"),
    "list": ("LLEN",),
    "string": ("STRLEN", "GETRANGE"),
}
WRITING_LARGE = {"zset": ("ZADD",), "hash": ("HSET", "HPEXPIREAT"), "set": ("SADD",), "list": ("RPUSH",)}
WRITING_LARGE_CROSS_SLOT = {"string": ("APPEND",)}
PUBLISHING = ("EXISTS", "RENAMENX", "PERSIST", "PEXPIRE", "PEXPIREAT", "UNLINK")
"""These give the staged copy of a large key the target's name."""

LEASING = ("GET", "SET", "DEL", "PEXPIRE", "HSET", "HDEL", "TIME")
FLIPPING = ("TYPE", "GET", "SET", "DEL", "EXISTS", "HSET", "HGET", "TIME")
WAITED_ON = frozenset(("zset", "list", "stream"))
"""Types of keys that clients wait for: they are not mirrored back while one waits, which INFO tells."""

OPTIONAL = frozenset(("HPEXPIRETIME", "HPEXPIREAT", "PEXPIRETIME"))
"""The scripts do without them where the server does not have them."""
SPARING = "to spare work"
FOR_VECTORS = "for vector sets, where there are any"
FOR_LARGE = "for keys that go in chunks"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What is to be done, as far as it matters for what has to be permitted."""

    plan: Plan
    command: Command
    dry_run: bool = False
    """A dry run asks for what the real run will need, and finds the same."""
    fills: bool = False
    extra: bool = False
    flag: bytes | None = None
    """The key that a follow may flip; None where it never cuts over."""
    freezes: bool = False
    """Whether all writes are held for that."""

    @property
    def reads_only(self) -> bool:
        """Whether the real command writes nothing."""
        return self.command is Command.VERIFY

    @property
    def databases(self) -> list[int]:
        """Databases of targets that are not the sources' own."""
        return sorted({rule.database for rule in self.plan if rule.database is not None})

    @property
    def own_keys(self) -> list[Pattern]:
        """Keys that it writes beside those of the rules."""
        if self.command is not Command.FOLLOW:
            return []
        own = [Pattern((FOLLOWS, b""), (STAR,))]
        return own if self.flag is None else [*own, Pattern((self.flag,), ()), Pattern((CUTOVERS, b""), (STAR,))]

    @property
    def same_slot(self) -> Commands:
        """Commands that the scripts call on pairs in one slot."""
        what = "to copy" if self._copies else "to delete"
        commands = _for("to ask about keys", ALWAYS) | _for(what, WRITING.get(self.command, ()))
        commands |= _for("to compare", self._of_types(READING))
        if self.databases:
            commands |= _for("to compare in two databases", self._of_types(READING_APART))
        if self.dry_run and self._copies:
            commands |= _for("to tell sizes", self._sizes)
        if self.command is Command.FOLLOW:
            commands |= _for("to hold the lease of a follow", LEASING)
        if self.flag is not None:
            asks = self.freezes or not WAITED_ON.isdisjoint(self._types)
            commands |= _for("to cut over", (*FLIPPING, *(("INFO",) if asks else ())))
        return commands | (_for("to fill", self._of_types(FILLING)) if self.fills else {})

    @property
    def cross_slot(self) -> Commands:
        """Commands that the scripts call beside those on pairs in two slots."""
        writing = WRITING_CROSS_SLOT.get(self.command, ())
        reading = self._of_types(READING_APART)
        return _for("for keys of two slots", ("TIME", "PEXPIRETIME", "DUMP", *writing, *reading))

    @property
    def sparing(self) -> Commands:
        """Commands that the scripts do without, for whatever reason they are refused."""
        by_payload = any(kind in COMPARED_BY_PAYLOAD for kind in self._types)
        by_values = "hash" in self._types and self.command is not Command.ROLLBACK
        commands = ("MEMORY", *(("DUMP", "OBJECT") if by_payload else ()), *(("HVALS",) if by_values else ()))
        return _for(SPARING, commands)

    @property
    def vectors(self) -> Commands:
        """Commands that the scripts call on vector sets."""
        needed = (*READING_VECTORS, "RESTORE") if self._copies else READING_VECTORS
        return _for(FOR_VECTORS, needed if any(rule.type == ANY for rule in self.plan) else ())

    @property
    def weighing(self) -> Commands:
        """Commands that the scripts call to weigh keys where MEMORY is refused."""
        return _for("to weigh keys, because MEMORY is refused", (*self._sizes, *self._of_types(WEIGHING)))

    def large(self, *, cross_slot: bool) -> Commands:
        """Return the commands that the scripts call beside those on large keys."""
        commands = self._of_types(READING_LARGE)
        if self._copies:
            commands = [*PUBLISHING, *commands, *self._of_types(WRITING_LARGE)]
            commands += self._of_types(WRITING_LARGE_CROSS_SLOT) if cross_slot else []
        return _for(FOR_LARGE, commands)

    @property
    def _copies(self) -> bool:
        return self.command in (Command.RUN, Command.FOLLOW)

    @property
    def _types(self) -> list[str]:
        types = {rule.type for rule in self.plan}
        return [kind for kind in READING if kind in types or ANY in types]

    @property
    def _sizes(self) -> list[str]:
        return [SIZES[kind] for kind in self._types]

    def _of_types(self, table: Mapping[str, tuple[str, ...]]) -> list[str]:
        return [name for kind in self._types for name in table.get(kind, ())]


def _for(why: str, commands: Iterable[str]) -> Commands:
    return dict.fromkeys(commands, why)
