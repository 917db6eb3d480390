"""What a follow is told about cutting over: read from the options, and refused where it makes no sense."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping

from luamigrate.cli.options import Options
from luamigrate.model.cutover import CutoverOptions, Hooks, Kill
from luamigrate.model.errors import UsageError, as_typed
from luamigrate.model.plans import Plan
from luamigrate.model.rules import RESERVED, as_bytes

LONGEST_FLAG = 200
"""Bytes of key and value together: what flips has to fit into one small packet."""
COMMANDS = ("on_cutover", "on_flip", "on_straggler")
"""Options whose value is a command."""
OF_CUT_OVER = (
    *("flip", "cutover", "watch", "freeze", "no_freeze", "quiet_for", "attempts", "prove", "kill", "kill_user"),
    *COMMANDS,
)
"""All options of a cut-over."""


def cutover_of(options: Options, given: Mapping[str, str], plan: Plan, secret: frozenset[str]) -> CutoverOptions | None:
    """Return how it is to cut over; None without a flag. Raises UsageError for what makes no sense.

    `given` has the options that somebody has set, with the name under which that was; `secret` the variables that are
    not for hooks.
    """
    if options.flip is None:
        for name in (*OF_CUT_OVER, "yes"):
            if name in given and getattr(options, name) is not False:
                raise UsageError(f"{given[name]} needs --flip KEY=VALUE, the flag that is to be set")
        return None
    _refuse_contradictions(options, given)
    flag, value = _flag(options.flip, plan)
    return CutoverOptions(
        flag=flag,
        value=value,
        freeze_ms=options.freeze,
        attempts=options.attempts,
        kill=options.kill,
        kill_user=options.kill_user,
        prove=options.prove,
        freezes=not options.no_freeze,
        quiet_seconds=options.quiet_for,
        at_once=options.cutover,
        watch_seconds=options.watch,
        confirmed=options.yes,
        hooks=Hooks(
            on_cutover=_command(given, "on_cutover", options.on_cutover),
            on_flip=_command(given, "on_flip", options.on_flip),
            on_straggler=_command(given, "on_straggler", options.on_straggler),
            without=secret,
        ),
    )


def _refuse_contradictions(options: Options, given: Mapping[str, str]) -> None:
    for name, needs, is_there in (
        ("watch", "--cutover", options.cutover),
        ("quiet_for", "--no-freeze", options.no_freeze),
    ):
        if name in given and not is_there:
            raise UsageError(f"{given[name]} belongs to {needs}")
    if options.no_freeze and "freeze" in given:
        raise UsageError(f"{given['freeze']} and {given['no_freeze']} exclude each other")
    if options.kill_user is not None and options.kill is Kill.NONE:
        raise UsageError("--kill none closes no connections: it excludes --kill-user")
    if options.kill_user is not None and not options.kill_user.strip():
        raise UsageError("--kill-user needs the name of a user")


def _flag(text: str, plan: Plan) -> tuple[bytes, bytes]:
    """Return key and value; the names of the plan are decided by its patterns alone."""
    shown = f"--flip '{as_typed(as_bytes(text))}'"
    flag, _, value = as_bytes(text).partition(b"=")
    if not flag or not value:
        raise UsageError(f"{shown}: needs a key, =, and a value, as in 'app:names=new'")
    if len(flag) + len(value) > LONGEST_FLAG:
        raise UsageError(f"--flip: key and value have {LONGEST_FLAG} bytes at most, together")
    if flag.startswith(RESERVED):
        raise UsageError(f"{shown}: names under luamigrate: are its own")
    is_target = plan.origin(flag) is not None
    if plan.rule_for(flag) or is_target:
        raise UsageError(f"{shown}: this key is a {'target' if is_target else 'source'} of the plan itself")
    return flag, value


def _command(given: Mapping[str, str], name: str, text: str | None) -> tuple[str, ...] | None:
    """Return the words of a command that can be run."""
    if text is None:
        return None
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"{given[name]} is no command: {error}") from None
    if not words or not words[0]:
        raise UsageError(f"{given[name]} names no command")
    if not shutil.which(words[0]):
        raise UsageError(f"{given[name]}: there is no program {as_typed(os.fsencode(words[0]))}")
    return words


def program_of(command: str) -> str:
    """Return the program of a command, for people: the words behind it may be a password of somebody else."""
    program, *others = shlex.split(command)
    return as_typed(os.fsencode(program)) + (" …" if others else "")
