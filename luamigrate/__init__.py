"""luamigrate gives Redis keys new names by copying them inside the server."""

from luamigrate.errors import Error, Exit, Refused, UsageError, printable
from luamigrate.migrate import migrate
from luamigrate.outcome import Batch, KeyOutcome, Reason, RuleSummary, Summary, Word
from luamigrate.rules import BUILT_IN, Pattern, Plan, Rule, plan, plan_from_file
from luamigrate.servers import Server, connect

__version__ = "0.1.0"

__all__ = [
    "BUILT_IN",
    "Batch",
    "Error",
    "Exit",
    "KeyOutcome",
    "Pattern",
    "Plan",
    "Reason",
    "Refused",
    "Rule",
    "RuleSummary",
    "Server",
    "Summary",
    "UsageError",
    "Word",
    "connect",
    "migrate",
    "plan",
    "plan_from_file",
    "printable",
]
