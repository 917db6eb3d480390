"""Permissions: what each command calls on which keys, tried out on names that do not exist. Writes nothing.

An answer that is not one of those that are expected is a no, told in the server's words.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from redis.crc import key_slot

from luamigrate.model.errors import Refused
from luamigrate.model.rules import ANY, RESERVED, Pattern, Plan
from luamigrate.model.status import Command
from luamigrate.scripts import calls, library
from luamigrate.scripts.replies import ProbeReply
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered, Redirected, ScriptMissing, UnknownCommand, Unsettled

# What the scripts call, by the type of the rule. Where a server does not have an OPTIONAL command,
# the scripts do without.
ALWAYS = ("TYPE", "PTTL")
READING = {
    "hash": ("HGETALL", "HKEYS", "HGET", "HSCAN", "HPEXPIRETIME"),
    "zset": ("ZRANGE", "ZSCORE"),
    "set": ("SDIFF",),
    "list": ("LRANGE",),
    "string": ("GET",),
    "stream": ("XINFO",),
}
SIZING = {"hash": "HLEN", "zset": "ZCARD", "set": "SCARD", "list": "LLEN", "string": "STRLEN", "stream": "XLEN"}
WRITING = {Command.RUN: ("COPY", "UNLINK"), Command.VERIFY: (), Command.ROLLBACK: ("UNLINK",)}
FILLING = {"hash": ("HSETNX", "HPEXPIREAT"), "zset": ("ZADD",), "set": ("SISMEMBER", "SADD")}
GRANT = "grant it (ACL SETUSER; docs/security.md has the whole line)"
OPTIONAL = frozenset(("HPEXPIRETIME", "HPEXPIREAT", "PEXPIRETIME"))

# What only spares work: the scripts do without, for whatever reason it is refused.
PAYLOADS = ("DUMP", "OBJECT")
SPARING = "to spare work"
FOR_VECTORS = "for vector sets, where there are any"
BY_PAYLOAD = ("hash", "zset", "list", "stream")
"""Types whose payloads are compared first."""
WEIGHING = {"hash": ("HSCAN",), "zset": ("ZRANGE",), "set": ("SSCAN",), "list": ("LRANGE",), "stream": ("XRANGE",)}
"""What the scripts call beside SIZING where MEMORY is refused."""

# What big keys take beside that.
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
WRITING_BIG_TYPE = {"zset": ("ZADD",), "hash": ("HSET", "HPEXPIREAT"), "set": ("SADD",), "list": ("RPUSH",)}
WRITING_BIG_ACROSS = {"string": ("APPEND",)}

# What pairs whose halves live in two slots of a cluster take beside that.
ACROSS = ("TIME", "PEXPIRETIME", "DUMP")
READING_ACROSS = {"set": ("SMEMBERS",)}
WRITING_ACROSS = {Command.RUN: ("RESTORE", "UNLINK"), Command.VERIFY: (), Command.ROLLBACK: ("UNLINK",)}

EXAMPLES = 200_000
"""Names tried, until one belongs to a node."""
PLACES = 3
"""Slots of a node that are tried: in one that is being moved, its keys are said to be elsewhere."""

_ELSEWHERE = re.compile("non local key")
_DENIED = re.compile("can't run this command|no permissions to run", re.IGNORECASE)
_UNKNOWN = re.compile("unknown (redis )?command", re.IGNORECASE)
_TAKES_NO_WRITES = re.compile(r"\b(MISCONF|NOREPLICAS|READONLY)\b")

Commands = dict[str, str]
"""Commands, and what each is needed for."""


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
class Permitted:
    """What was found out where nothing was refused that is needed."""

    untried: list[str]
    """Commands that could not be tried without writing."""
    done_without: dict[str, str]
    """Commands that spare work and are refused, with the server's words."""
    failing: dict[str, str]
    """Commands that only vector sets need and that are refused, with the server's words."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """What this user may do on a server, or on a node of a cluster."""

    deployment: Deployment
    server: Connection
    needs: Needs

    def refuse_unless_permitted(self) -> Permitted:
        """Raise Refused, with the name of a check in front, where this user could not do this here with this plan."""
        with self._needed("SCRIPT LOAD", "to keep the scripts"):
            library.register(self.server, "probe")
        if any(rule.source.has_star for rule in self.needs.plan):
            self._call("to find keys", "SCAN", "0", "COUNT", "1")
        commands = _commands(self.needs)
        if self._has_slots:
            commands |= _across(self.needs)
            self._refuse_unless_cluster_may_be_asked()
        with self._needed("EVALSHA", "to run scripts"):
            calls.probe(self.server, (), b"", (), reads_only=self.needs.reads_only)
        self._check_keys()
        answers = self._probe(commands)
        sparing = self._probe(_sparing(self.needs))
        done_without = {name: text for name, text in _refused(sparing).items() if name not in commands}
        if "MEMORY" in done_without:
            answers |= self._probe(_weighing(self.needs))
        if self._reads_in_scripts_of_their_own:
            self._probe({}, reads_only=True)
        vectors = self._probe(vector_commands) if (vector_commands := _vectors(self.needs)) else {}
        failing = {name: text for name, text in _refused(vectors).items() if not _UNKNOWN.search(text)}
        return Permitted(_untried(answers), done_without, failing)

    def refuse_unless_big_keys_permitted(self) -> Permitted:
        """Raise Refused where this user could not take big keys apart."""
        commands = _big(self.needs, across=self._has_slots)
        if self.needs.command is Command.RUN:
            staging = self._absent(RESERVED + b"staging:")
            with suppress(Redirected, Unsettled), self._needed("EVALSHA", "to write staging keys"):
                calls.probe(self.server, [staging], staging, (), reads_only=False)
        answers = self._probe(commands)
        if not self._reads_in_scripts_of_their_own:
            self._probe({}, reads_only=True)
        why = "to take big keys apart"
        for source in filter(None, [self._example(rule.source) for rule in self.needs.plan[:1]]):
            with suppress(Redirected, Unsettled):
                self._call(why, "WATCH", source)
        for command in ("UNWATCH", "MULTI", "EXEC"):
            self._call(why, command)
        return Permitted(_untried(answers), {}, {})

    @property
    def _reads_in_scripts_of_their_own(self) -> bool:
        """Whether small keys take EVALSHA_RO too, as big ones always do."""
        return self.needs.dry_run or self.needs.extra or self._has_slots

    @property
    def _has_slots(self) -> bool:
        """Whether the keys of a pair may be in two slots, and slots may be moved."""
        return self.deployment.slots is not None

    def _refuse_unless_cluster_may_be_asked(self) -> None:
        why = "to follow slots that are moved"
        self._call(why, "CLUSTER", "NODES")
        self._call(why, "CLUSTER", "COUNTKEYSINSLOT", 0)
        self._call(why, "CLUSTER", "GETKEYSINSLOT", 0, 1)
        for command in ("ASKING", "MULTI", "EXEC"):
            self._call(why, command)

    def _call(self, why: str, *command: bytes | str | int) -> Any:
        """Call what is needed. Raises Refused, with the name of a check in front."""
        named = 2 if command[0] == "CLUSTER" else 1
        with self._needed(" ".join(map(str, command[:named])), why):
            return self.server.call(*command).answer()

    @contextmanager
    def _needed(self, command: str, why: str) -> Iterator[None]:
        """Turn whatever a server answers in the place of what is needed into a refusal that names it."""
        try:
            yield
        except (Redirected, Unsettled):
            raise  # the server knows the command, and would do it elsewhere
        except UnknownCommand as problem:
            raise Refused(self._unknown(command, why, problem.text)) from None
        except ScriptMissing:
            text = "scripts: the server forgets each script at once: what SCRIPT LOAD has loaded, EVALSHA does not find"
            raise Refused(text) from None
        except Answered as problem:
            raise Refused(f"scripts: {command} is refused, and needed {why}: {problem}") from None

    def _unknown(self, command: str, why: str, words: str) -> str:
        who = self.server.identity
        if who.is_at_least(redis=(6, 2), valkey=(7, 2)):
            return (
                f"scripts: {who.product} {who.version} has no {command}, which is needed {why}, though its version has "
                f"it: is it renamed or switched off (rename-command), or kept back by a proxy? Have it back "
                f"meanwhile ({words})"
            )
        return f"version: this server has no {command}; luamigrate needs Redis 6.2 or later, or Valkey"

    def _probe(self, commands: Commands, *, reads_only: bool | None = None) -> dict[str, str]:
        """Try commands in a script: return 'ok' or 'untried' for each, and the server's words for the optional ones.

        Raises Refused where one of the others may not be called.
        """
        may_not_write = self.needs.reads_only if reads_only is None else reads_only
        answers = self._tried(list(commands), reads_only=may_not_write)
        untried = _untried(answers)
        if untried and not may_not_write:
            # A script that may not write can ask for what would write. Not every server has such scripts.
            with suppress(Refused):
                answers |= self._tried(untried, reads_only=True)
        refused = {
            name: answer
            for name, answer in _refused(answers).items()
            if commands[name] not in (SPARING, FOR_VECTORS) and not (name in OPTIONAL and _UNKNOWN.search(answer))
        }
        # All that has to be granted is told at once: nobody is to mend one after the other.
        if denied := [name for name, answer in refused.items() if _DENIED.search(answer)]:
            raise Refused(f"permissions: this user may not call {' '.join(denied)}; {GRANT}")
        for name, answer in refused.items():
            raise Refused(self._refusal(name, commands[name], answer))
        return answers

    def _tried(self, commands: list[str], *, reads_only: bool) -> dict[str, str]:
        for _ in range(PLACES):
            absent, keys = self._untouched()
            with self._needed("EVALSHA_RO" if reads_only else "EVALSHA", "to run scripts"):
                answers = calls.probe(self.server, keys, absent, commands, reads_only=reads_only)
            elsewhere = [name for name, answer in answers.items() if _ELSEWHERE.search(answer)]
            if not elsewhere:
                return answers
        with self._needed("EVALSHA", "to run scripts"):
            keyless = calls.probe(self.server, (), b"", ("TIME",), reads_only=reads_only)
        if not _ELSEWHERE.search(keyless["TIME"]):
            # All that this node has is being moved: what touches a key cannot be tried here.
            return answers | dict.fromkeys(elsewhere, str(ProbeReply.UNTRIED))
        raise Refused(
            "version: this node refuses whatever a script does, as Valkey 9.1 does from the moment on in which "
            "somebody's script has tried a command across slots: fail over to its replica, or restart it"
        )

    def _refusal(self, command: str, why: str, words: str) -> str:
        if _TAKES_NO_WRITES.search(words):
            return f"writes: the server takes none: {words}"
        if _UNKNOWN.search(words):
            return self._unknown(command, why, words)
        return f"scripts: {command} is refused in scripts, and needed {why}: {words}"

    def _check_keys(self) -> None:
        """Raise Refused where this user may not touch the rules' keys."""
        reads_only = self.needs.reads_only
        patterns = [pattern for rule in self.needs.plan for pattern in (rule.source, rule.target)]
        examples = [(pattern, name) for pattern in patterns if (name := self._example(pattern))]
        if not self._has_slots:
            with suppress(Refused, Answered):
                calls.probe(self.server, [name for _, name in examples], b"", (), reads_only=reads_only)
                return
        denied = [str(pattern) for pattern, name in examples if not self._may_touch(name)]
        if denied:
            touch = "read" if reads_only else "read and write"
            raise Refused(f"permissions: this user may not {touch} {', '.join(dict.fromkeys(denied))}; {GRANT}")

    def _may_touch(self, name: bytes) -> bool:
        # Where a slot is being moved, whoever is sent to another node has been found to be permitted.
        with suppress(Redirected, Unsettled), self._needed("EVALSHA", "to run scripts"):
            try:
                calls.probe(self.server, [name], b"", (), reads_only=self.needs.reads_only)
            except Refused:
                return False
        return True

    def _untouched(self) -> tuple[bytes, list[bytes]]:
        """Return a name that does not exist, and the names to declare.

        On a single server it is declared itself where the user may touch it, for some servers want that of all names.
        """
        patterns = [rule.source if self.needs.reads_only else rule.target for rule in self.needs.plan]
        starred = next((pattern for pattern in patterns if pattern.has_star), None)
        if self._has_slots or not starred:
            return self._absent(b""), []
        name = self._absent(starred.prefix, starred.suffix or b"")
        return name, [name]

    def _example(self, pattern: Pattern) -> bytes | None:
        """Return a name that matches, for scripts to be given, not to be touched; None where it is not held here."""
        if pattern.suffix is None:
            return pattern.prefix if self.deployment.node_for(pattern.prefix) is self.server else None
        names = [pattern.prefix + name + pattern.suffix for name in (b"1", b"2", b"3", b"4")]
        if len(set(map(key_slot, names))) == 1 and self.deployment.node_for(names[0]) is not self.server:
            return None  # a constant hash tag: they are all held elsewhere
        return self._absent(pattern.prefix, pattern.suffix)

    def _absent(self, prefix: bytes, suffix: bytes = b"") -> bytes:
        """Return the name of a key that is not there, and belongs here."""
        for _ in range(EXAMPLES):
            name = prefix + RESERVED + b"probe:" + secrets.token_hex(8).encode() + suffix
            if self.deployment.node_for(name) is self.server:
                break
        return name


