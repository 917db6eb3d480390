"""`python -m luamigrate`."""

from luamigrate.cli import main

main()
