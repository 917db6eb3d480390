"""What the user has set: plan, limits and the rest, and where each value came from."""

from __future__ import annotations

import os
from typing import Any

import typer
from typer.core import TyperCommand

from luamigrate import rules
from luamigrate.checks import NAMES
from luamigrate.errors import UsageError, printable
from luamigrate.pace import Limits
from luamigrate.urls import redacted


class StrictCommand(TyperCommand):
    """Takes no blank or odd value from the environment for an unset one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and look at what came from the environment. Raises UsageError."""
        rest = super().parse_args(ctx, args)
        for option in self.params:
            name = option.envvar
            text = os.environ.get(name) if isinstance(name, str) else None
            if text is None or _source(ctx, option.name) == "COMMANDLINE":
                continue
            if not text.strip():
                raise UsageError(f"{name} is set but blank: give it a value or unset it")
            if getattr(option, "is_flag", False) and text.lower() not in ("true", "false"):
                raise UsageError(f"{name} must be true or false, not '{printable(os.fsencode(text))}'")
        return rest


def plan(ctx: typer.Context) -> rules.Plan:
    """Return the rules. Raises UsageError."""
    maps, kind, plan_file = (ctx.params[name] for name in ("maps", "kind", "plan_file"))
    if maps and plan_file and _source(ctx, "plan_file") == "COMMANDLINE":
        raise UsageError("--map and --plan exclude each other")
    if kind and len(kind) > 1:
        raise UsageError("--type is given twice: it holds for all --map; rules of several types need --plan")
    if kind and not maps:
        raise UsageError("--type belongs to --map; a plan file gives each rule its own type")
    if maps:
        return rules.plan_from_maps(maps, kind[0] if kind else rules.ANY)
    return rules.plan_from_file(plan_file) if plan_file else rules.BUILT_IN


_LIMITS = ("batch_size", "max_pause", "max_rate", "max_lag", "wait_replicas", "patience", "allow_long_pause")


def limits(ctx: typer.Context) -> Limits:
    """Return how gently it is to be done. Raises UsageError."""
    return Limits(**{name: ctx.params[name] for name in _LIMITS if name in ctx.params})


def ignored_checks(ctx: typer.Context) -> frozenset[str]:
    """Return the names of checks that are not to be heard. Raises UsageError."""
    names = ctx.params["ignore_check"] or []
    for name in names:
        if name not in NAMES:
            shown = printable(os.fsencode(name))
            raise UsageError(f"--ignore-check '{shown}': there is no such check; there are {', '.join(NAMES)}")
    return frozenset(names)


def refuse_nonsense(ctx: typer.Context) -> None:
    """Raise UsageError before anything is printed."""
    limits(ctx)
    ignored_checks(ctx)


_RARE = frozenset(("max_rate", "max_lag", "wait_replicas", "allow_long_pause", "allow_empty", "ignore_check"))
"""Shown only where they are set."""

_DECISIVE = (
    *("dry_run", "validate", "on_existing", "fill_queues", "sample", "extra", "settle", "ignore_expiry"),
    *(*_LIMITS, "allow_empty", "ignore_check"),
)


def configuration(ctx: typer.Context, chosen: rules.Plan) -> list[tuple[str, str, str]]:
    """Return name, value and origin of each setting that decides what is done."""
    of_plan = next(name for name in ("maps", "plan_file", "") if not name or ctx.params[name])
    rows = [("url", redacted(ctx.params["url"]), origin(ctx, "url"))]
    rows.append(("plan", f"{len(chosen)} rules" if len(chosen) > 1 else str(chosen[0]), origin(ctx, of_plan)))
    names = [
        name for name in _DECISIVE if name in ctx.params and not (name in _RARE and origin(ctx, name) == "default")
    ]
    return rows + [(name.replace("_", " "), _shown(ctx.params[name]), origin(ctx, name)) for name in names]


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value).lower()


def origin(ctx: typer.Context, name: str) -> str:
    """Say where a parameter's value came from, in the user's terms."""
    option = next((option for option in ctx.command.params if option.name == name), None)
    match _source(ctx, name):
        case "ENVIRONMENT" if option:
            return str(option.envvar)
        case "COMMANDLINE" if option:
            return option.opts[0]
        case _:
            return "default" if option else "built in"


def _source(ctx: Any, name: str | None) -> str:
    source = ctx.get_parameter_source(name)
    return source.name if source else ""