def _untried(answers: dict[str, str]) -> list[str]:
    return [name for name, answer in answers.items() if answer == ProbeReply.UNTRIED]


def _refused(answers: dict[str, str]) -> dict[str, str]:
    """Return the server's words for the commands that it refuses: what could not be tried is not among them."""
    return {name: text for name, text in answers.items() if text not in (ProbeReply.OK, ProbeReply.UNTRIED)}


def _kinds(plan: Plan) -> list[str]:
    types = {rule.type for rule in plan}
    return [kind for kind in READING if kind in types or ANY in types]


def _for(why: str, commands: Iterable[str]) -> Commands:
    return dict.fromkeys(commands, why)


def _of_types(needs: Needs, table: Mapping[str, tuple[str, ...]]) -> list[str]:
    return [name for kind in _kinds(needs.plan) for name in table.get(kind, ())]


def _commands(needs: Needs) -> Commands:
    """Return what the scripts will call on keys of one slot."""
    what = "to copy" if needs.command is Command.RUN else "to delete"
    commands = _for("to look at keys", ALWAYS) | _for(what, WRITING[needs.command])
    commands |= _for("to compare", _of_types(needs, READING))
    if needs.dry_run and needs.command is Command.RUN:
        commands |= _for("to tell sizes", [SIZING[kind] for kind in _kinds(needs.plan)])
    return commands | (_for("to fill", _of_types(needs, FILLING)) if needs.fills else {})


