"""What is looked at before the first write; each check is named in what it says."""

from __future__ import annotations

import secrets
from contextlib import suppress

from luamigrate import scripts, servers
from luamigrate.errors import Refused, printable
from luamigrate.rules import RESERVED, Pattern, Plan
from luamigrate.servers import Identity, Server

# What the scripts call, by the type of the rule. Where a server does not have an OPTIONAL command,
# the scripts do without.
ALWAYS = ("TYPE", "PTTL", "COPY")
READING = {"hash": ("HGETALL", "HPEXPIRETIME"), "set": ("SMEMBERS",), "zset": ("ZRANGE",)}
SIZING = {"hash": "HLEN", "set": "SCARD", "zset": "ZCARD"}
OPTIONAL = frozenset(("HPEXPIRETIME",))


def refuse_unless_ready(server: Server, plan: Plan, *, dry_run: bool) -> None:
    """Raise Refused where a run of this plan could not work here. Writes nothing.

    A dry run asks for what the run will need, and says the same about it.
    """
    _check_role(server.identity)
    scripts.register(server, "probe")
    _check_commands(server, plan, dry_run=dry_run)
    _check_keys(server, plan)


def warnings(server: Server) -> list[str]:
    """Return what an operator should know before a run, though it does not forbid one."""
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


def _check_role(identity: Identity) -> None:
    if identity.mode == "sentinel":
        raise Refused("role: this is a Sentinel, not a data server: give the address of the primary")
    if identity.mode == "cluster":
        raise Refused("role: this is a node of a cluster, where luamigrate cannot copy yet")
    if identity.role != "master":
        raise Refused("role: this is a replica, and copies made here would be lost: give the address of the primary")


def _check_commands(server: Server, plan: Plan, *, dry_run: bool) -> None:
    if any(rule.source.has_star for rule in plan):
        server.call("SCAN", "0", "COUNT", "1").answer()
    types = dict.fromkeys(rule.type for rule in plan)
    commands = [*ALWAYS, *(command for kind in types for command in READING[kind])]
    if dry_run:
        commands += [SIZING[kind] for kind in types]
    answers = scripts.probe(server, (), _absent(b""), commands)
    denied = [command for command in commands if answers[command] == "denied"]
    if denied:
        raise Refused(f"permissions: this user may not call {' '.join(denied)}; grant it (ACL SETUSER)")
    refused = next((text for text in answers.values() if text.startswith("refused ")), "")
    if refused:
        raise Refused(f"writes: the server takes none: {printable(refused.removeprefix('refused ').encode())}")
    unknown = [command for command in commands if answers[command] == "unknown" and command not in OPTIONAL]
    if unknown:
        raise Refused(
            f"version: this server has no {' '.join(unknown)}; luamigrate needs Redis 6.2 or later, or Valkey"
        )


def _check_keys(server: Server, plan: Plan) -> None:
    patterns = [pattern for rule in plan for pattern in (rule.source, rule.target)]
    with suppress(Refused):
        scripts.probe(server, [_example(pattern) for pattern in patterns], _absent(b""), ())
        return
    for pattern in patterns:
        try:
            scripts.probe(server, [_example(pattern)], _absent(b""), ())
        except Refused as refusal:
            text = f"permissions: this user may not read and write {pattern}; grant it (ACL SETUSER)"
            raise Refused(text) from refusal


def _example(pattern: Pattern) -> bytes:
    """Return a name that matches; the scripts are given it, but do not touch it."""
    return pattern.prefix if pattern.suffix is None else _absent(pattern.prefix) + pattern.suffix


def _absent(prefix: bytes) -> bytes:
    return prefix + RESERVED + b"probe:" + secrets.token_hex(8).encode()
