"""The `medmargin` command: its words, and how errors become exit codes.

Exit codes: 0 ok, 2 usage, 3 bad data, 4 bad checkpoint, 5 resources, 6 some cases failed, 130 interrupted.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console
from typer.exceptions import TyperException

from medmargin.cli import calibrate, compare, data, demo, ensemble, evaluate, predict, systems, train, verify, version
from medmargin.errors import ToolkitError

_USAGE, _INTERRUPTED = 2, 130

app = typer.Typer(
    name="medmargin",
    help="Medical image segmentation that knows its margin of error.\n\nStart with: medmargin demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(demo.demo)
app.command()(train.train)
app.command()(predict.predict)
app.command()(evaluate.evaluate)
app.command()(calibrate.calibrate)
app.command()(ensemble.ensemble)
app.command()(compare.compare)
app.command()(systems.systems)
app.command()(verify.verify)
app.command()(version.version)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line and exit with the code of the outcome."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line.

    Args:
        arguments: words after `medmargin`.

    Returns:
        The exit code. A user's error is one line on stderr; anything else keeps its traceback.
    """
    stderr = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        outcome = app(args=arguments, prog_name="medmargin", standalone_mode=False)
    except ToolkitError as error:
        stderr.print(f"{type(error).__name__}: {error}", style="bold red", markup=False)
        return error.exit_code
    except typer.Exit as stop:
        return stop.exit_code
    except TyperException as error:
        stderr.print(f"Error: {error.format_message()} (try --help)", style="bold red", markup=False)
        return _USAGE
    except (typer.Abort, KeyboardInterrupt):
        stderr.print("interrupted", style="bold red")
        return _INTERRUPTED
    except BrokenPipeError:
        return 0
    return outcome if isinstance(outcome, int) else 0
