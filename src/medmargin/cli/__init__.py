"""The command line: parse, call, print."""

from medmargin.cli.app import main

__all__ = ["main"]
