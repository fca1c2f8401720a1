"""The one safe way to unpack an archive: everything is checked before anything is written."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medmargin.errors import DataError
from medmargin.imaging.content import first_bytes
from medmargin.imaging.decoding import decoding
from medmargin.imaging.expansion import MIB, refuse_bomb
from medmargin.storage import disk_errors

LARGEST_ARCHIVE_BYTES = 256 * 1024 * MIB


def extract(archive: Path | str, folder: Path | str, *, largest: int = LARGEST_ARCHIVE_BYTES) -> list[Path]:
    """Unpack a .zip, .tar or packed .tar into a folder.

    Args:
        archive: the file.
        folder: made if need be; nothing in it is overwritten.
        largest: bytes the content may take.

    Returns:
        the files unpacked, sorted.

    Raises:
        DataError: no archive, damaged, a bomb, or an entry that is a link, a device, absolute, or leads outside;
            nothing was unpacked then.
        BudgetError: the disk is full or the folder is read-only.
    """
    source, target = Path(archive), Path(folder)
    first_bytes(source, 1)  # names a missing file, or a folder
    with decoding(source, "archive"):
        is_zip = zipfile.is_zipfile(source)
        if not is_zip and not tarfile.is_tarfile(source):
            raise DataError(f"{source}: is no archive. Expected .zip, .tar or .tar.gz.")
        (_check_zip if is_zip else _check_tar)(source, largest)
    with _staging(target) as staging:
        with decoding(source, "archive"), disk_errors(target):
            (_unpack_zip if is_zip else _unpack_tar)(source, staging)
        return _moved(source, staging, target)


def _check_zip(source: Path, largest: int) -> None:
    size = 0
    with zipfile.ZipFile(source) as archive:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16)
            _check_entry(source, entry.filename, is_plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
            size += entry.file_size
            refuse_bomb(source, packed=source.stat().st_size, expanded=size, largest=largest)


def _check_tar(source: Path, largest: int) -> None:
    size = 0
    with tarfile.open(source) as archive:
        for entry in archive:  # sizes come before contents, so a bomb is refused before it is unpacked
            _check_entry(source, entry.name, is_plain=(entry.isreg() and not entry.issparse()) or entry.isdir())
            size += entry.size
            refuse_bomb(source, packed=source.stat().st_size, expanded=size, largest=largest)


def _check_entry(source: Path, name: str, *, is_plain: bool) -> None:
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or ":" in parts[0] or "\0" in name:
        raise DataError(
            f"{source}: its entry '{name}' leads outside the folder; nothing was unpacked. Do not trust this archive."
        )
    if not is_plain:
        raise DataError(
            f"{source}: its entry '{name}' is a link or no plain file; nothing was unpacked. Expected files and "
            "folders."
        )


def _unpack_zip(source: Path, folder: Path) -> None:
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)


def _unpack_tar(source: Path, folder: Path) -> None:
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """Yield a folder inside `target` that vanishes at the end, whatever happens."""
    staging = target / f".{os.getpid()}.part"
    with disk_errors(target):
        staging.mkdir(parents=True)
        try:
            yield staging
        finally:
            shutil.rmtree(staging)


def _moved(source: Path, staging: Path, target: Path) -> list[Path]:
    present = [entry.name for entry in staging.iterdir() if (target / entry.name).exists()]
    if present:
        raise DataError(
            f"{source}: {target} already holds {', '.join(sorted(present))}; nothing was unpacked. Choose another "
            "folder."
        )
    files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
    for entry in list(staging.iterdir()):
        entry.rename(target / entry.name)
    return sorted(target / file for file in files)
