"""luamigrate gives Redis keys new names by copying them inside the server."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

TYPE_CHECKING = False  # typing takes a while to import
if TYPE_CHECKING:
    from luamigrate.access import Tls, connect
    from luamigrate.errors import Error, Exit, Refused, Stopped, UsageError, printable
    from luamigrate.migrate import Operator, migrate, rollback, verify
    from luamigrate.outcome import Batch, Command, KeyOutcome, Reason, Stage, Summary, Tally, Word
    from luamigrate.pace import Limits
    from luamigrate.rules import BUILT_IN, Pattern, Plan, Rule, plan, plan_from_file
    from luamigrate.servers import Server
    from luamigrate.waiting import Waiting

__version__ = "0.1.0"

__all__ = [
    "BUILT_IN",
    "Batch",
    "Command",
    "Error",
    "Exit",
    "KeyOutcome",
    "Limits",
    "Operator",
    "Pattern",
    "Plan",
    "Reason",
    "Refused",
    "Rule",
    "Server",
    "Stage",
    "Stopped",
    "Summary",
    "Tally",
    "Tls",
    "UsageError",
    "Waiting",
    "Word",
    "connect",
    "migrate",
    "plan",
    "plan_from_file",
    "printable",
    "rollback",
    "verify",
]

_HOMES = ("access", "errors", "migrate", "outcome", "pace", "rules", "servers", "waiting")
"""Modules that have what is listed above."""


class _Package(ModuleType):
    """Imports what it offers when it is asked for: until then the command line must be able to take Ctrl-C."""

    def __getattr__(self, name: str) -> object:
        if name in __all__:
            for home in _HOMES:
                module = import_module(f"{__name__}.{home}")
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

    def __setattr__(self, name: str, value: object) -> None:
        # The import system would put the module of this name in the place of the function.
        if name != "migrate" or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
