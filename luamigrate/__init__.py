"""luamigrate gives Redis keys new names by copying them inside the server."""

from luamigrate.access import Tls, connect
from luamigrate.errors import Error, Exit, Refused, Stopped, UsageError, printable
from luamigrate.migrate import Operator, migrate, rollback, verify
from luamigrate.outcome import Batch, Command, KeyOutcome, Reason, Stage, Summary, Tally, Word
from luamigrate.pace import Limits
from luamigrate.rules import BUILT_IN, Pattern, Plan, Rule, plan, plan_from_file
from luamigrate.servers import Server

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
    "Word",
    "connect",
    "migrate",
    "plan",
    "plan_from_file",
    "printable",
    "rollback",
    "verify",
]
