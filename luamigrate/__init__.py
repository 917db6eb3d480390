"""luamigrate gives Redis keys new names by copying them inside the server."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing takes a while to import
if TYPE_CHECKING:
    from luamigrate.migration.execute import migrate, rollback, verify
    from luamigrate.migration.follow import follow
    from luamigrate.model.control import Control, Operator
    from luamigrate.model.cutover import CutoverOptions, Hooks, Kill, Side, Wish
    from luamigrate.model.drift import Drift
    from luamigrate.model.errors import Error, Exit, Refused, Stopped, UsageError, printable
    from luamigrate.model.following import Followed
    from luamigrate.model.limits import Limits
    from luamigrate.model.patterns import Pattern
    from luamigrate.model.plan_files import plan_from_file, plan_from_pairs
    from luamigrate.model.plans import BUILT_IN, Plan, plan
    from luamigrate.model.rules import Rule
    from luamigrate.model.status import Command, KeyOutcome, Reason, Stage, Word
    from luamigrate.model.summary import Batch, Summary, Tally
    from luamigrate.server.connect import connect
    from luamigrate.server.deployment import Deployment
    from luamigrate.server.standalone import Server, Standalone
    from luamigrate.server.tls import Tls
    from luamigrate.server.waiting import Waiting

__version__ = "0.2.0"

__all__ = [
    "BUILT_IN",
    "Batch",
    "Command",
    "Control",
    "CutoverOptions",
    "Deployment",
    "Drift",
    "Error",
    "Exit",
    "Followed",
    "Hooks",
    "KeyOutcome",
    "Kill",
    "Limits",
    "Operator",
    "Pattern",
    "Plan",
    "Reason",
    "Refused",
    "Rule",
    "Server",
    "Side",
    "Stage",
    "Standalone",
    "Stopped",
    "Summary",
    "Tally",
    "Tls",
    "UsageError",
    "Waiting",
    "Wish",
    "Word",
    "connect",
    "follow",
    "migrate",
    "plan",
    "plan_from_file",
    "plan_from_pairs",
    "printable",
    "rollback",
    "verify",
]

_HOMES = (
    *(
        "migration.execute",
        "migration.follow",
        "model.control",
        "model.cutover",
        "model.drift",
        "model.errors",
        "model.following",
        "model.limits",
        "model.patterns",
        "model.plans",
        "model.plan_files",
        "model.rules",
        "model.status",
        "model.summary",
    ),
    *("server.connect", "server.deployment", "server.standalone", "server.tls", "server.waiting"),
)
"""Modules that have what is listed above."""


def __getattr__(name: str) -> object:
    """Import what is offered when it is asked for: until then the command line must be able to take Ctrl-C."""
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"{__name__}.{home}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
