"""The command line: one module a command, heavy imports where they are used."""

from nasseg.cli.main import main

__all__ = ["main"]