def _across(needs: Needs) -> Commands:
    """Return what the scripts will call beside that on keys of two slots."""
    commands = (*ACROSS, *WRITING_ACROSS[needs.command], *_of_types(needs, READING_ACROSS))
    return _for("for keys of two slots", commands)


def _sparing(needs: Needs) -> Commands:
    payloads = PAYLOADS if any(kind in BY_PAYLOAD for kind in _kinds(needs.plan)) else ()
    return _for(SPARING, ("MEMORY", *payloads))


def _vectors(needs: Needs) -> Commands:
    reading = ("DUMP", "VCARD", "VRANDMEMBER", "VEMB", "VGETATTR")
    needed = (*reading, "RESTORE") if needs.command is Command.RUN else reading
    return _for(FOR_VECTORS, needed if any(rule.type == ANY for rule in needs.plan) else ())


def _weighing(needs: Needs) -> Commands:
    """Return what the scripts will call to weigh keys where MEMORY is refused."""
    commands = [*(SIZING[kind] for kind in _kinds(needs.plan)), *_of_types(needs, WEIGHING)]
    return _for("to weigh keys, because MEMORY is refused", commands)


def _big(needs: Needs, *, across: bool) -> Commands:
    commands = [*WRITING_BIG[needs.command], *_of_types(needs, READING_BIG)]
    if needs.command is Command.RUN:
        commands += _of_types(needs, WRITING_BIG_TYPE) + (_of_types(needs, WRITING_BIG_ACROSS) if across else [])
    return _for("to take big keys apart", commands)
