"""Files written whole or not at all, and their checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medmargin.errors import BudgetError


@contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it to `target` only when the block ends without an error.

    The temporary name keeps the target's full suffix, because image writers choose their format by it.

    Raises:
        BudgetError: the disk is full, or the folder cannot be written.
    """
    target = Path(target)
    temporary = target.with_name(f".{os.getpid()}.part.{target.name}")
    with disk_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Name `target` and the cure when a write inside the block fails for want of space or permission.

    Raises:
        BudgetError: the disk is full, the folder cannot be written or is a file, or the path is too long.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BudgetError(f"{target}: the disk is full. Free some space and run the command again.") from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise BudgetError(f"{target}: cannot write here ({error.strerror}). Choose another folder.") from error
        if error.errno == errno.ENAMETOOLONG:
            raise BudgetError(f"{target}: the path is too long for this file system. Choose a shorter one.") from error
        raise


def write_json(target: Path | str, content: Any) -> None:
    """Write `content` as indented JSON, atomically; numbers that are not finite are refused."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_path(target) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def sha256(path: Path | str) -> str:
    """Compute the SHA-256 of a file as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
