"""Download a public data set, only when asked to, and only if its checksum is the published one."""

from __future__ import annotations

import hashlib
import http.client
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medmargin.datasets.new_folder import new_folder
from medmargin.errors import ConfigError, DataError
from medmargin.imaging import extract

_BLOCK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
Progress = Callable[[int, int | None], None]  # (bytes received, bytes in all where the server says so)


@dataclass(frozen=True)
class Source:
    """Where a data set is published.

    Attributes:
        url: https address of an archive.
        algorithm: checksum algorithm, as in `hashlib.new`.
        checksum: hexadecimal digest of the archive.
        folder: the data set's folder inside the archive.
        licence: terms of the data, shown to the user.
    """

    url: str
    algorithm: str
    checksum: str
    folder: str
    licence: str


SOURCES: Mapping[str, Source] = {
    # The Decathlon's copy on AWS and the digest that MONAI publishes for it.
    "hippocampus": Source(
        url="https://msd-for-monai.s3-us-west-2.amazonaws.com/Task04_Hippocampus.tar",
        algorithm="md5",
        checksum="9d24dba78a72977dbd1d2e110310f31b",
        folder="Task04_Hippocampus",
        licence="CC BY-SA 4.0 (Antonelli et al., Nat Commun 13:4128, 2022)",
    ),
}


def get_dataset(
    name: str, target: Path | str, *, sources: Mapping[str, Source] = SOURCES, progress: Progress | None = None
) -> Path:
    """Download a data set, verify its checksum and unpack it.

    Args:
        name: key of `sources`.
        target: folder the data set is put into, under its own name; it must not hold it yet.
        progress: called after each block with (bytes received, bytes in all or None).

    Returns:
        The data set's folder; nothing is left behind where anything fails.

    Raises:
        ConfigError: unknown name, an address without encryption, or the folder exists.
        DataError: the server cannot be reached, or the archive is not the published one.
        BudgetError: the disk is full or the folder cannot be written.
    """
    if name not in sources:
        raise ConfigError(f"unknown data set '{name}'; can get: {', '.join(sources)}")
    source = sources[name]
    final = Path(target) / source.folder
    with new_folder(final) as part, tempfile.TemporaryDirectory(dir=part.parent, prefix=f".{name}.") as scratch:
        archive = Path(scratch) / "archive"
        _download(source, archive, progress)
        extract(archive, Path(scratch) / "content")
        content = Path(scratch) / "content" / source.folder
        if not content.is_dir():
            raise DataError(f"{source.url}: the archive holds no folder '{source.folder}'")
        for entry in content.iterdir():
            entry.rename(part / entry.name)
    return final


def _download(source: Source, archive: Path, progress: Progress | None) -> None:
    """Write the archive while computing its digest."""
    _require_encryption(source.url)
    digest = hashlib.new(source.algorithm, usedforsecurity=False)
    received = 0
    try:
        with urllib.request.urlopen(source.url, timeout=_TIMEOUT_SECONDS) as response, archive.open("wb") as stream:
            _require_encryption(response.url)
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            while block := response.read(_BLOCK_BYTES):
                digest.update(block)
                stream.write(block)
                received += len(block)
                if progress is not None:
                    progress(received, total)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DataError(
            f"{source.url}: cannot be downloaded ({error}). Check the connection, or fetch and unpack the archive "
            "yourself and give its folder"
        ) from error
    if digest.hexdigest() != source.checksum:
        raise DataError(
            f"{source.url}: {source.algorithm} of the {received} bytes received is {digest.hexdigest()}, published is "
            f"{source.checksum}. The download was damaged or the file was exchanged; nothing was unpacked. Try again"
        )


def _require_encryption(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    is_local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    if parts.scheme != "https" and not is_local:
        raise ConfigError(f"{url}: data sets are downloaded over https only")
