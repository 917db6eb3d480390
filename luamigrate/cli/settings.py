"""What the user has set: plan, limits and the rest, and where each value came from."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from luamigrate.cli import messages
from luamigrate.model import rules
from luamigrate.model.errors import UsageError, printable
from luamigrate.model.limits import Limits
from luamigrate.preflight.checks import NAMES
from luamigrate.server.cluster import Deployment
from luamigrate.server.connect import Tls, connect_to, pool_for, unreadable
from luamigrate.server.url import ServerUrl
from luamigrate.server.waiting import SECONDS_FOR_NOBODY, Waiting


class StrictCommand(TyperCommand):
    """Takes no blank or odd value from the environment for an unset one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and look at what came from the environment. Raises UsageError."""
        given = {argument.partition("=")[0] for argument in args}
        ctx.allow_extra_args = True  # refused below: the parser would show what may be a part of a secret
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            _refuse_surplus(rest, given)
        for option in self.params:
            name = option.envvar
            text = os.environ.get(name) if isinstance(name, str) else None
            if text is None or _source(ctx, option.name) == "COMMANDLINE":
                continue
            _refuse_blank(str(name), text)
            if getattr(option, "is_flag", False) and text.lower() not in ("true", "false"):
                raise UsageError(f"{name} must be true or false, not '{printable(os.fsencode(text))}'")
        return rest


_SECRET_FILES = ("--password-file", "--tls-ca", "--tls-cert", "--tls-key")
"""Options whose value is never shown unless it has been read as a file's name: it may be the secret itself."""


def _refuse_surplus(arguments: list[str], given: set[str]) -> None:
    if not arguments:
        return
    option = next((option for option in _SECRET_FILES if option in given), None)
    if option:
        raise UsageError(
            f"there are more arguments than options take. Has the shell cut the value of {option} at a space? It is "
            "the name of a file, in quotes if it has spaces"
        )
    shown = " ".join(printable(os.fsencode(argument)) for argument in arguments)
    raise UsageError(f"there are more arguments than options take: {shown}")


_ACCESS = "luamigrate.access"
"""Under which name the context keeps it."""


def _refuse_blank(name: str, text: str) -> None:
    if not text.strip():
        raise UsageError(f"{name} is set but blank: give it a value or unset it")


def access(ctx: typer.Context) -> Callable[..., Deployment]:
    """Return how to connect, given how long to wait for that. Raises UsageError."""
    # Read once: a password may come through a pipe.
    if _ACCESS not in ctx.meta:
        chosen = ctx.params
        of_tls = [name for name in _OF_TLS if name not in _without_use(ctx)]
        arguments: dict[str, Any] = {
            "url": _url(ctx),
            "tls": Tls(**{name.removeprefix("tls_"): chosen[name] for name in of_tls}),
            "password": _password(chosen["password_file"]),
            "sentinel_password": _secret("SENTINEL_PASSWORD"),
        }
        pool_for(**arguments)
        ctx.meta[_ACCESS] = partial(connect_to, **arguments)
    how: Callable[..., Deployment] = ctx.meta[_ACCESS]
    return how


def _url(ctx: typer.Context) -> ServerUrl:
    url: ServerUrl = ctx.meta.setdefault("luamigrate.url", None) or ServerUrl.parse(ctx.params["url"])
    ctx.meta["luamigrate.url"] = url
    return url


def waiting(ctx: typer.Context, tell: Callable[[str], None]) -> Waiting:
    """Return how long to wait for the first connection: for nobody only briefly, if the user does not say."""
    patience = ctx.params["patience"]
    is_given = _source(ctx, "patience") in ("COMMANDLINE", "ENVIRONMENT")
    for_nobody = patience if is_given else min(patience, SECONDS_FOR_NOBODY)
    return Waiting(patience=patience, for_nobody=for_nobody, tell=tell)


def warnings(ctx: typer.Context) -> list[str]:
    """Return what has to be said before a server is asked."""
    unused = _without_use(ctx)
    ignored = [messages.tls_ignored([origin(ctx, name) for name in unused])] if unused else []
    return ignored + ([messages.INSECURE] if ctx.params["tls_insecure"] and "tls_insecure" not in unused else [])


_OF_TLS = ("tls_ca", "tls_cert", "tls_key", "tls_insecure")


def _without_use(ctx: typer.Context) -> list[str]:
    """Return the settings of TLS that the environment has, perhaps for another program, where the URL has no TLS."""
    if _url(ctx).takes_tls:
        return []
    return [name for name in _OF_TLS if ctx.params[name] and _source(ctx, name) == "ENVIRONMENT"]


def _password(file: Path | None) -> str | None:
    secret = _secret("REDIS_PASSWORD")
    if not file:
        return secret
    password = _first_line(file)
    if secret not in (None, password):
        raise UsageError("REDIS_PASSWORD and --password-file (REDIS_PASSWORD_FILE) give two passwords: only one can be")
    return password


def _first_line(file: Path) -> str:
    option = "--password-file (REDIS_PASSWORD_FILE)"
    try:
        with file.open("rb") as lines:
            password = _without_end(lines.readline().decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError(f"{option} names a file whose first line is not UTF-8") from None
    except (OSError, ValueError) as error:
        raise unreadable(option, error, "the password itself, which is for REDIS_PASSWORD") from None
    if not password:
        raise UsageError(f"{option} names a file whose first line is empty")
    return password


def _secret(name: str) -> str | None:
    text = os.environ.get(name)
    if text is None:
        return None
    _refuse_blank(name, text)
    return _without_end(text)


def _without_end(line: str) -> str:
    return line.removesuffix("\n").removesuffix("\r")


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
    access(ctx)
    limits(ctx)
    ignored_checks(ctx)


_WAY_IN = ("password_file", *_OF_TLS)
_RARE = frozenset((*_WAY_IN, "max_rate", "max_lag", "wait_replicas", "allow_long_pause", "allow_empty", "ignore_check"))
"""Shown only where they are set."""

_DECISIVE = (
    *_WAY_IN,
    *("dry_run", "validate", "on_existing", "fill_queues", "sample", "extra", "settle", "ignore_expiry"),
    *(*_LIMITS, "allow_empty", "ignore_check"),
)


def configuration(ctx: typer.Context, chosen: rules.Plan) -> list[tuple[str, str, str]]:
    """Return name, value and origin of each setting that decides what is done."""
    of_plan = next(name for name in ("maps", "plan_file", "") if not name or ctx.params[name])
    rows = [("url", _url(ctx).redacted, origin(ctx, "url"))]
    if "REDIS_PASSWORD" in os.environ:
        rows.append(("password", "***", "REDIS_PASSWORD"))
    rows.append(("plan", f"{len(chosen)} rules" if len(chosen) > 1 else str(chosen[0]), origin(ctx, of_plan)))
    unshown = {*_without_use(ctx), *(name for name in _RARE if origin(ctx, name) == "default")}
    names = [name for name in _DECISIVE if name in ctx.params and name not in unshown]
    return rows + [(name.replace("_", " "), _shown(ctx.params[name]), origin(ctx, name)) for name in names]


def _shown(value: Any) -> str:
    match value:
        case list():
            return ", ".join(value)
        case Path():
            return printable(os.fsencode(value))
        case _:
            return str(value).lower()


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
