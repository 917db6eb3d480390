"""The entry point of the command line: it sees to signals first, then imports the rest."""

from __future__ import annotations

import sys

from luamigrate.cli.importing import INTERRUPTED, Importing


def main() -> None:
    """Import the command line, run it, and exit with its code."""
    try:
        with Importing():
            from luamigrate.cli import commands  # noqa: PLC0415  # it takes a while
        commands.main()
    except KeyboardInterrupt:  # before or after what the command line itself takes care of
        sys.exit(INTERRUPTED)
