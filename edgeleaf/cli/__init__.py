"""The command line."""

from edgeleaf.cli.main import main

__all__ = ["main"]
