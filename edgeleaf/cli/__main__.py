"""python -m edgeleaf.cli: the command line."""

from edgeleaf.cli.main import main

main()
