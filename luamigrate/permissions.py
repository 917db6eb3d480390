"""Permissions: what each command calls on which keys, tried out on names that do not exist. Writes nothing."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass

from redis.crc import key_slot

from luamigrate import scripts
from luamigrate.cluster import Cluster, Deployment
from luamigrate.errors import Refused
from luamigrate.outcome import Command
from luamigrate.problems import Redirected, Unsettled
from luamigrate.rules import ANY, RESERVED, Pattern, Plan
from luamigrate.servers import Server

# What the scripts call, by the type of the rule. Where a server does not have an OPTIONAL command,
# the scripts do without.
ALWAYS = ("TYPE", "PTTL", "MEMORY")
PAYLOAD = ("DUMP", "OBJECT")
READING = {
    "hash": (*PAYLOAD, "HGETALL", "HKEYS", "HGET", "HSCAN", "HPEXPIRETIME"),
    "zset": (*PAYLOAD, "ZRANGE", "ZSCORE"),
    "set": ("SDIFF",),
    "list": (*PAYLOAD, "LRANGE"),
    "string": ("GET",),
    "stream": (*PAYLOAD, "XINFO"),
}
SIZING = {"hash": "HLEN", "zset": "ZCARD", "set": "SCARD", "list": "LLEN", "string": "STRLEN", "stream": "XLEN"}
WRITING = {Command.RUN: ("COPY",), Command.VERIFY: (), Command.ROLLBACK: ("UNLINK",)}
# HSETNX and SADD cannot be asked about without writing: where they are denied, the key says so.
FILLING = {"hash": ("HPEXPIREAT",), "zset": ("ZADD",), "set": ("SISMEMBER",)}
OPTIONAL = frozenset(("HPEXPIRETIME", "HPEXPIREAT", "PEXPIRETIME"))

# What big keys take beside that. HSET, SADD, RPUSH, MULTI and EXEC cannot be asked about either.
READING_BIG = {
    "hash": ("HLEN", "HMGET"),
    "zset": ("ZCARD", "ZMSCORE"),
    "set": ("SCARD", "SSCAN", "SMISMEMBER"),
    "list": ("LLEN",),
    "string": ("STRLEN", "GETRANGE"),
    "stream": (),
}
WRITING_BIG = {
    Command.RUN: ("EXISTS", "RENAMENX", "PERSIST", "PEXPIRE", "PEXPIREAT", "UNLINK"),
    Command.VERIFY: (),
    Command.ROLLBACK: (),
}
WRITING_BIG_TYPE = {"zset": ("ZADD",), "hash": ("HPEXPIREAT",)}


# What pairs whose halves live in two slots of a cluster take beside that.
ACROSS = ("TIME", "PEXPIRETIME", "DUMP")
READING_ACROSS = {"set": ("SMEMBERS",)}
WRITING_ACROSS = {Command.RUN: ("RESTORE", "UNLINK"), Command.VERIFY: (), Command.ROLLBACK: ("UNLINK",)}

EXAMPLES = 200_000
"""Names tried, until one belongs to a node."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What is to be done, as far as it matters for what has to be permitted."""

    plan: Plan
    command: Command
    dry_run: bool = False
    """It asks for what the real run will need, and says the same about it."""
    fills: bool = False
    extra: bool = False

    @property
    def reads_only(self) -> bool:
        """Whether the real command writes nothing."""
        return self.command is Command.VERIFY


