"""python -m edgeleaf: the command line."""

from edgeleaf.cli.main import main

main()
