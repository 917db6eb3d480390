"""Permissions: what each command calls on which keys, tried out on names that do not exist. Writes nothing."""

from __future__ import annotations

import secrets
from contextlib import suppress

from luamigrate import scripts
from luamigrate.errors import Refused
from luamigrate.outcome import Command
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
OPTIONAL = frozenset(("HPEXPIRETIME", "HPEXPIREAT"))

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


def refuse_unless_permitted(
    server: Server, plan: Plan, command: Command, *, dry_run: bool = False, fills: bool = False, extra: bool = False
) -> None:
    """Raise Refused where this user could not do this here with this plan.

    A dry run asks for what the real one will need, and says the same about it.
    """
    reads_only = command is Command.VERIFY
    scripts.register(server, "probe")
    commands = _commands(plan, command, dry_run=dry_run, fills=fills)
    if any(rule.source.has_star for rule in plan):
        server.call("SCAN", "0", "COUNT", "1").answer()
    _refuse_what_is_denied(server, commands, reads_only=reads_only)
    if dry_run or extra:
        scripts.probe(server, (), _absent(b""), (), reads_only=True)
    _check_keys(server, plan, reads_only=reads_only)


def refuse_unless_big_keys_permitted(server: Server, plan: Plan, command: Command) -> None:
    """Raise Refused where this user could not take big keys apart."""
    kinds = _kinds(plan)
    commands = [*WRITING_BIG[command], *(name for kind in kinds for name in READING_BIG[kind])]
    if command is Command.RUN:
        commands += [name for kind in kinds for name in WRITING_BIG_TYPE.get(kind, ())]
        scripts.probe(server, [_absent(RESERVED + b"staging:")], _absent(b""), (), reads_only=False)
    _refuse_what_is_denied(server, list(dict.fromkeys(commands)), reads_only=command is Command.VERIFY)
    server.call("WATCH", *(_example(rule.source) for rule in plan[:1])).answer()
    server.call("UNWATCH").answer()


def _kinds(plan: Plan) -> list[str]:
    types = {rule.type for rule in plan}
    return [kind for kind in READING if kind in types or ANY in types]


def _commands(plan: Plan, command: Command, *, dry_run: bool, fills: bool) -> list[str]:
    """Return what the scripts will call."""
    kinds = _kinds(plan)
    commands = [*ALWAYS, *WRITING[command], *(name for kind in kinds for name in READING[kind])]
    if dry_run and command is Command.RUN:
        commands += [SIZING[kind] for kind in kinds]
    if fills:
        commands += [name for kind in kinds for name in FILLING.get(kind, ())]
    return list(dict.fromkeys(commands))


def _refuse_what_is_denied(server: Server, commands: list[str], *, reads_only: bool) -> None:
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
