"""`medmargin version`."""

from __future__ import annotations

from typing import Annotated

import typer

from medmargin import __version__
from medmargin.cli.answer import print_json, print_table


def version(json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Say which versions are at work.

    Example: medmargin version --json
    """
    from medmargin.runs import describe_environment

    environment = describe_environment()
    if json:
        print_json({"version": __version__, **environment})
    else:
        print_table(f"medmargin {__version__}", ("package", "version"), environment["versions"].items())
