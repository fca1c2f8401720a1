"""One process per run folder: a lock the operating system gives back when its owner dies, however it dies."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medmargin.errors import BudgetError

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".lock"
_held: set[Path] = set()


@contextmanager
def run_lock(folder: Path | str) -> Iterator[None]:
    """Hold `folder` for this process while the block runs.

    The lock is a POSIX record lock on `folder/.lock`: it belongs to this process alone (data-loading children do not
    inherit it) and ends with it, so a killed run leaves nothing to clean up. The file names the owner for the message.

    Raises:
        BudgetError: another live process, or another call in this one, holds the folder; or it cannot be written.
    """
    path = Path(folder).resolve() / LOCK_NAME
    if path in _held:  # closing a second handle would silently release the first one's lock
        raise _occupied(folder, "this process")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise BudgetError(f"{folder}: cannot write here ({error.strerror}). Choose another folder.") from error
    try:
        _acquire(descriptor, folder)
        _held.add(path)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        _held.discard(path)
        os.close(descriptor)


def _acquire(descriptor: int, folder: Path | str) -> None:
    if fcntl is None:  # pragma: no cover - Windows has no record locks; atomic writes still keep every file whole
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise BudgetError(f"{folder}: this file system cannot lock files ({error.strerror}).") from error
        owner = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
        raise _occupied(folder, owner) from error


def _occupied(folder: Path | str, owner: str) -> BudgetError:
    return BudgetError(f"{folder}: in use by {owner}. Wait until it ends, or choose another run folder.")
