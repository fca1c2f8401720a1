"""A progress bar on stderr for work that reports (done, in all)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress_bar(title: str, *, is_download: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar while the block runs; nothing is drawn where stderr is no terminal.

    Args:
        title: what is being done.
        is_download: count bytes, not pieces.

    Yields:
        A function to call with what is done and what there is in all (None: unknown).
    """
    counts = DownloadColumn() if is_download else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), counts, TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