@dataclass(frozen=True, slots=True)
class Permissions:
    """What this user may do on a server, or on a node of a cluster."""

    deployment: Deployment
    server: Server
    needs: Needs

    def refuse_unless_permitted(self) -> None:
        """Raise Refused where this user could not do this here with this plan."""
        server, needs = self.server, self.needs
        scripts.register(server, "probe")
        if any(rule.source.has_star for rule in needs.plan):
            server.call("SCAN", "0", "COUNT", "1").answer()
        commands = _commands(needs)
        if isinstance(self.deployment, Cluster):
            commands += [*ACROSS, *WRITING_ACROSS[needs.command]]
            commands += [name for kind in _kinds(needs.plan) for name in READING_ACROSS.get(kind, ())]
            self._refuse_unless_cluster_may_be_asked()
        self._refuse_what_is_denied(list(dict.fromkeys(commands)), reads_only=needs.reads_only)
        if needs.dry_run or needs.extra or isinstance(self.deployment, Cluster):
            scripts.probe(server, (), self._absent(b""), (), reads_only=True)
        self._check_keys()

    def refuse_unless_big_keys_permitted(self) -> None:
        """Raise Refused where this user could not take big keys apart."""
        command, kinds = self.needs.command, _kinds(self.needs.plan)
        commands = [*WRITING_BIG[command], *(name for kind in kinds for name in READING_BIG[kind])]
        if command is Command.RUN:
            commands += [name for kind in kinds for name in WRITING_BIG_TYPE.get(kind, ())]
            staging = self._absent(RESERVED + b"staging:")
            scripts.probe(self.server, [staging], self._absent(b""), (), reads_only=False)
        self._refuse_what_is_denied(list(dict.fromkeys(commands)), reads_only=self.needs.reads_only)
        for source in filter(None, [self._example(rule.source) for rule in self.needs.plan[:1]]):
            for words in (("WATCH", source), ("UNWATCH",), ("MULTI",), ("EXEC",)):
                with suppress(Redirected, Unsettled):
                    self.server.call(*words).answer()

    def _refuse_unless_cluster_may_be_asked(self) -> None:
        for command in (("NODES",), ("COUNTKEYSINSLOT", 0), ("GETKEYSINSLOT", 0, 1)):
            self.server.call("CLUSTER", *command).answer()
        for command in (("ASKING",), ("MULTI",), ("EXEC",)):
            self.server.call(*command).answer()

    def _refuse_what_is_denied(self, commands: list[str], *, reads_only: bool) -> None:
        answers = scripts.probe(self.server, (), self._absent(b""), commands, reads_only=reads_only)
        if all(answer == "elsewhere" for answer in answers.values()):
            raise Refused(
                "version: this node refuses whatever a script does, as Valkey 9.1 does from the moment on in which "
                "somebody's script has tried a command across slots: fail over to its replica, or restart it"
            )
        denied = [command for command in commands if answers[command] == "denied"]
        if denied:
            raise Refused(f"permissions: this user may not call {' '.join(denied)}; grant it (ACL SETUSER)")
        refused = next((text for text in answers.values() if text.startswith("refused ")), "")
        if refused:
            raise Refused(f"writes: the server takes none: {refused.removeprefix('refused ')}")
        unknown = [command for command in commands if answers[command] == "unknown" and command not in OPTIONAL]
        if unknown:
            raise Refused(
                f"version: this server has no {' '.join(unknown)}; luamigrate needs Redis 6.2 or later, or Valkey"
            )

    def _check_keys(self) -> None:
        reads_only = self.needs.reads_only
        patterns = [pattern for rule in self.needs.plan for pattern in (rule.source, rule.target)]
        examples = [(pattern, name) for pattern in patterns if (name := self._example(pattern))]
        if isinstance(self.deployment, Server):
            with suppress(Refused):
                names = [name for _, name in examples]
                scripts.probe(self.server, names, self._absent(b""), (), reads_only=reads_only)
                return
        touch = "read" if reads_only else "read and write"
        for pattern, name in examples:
            try:
                # Where a slot is being moved, whoever is sent to another node has been found to be permitted.
                with suppress(Redirected, Unsettled):
                    scripts.probe(self.server, [name], self._absent(b""), (), reads_only=reads_only)
            except Refused as refusal:
                text = f"permissions: this user may not {touch} {pattern}; grant it (ACL SETUSER)"
                raise Refused(text) from refusal

    def _example(self, pattern: Pattern) -> bytes | None:
        """Return a name that matches, for scripts to be given, not to be touched; None where it is not held here."""
        if pattern.suffix is None:
            return pattern.prefix if self.deployment.holder(pattern.prefix) is self.server else None
        names = [pattern.prefix + name + pattern.suffix for name in (b"1", b"2", b"3", b"4")]
        if len(set(map(key_slot, names))) == 1 and self.deployment.holder(names[0]) is not self.server:
            return None  # a constant hash tag: they are all held elsewhere
        return self._absent(pattern.prefix, pattern.suffix)

    def _absent(self, prefix: bytes, suffix: bytes = b"") -> bytes:
        """Return the name of a key that is not there, and belongs here."""
        for _ in range(EXAMPLES):
            name = prefix + RESERVED + b"probe:" + secrets.token_hex(8).encode() + suffix
            if self.deployment.holder(name) is self.server:
                break
        return name


def _kinds(plan: Plan) -> list[str]:
    types = {rule.type for rule in plan}
    return [kind for kind in READING if kind in types or ANY in types]


def _commands(needs: Needs) -> list[str]:
    """Return what the scripts will call."""
    kinds, command = _kinds(needs.plan), needs.command
    commands = [*ALWAYS, *WRITING[command], *(name for kind in kinds for name in READING[kind])]
    if needs.dry_run and command is Command.RUN:
        commands += [SIZING[kind] for kind in kinds]
    if needs.fills:
        commands += [name for kind in kinds for name in FILLING.get(kind, ())]
    return commands
