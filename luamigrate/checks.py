"""What is looked at before the first write; each check is named in what it says."""

from __future__ import annotations

import secrets
from contextlib import suppress

from luamigrate import scripts, servers
from luamigrate.errors import Refused
from luamigrate.outcome import Command
from luamigrate.rules import ANY, RESERVED, Pattern, Plan
from luamigrate.servers import Identity, Server

# What the scripts call, by the type of the rule. Where a server does not have an OPTIONAL command,
# the scripts do without.
ALWAYS = ("TYPE", "PTTL")
PAYLOAD = ("DUMP", "OBJECT")
READING = {
    "hash": (*PAYLOAD, "HGETALL", "HKEYS", "HGET", "HPEXPIRETIME"),
    "zset": (*PAYLOAD, "ZRANGE", "ZSCORE"),
    "set": ("SDIFF",),
    "list": (*PAYLOAD, "LRANGE"),
    "string": ("GET",),
    "stream": (*PAYLOAD, "XINFO"),
}
SIZING = {"hash": "HLEN", "zset": "ZCARD", "set": "SCARD", "list": "LLEN", "string": "STRLEN", "stream": "XLEN"}
WRITING = {Command.RUN: ("COPY",), Command.VERIFY: (), Command.ROLLBACK: ("UNLINK",)}
# HSETNX and SADD cannot be asked about without writing: where they are denied, the key says so.
FILLING = {"hash": ("HPEXPIREAT",), "zset": ("ZADD",)}
OPTIONAL = frozenset(("HPEXPIRETIME", "HPEXPIREAT"))


def refuse_unless_ready(
    server: Server, plan: Plan, command: Command, *, dry_run: bool = False, fills: bool = False, extra: bool = False
) -> None:
    """Raise Refused where this command could not work here with this plan. Writes nothing.

    A dry run asks for what the real one will need, and says the same about it.
    """
    reads_only = command is Command.VERIFY
    _check_role(server.identity, reads_only=reads_only)
    scripts.register(server, "probe")
    commands = _commands(plan, command, dry_run=dry_run, fills=fills)
    _check_commands(server, plan, commands, reads_only=reads_only)
    if dry_run or extra:
        scripts.probe(server, (), _absent(b""), (), reads_only=True)
    _check_keys(server, plan, reads_only=reads_only)


def warnings(server: Server, command: Command) -> list[str]:
    """Return what an operator should know before the command, though it does not forbid it."""
    if command is Command.VERIFY:
        return [_REPLICA_WARNING] if server.identity.role != "master" else []
    return _warnings_of_eviction(server) if command is Command.RUN else []


_REPLICA_WARNING = (
    "this is a REPLICA: what is compared is what has reached it, which may be older than its primary, and a key that "
    "has expired is gone only once the primary says so."
)


def _warnings_of_eviction(server: Server) -> list[str]:
    memory = servers.read_info(server, "memory")
    limit, policy = int(memory.get("maxmemory", 0)), memory.get("maxmemory_policy", "noeviction")
    if not limit or policy == "noeviction":
        return []
    full = int(memory.get("used_memory", 0)) / limit
    text = (
        f"this server evicts keys when it is full ({policy}, {full:.0%} of maxmemory used): copies could push out "
        "their own sources. Make room for twice the data, or set maxmemory-policy to noeviction meanwhile."
    )
    return [text]


def _check_role(identity: Identity, *, reads_only: bool) -> None:
    if identity.mode == "sentinel":
        raise Refused("role: this is a Sentinel, not a data server: give the address of the primary")
    if identity.mode == "cluster":
        raise Refused("role: this is a node of a cluster, where luamigrate cannot work yet")
    if identity.role != "master" and not reads_only:
        raise Refused(
            "role: this is a replica, and what is written here would be lost: give the address of the primary"
        )


def _commands(plan: Plan, command: Command, *, dry_run: bool, fills: bool) -> list[str]:
    """Return what the scripts will call."""
    types = dict.fromkeys(rule.type for rule in plan)
    kinds = [kind for kind in READING if kind in types or ANY in types]
    commands = [*ALWAYS, *WRITING[command], *(name for kind in kinds for name in READING[kind])]
    if dry_run and command is Command.RUN:
        commands += [SIZING[kind] for kind in kinds]
    if fills:
        commands += [name for kind in kinds for name in FILLING.get(kind, ())]
    return list(dict.fromkeys(commands))


def _check_commands(server: Server, plan: Plan, commands: list[str], *, reads_only: bool) -> None:
    if any(rule.source.has_star for rule in plan):
        server.call("SCAN", "0", "COUNT", "1").answer()
    answers = scripts.probe(server, (), _absent(b""), commands, reads_only=reads_only)
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


def _check_keys(server: Server, plan: Plan, *, reads_only: bool) -> None:
    patterns = [pattern for rule in plan for pattern in (rule.source, rule.target)]
    with suppress(Refused):
        scripts.probe(server, [_example(pattern) for pattern in patterns], _absent(b""), (), reads_only=reads_only)
        return
    touch = "read" if reads_only else "read and write"
    for pattern in patterns:
        try:
            scripts.probe(server, [_example(pattern)], _absent(b""), (), reads_only=reads_only)
        except Refused as refusal:
            text = f"permissions: this user may not {touch} {pattern}; grant it (ACL SETUSER)"
            raise Refused(text) from refusal


def _example(pattern: Pattern) -> bytes:
    """Return a name that matches; the scripts are given it, but do not touch it."""
    return pattern.prefix if pattern.suffix is None else _absent(pattern.prefix) + pattern.suffix


def _absent(prefix: bytes) -> bytes:
    return prefix + RESERVED + b"probe:" + secrets.token_hex(8).encode()
