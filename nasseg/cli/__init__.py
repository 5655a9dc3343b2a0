"""The command line: one module per command; heavy imports happen on use."""

from nasseg.cli.main import main

__all__ = ["main"]
