"""Permissions: what is needed is tried out, on names that do not exist. Writes nothing.

An answer that is not expected is a no, told with the server's error text.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from redis.crc import key_slot

from luamigrate.model.errors import Refused
from luamigrate.model.patterns import STAR, Pattern
from luamigrate.model.rules import RESERVED
from luamigrate.model.status import Command
from luamigrate.preflight.needs import FOR_LARGE, FOR_VECTORS, OPTIONAL, SPARING, Commands, Needs
from luamigrate.scripts import calls, library
from luamigrate.scripts.replies import ProbeReply
from luamigrate.server.connection import Connection
from luamigrate.server.deployment import Deployment
from luamigrate.server.errors import Answered, Redirected, ScriptMissing, UnknownCommand, Unsettled
from luamigrate.server.freeze import refused_commands

GRANT = "grant it (ACL SETUSER; docs/security.md has the whole line)"
EXAMPLES = 200_000
"""Names tried, until one belongs to a node."""
PLACES = 3
"""Slots of a node that are tried: a node says of a slot that is being moved that its keys are elsewhere."""

ANYTHING = Pattern((b"", b""), (STAR,))

_NO_DATABASE = re.compile("DB index is out of range")
_ELSEWHERE = re.compile("non local key")
_DENIED = re.compile("can't run this command|no permissions to run", re.IGNORECASE)
_UNKNOWN = re.compile("unknown (redis )?command", re.IGNORECASE)
_TAKES_NO_WRITES = re.compile(r"\b(MISCONF|NOREPLICAS|READONLY)\b")


@dataclass(frozen=True, slots=True)
class Permitted:
    """What was found where everything that is needed is permitted."""

    untried: list[str]
    """Commands that could not be tried without writing."""
    done_without: dict[str, str]
    """Commands that only spare work and are refused, with the server's error text."""
    failing: dict[str, str]
    """Commands that only vector sets need and that are refused, with the server's error text."""


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
        if any(rule.source_names is None for rule in self.needs.plan):
            self._call("to find keys", "SCAN", "0", "COUNT", "1")
        commands = self.needs.same_slot
        if self._has_slots:
            commands |= self.needs.cross_slot
            self._refuse_unless_cluster_may_be_asked()
        with self._needed("EVALSHA", "to run scripts"):
            calls.probe(self.server, (), b"", (), reads_only=self.needs.reads_only)
        self._refuse_unless_databases_can_be_reached()
        self._check_keys()
        answers = self._probe(commands)
        if self.needs.command is Command.FOLLOW:
            self._call("to know that all changes were told", "PING")
        if self.needs.flag is not None:
            self._refuse_unless_transactions_permitted("to mirror back")
        if self.needs.freezes:
            self._refuse_unless_writes_can_be_held()
        sparing = self._probe(self.needs.sparing)
        done_without = {name: text for name, text in _refused(sparing).items() if name not in commands}
        if "MEMORY" in done_without:
            answers |= self._probe(self.needs.weighing)
        if self._reads_in_scripts_of_their_own:
            self._probe({}, reads_only=True)
        vectors = self._probe(vector_commands) if (vector_commands := self.needs.vectors) else {}
        failing = {name: text for name, text in _refused(vectors).items() if not _UNKNOWN.search(text)}
        return Permitted(_untried(answers), done_without, failing)

    def refuse_unless_large_keys_permitted(self) -> list[str]:
        """Return commands that could not be tried. Raises Refused where this user could not work on large keys."""
        if self.needs.command in (Command.RUN, Command.FOLLOW):
            staging = self._absent(Pattern((RESERVED + b"staging:", b""), (STAR,)))
            with suppress(Redirected, Unsettled), self._needed("EVALSHA", "to write staging keys"):
                try:
                    calls.probe(self.server, [staging], staging, (), reads_only=False)
                except Refused:
                    raise Refused(
                        f"permissions: this user may not read and write {RESERVED.decode()}staging:*; {GRANT}"
                    ) from None
        answers = self._probe(self.needs.large(cross_slot=self._has_slots))
        if not self._reads_in_scripts_of_their_own:
            self._probe({}, reads_only=True)
        self._refuse_unless_transactions_permitted(FOR_LARGE)
        return _untried(answers)

    @property
    def _reads_in_scripts_of_their_own(self) -> bool:
        """Whether small keys take EVALSHA_RO too, as large ones always do."""
        return self.needs.dry_run or self.needs.extra or self._has_slots

    @property
    def _has_slots(self) -> bool:
        """Whether the keys of a pair may be in two slots, and slots may be moved."""
        return self.deployment.slots is not None

    def _refuse_unless_databases_can_be_reached(self) -> None:
        for database in self.needs.databases:
            select = "SELECT", database
            call = calls.in_database(self.server, database, *select, writes=not self.needs.reads_only)
            try:
                call.answer()
            except (Refused, Answered) as problem:
                if _NO_DATABASE.search(str(problem)):
                    text = (
                        f"there is no database {database} here; `databases` in the server's configuration says how many"
                    )
                    raise Refused(f"databases: {text}") from None
                if _DENIED.search(str(problem)):
                    raise Refused(f"permissions: this user may not call SELECT; {GRANT}") from None
                raise Refused(f"databases: {database} cannot be reached: {problem}") from None

    def _refuse_unless_transactions_permitted(self, why: str) -> None:
        for source in filter(None, [self._example(self.needs.plan[0].examples[0][0])]):
            with suppress(Redirected, Unsettled):
                self._call(why, "WATCH", source)
        if self.needs.databases:
            self._call(why, "SELECT", self.server.database)
        # In a cluster, MULTI and EXEC have been tried by now.
        for command in ("UNWATCH",) if self._has_slots else ("UNWATCH", "MULTI", "EXEC"):
            self._call(why, command)

    def _refuse_unless_writes_can_be_held(self) -> None:
        if refused := refused_commands(self.server):
            rules = " ".join(f"+{name}" for name in refused)
            why = next(iter(refused.values()))
            raise Refused(
                f"permissions: this user may not do what a freeze needs: {why}; grant {rules}, or take --no-freeze"
            )

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
        """Turn an error in the answer to a needed command into a refusal that names the command."""
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

    def _unknown(self, command: str, why: str, text: str) -> str:
        who = self.server.identity
        if who.is_at_least(redis=(6, 2), valkey=(7, 2)):
            return (
                f"scripts: {who.product} {who.version} has no {command}, which is needed {why}, though its version has "
                f"it: is it renamed or switched off (rename-command), or kept back by a proxy? Have it back "
                f"meanwhile ({text})"
            )
        return f"version: this server has no {command}; luamigrate needs Redis 6.2 or later, or Valkey"

    def _probe(self, commands: Commands, *, reads_only: bool | None = None) -> dict[str, str]:
        """Try commands in a script: return 'ok' or 'untried' for each, and the error text for optional ones.

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
        # All that has to be granted is told at once, so that it can be granted at once.
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

    def _refusal(self, command: str, why: str, text: str) -> str:
        if _TAKES_NO_WRITES.search(text):
            return f"writes: the server takes none: {text}"
        if _UNKNOWN.search(text):
            return self._unknown(command, why, text)
        return f"scripts: {command} is refused in scripts, and needed {why}: {text}"

    def _check_keys(self) -> None:
        """Raise Refused where this user may not touch the rules' keys."""
        reads_only = self.needs.reads_only
        patterns = [pattern for rule in self.needs.plan for pair in rule.examples for pattern in pair]
        patterns += self.needs.own_keys
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
        # Where a slot is being moved, a user who is sent to another node has been permitted first.
        with suppress(Redirected, Unsettled), self._needed("EVALSHA", "to run scripts"):
            try:
                calls.probe(self.server, [name], b"", (), reads_only=self.needs.reads_only)
            except Refused:
                return False
        return True

    def _untouched(self) -> tuple[bytes, list[bytes]]:
        """Return a name that does not exist, one that the user may touch if there is one, and the names to declare.

        A server that refuses the name does not say whether a script may write. On a single server the name is
        declared, because some servers demand that.
        """
        patterns = [rule.source if self.needs.reads_only else rule.target for rule in self.needs.plan]
        for pattern in patterns:
            if pattern.varies:
                name = self._absent(pattern)
                if self.deployment.node_for(name) is self.server:
                    return name, [] if self._has_slots else [name]
        return self._absent(ANYTHING), []

    def _example(self, pattern: Pattern) -> bytes | None:
        """Return a name that matches, to be declared and not touched; None where its key would be on another node."""
        if not pattern.varies:
            return pattern.prefix if self.deployment.node_for(pattern.prefix) is self.server else None
        names = [pattern.filled(value) for value in (b"1", b"2", b"3", b"4")]
        if len(set(map(key_slot, names))) == 1 and self.deployment.node_for(names[0]) is not self.server:
            return None  # a constant hash tag: all of them are on another node
        return self._absent(pattern)

    def _absent(self, pattern: Pattern) -> bytes:
        """Return the name of a key that does not exist, and would be on this node."""
        for _ in range(EXAMPLES):
            name = pattern.filled(RESERVED + b"probe:" + secrets.token_hex(8).encode())
            if self.deployment.node_for(name) is self.server:
                break
        return name


def _untried(answers: dict[str, str]) -> list[str]:
    return [name for name, answer in answers.items() if answer == ProbeReply.UNTRIED]


def _refused(answers: dict[str, str]) -> dict[str, str]:
    """Return the error text of each command that the server refuses; what could not be tried is not among them."""
    return {name: text for name, text in answers.items() if text not in (ProbeReply.OK, ProbeReply.UNTRIED)}
