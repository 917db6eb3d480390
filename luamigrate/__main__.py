"""`python -m luamigrate`."""

from luamigrate.start import main

main()
