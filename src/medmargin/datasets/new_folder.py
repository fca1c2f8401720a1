"""A folder that appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medmargin.errors import ConfigError
from medmargin.storage import atomic_path


@contextmanager
def new_folder(target: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `target`; it gets its name when the block ends, and vanishes if the block fails.

    Raises:
        ConfigError: `target` exists and is not an empty folder.
        BudgetError: the disk is full or the folder cannot be written.
    """
    target = Path(target)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} exists already; choose another folder, or remove it")
    with atomic_path(target) as part:
        part.mkdir()
        try:
            yield part
        except BaseException:
            shutil.rmtree(part)
            raise
