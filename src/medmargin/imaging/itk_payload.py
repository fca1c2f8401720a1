"""The voxel bytes of NRRD and MetaImage files, verified before ITK allocates by what the header claims.

ITK checks neither the checksum of packed data nor what follows them.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

from medmargin.errors import DataError
from medmargin.imaging.content import first_bytes
from medmargin.imaging.expansion import DEFLATE_RATIO, MIB, refuse_bomb

_HEADER_BYTES = 1 << 20
_WINDOW_BITS = {"gzip": 31, "zlib": 15}


@dataclass(frozen=True)
class _Payload:
    """Where the voxels are: `file` from byte `offset` on, packed as "raw", "gzip" or "zlib"."""

    file: Path
    offset: int
    packing: str


def check_payload(path: Path, shape: tuple[int, ...], kind: str) -> None:
    """Verify that the file holds exactly the voxels its header announces.

    Args:
        path: .nrrd, .mha or .mhd file.
        shape: voxels along every axis, and components.
        kind: ITK's name of the voxel type, as in "16-bit signed integer".

    Raises:
        DataError: too few or too many bytes, a wrong checksum, a bomb, or a packing that is not read here.
    """
    bits = re.search(r"(\d+)-bit", kind)
    if bits is None:
        raise DataError(f"{path}: voxels of type '{kind}' are not supported. Expected whole or real numbers.")
    expected = prod(shape) * int(bits.group(1)) // 8
    payload = _nrrd(path) if first_bytes(path, 4) == b"NRRD" else _metaimage(path)
    try:
        packed = payload.file.stat().st_size - payload.offset
    except OSError as error:
        raise DataError(f"{path}: its data file {payload.file.name} cannot be read ({error.strerror}).") from error
    most = packed if payload.packing == "raw" else packed * DEFLATE_RATIO
    if expected > most or (payload.packing == "raw" and expected < packed):
        raise DataError(
            f"{path}: the header claims {shape} voxels ({expected} bytes), the file holds {packed} bytes of them. "
            "It is truncated or damaged; copy or export it again."
        )
    refuse_bomb(path, packed=packed, expanded=expected)
    if payload.packing != "raw":
        _verify_packed(path, payload, expected)


def _verify_packed(path: Path, payload: _Payload, expected: int) -> None:
    unpacker = zlib.decompressobj(wbits=_WINDOW_BITS[payload.packing])
    found = 0
    with open(payload.file, "rb") as stream:
        stream.seek(payload.offset)
        block = stream.read(MIB)
        while block and not unpacker.eof and found <= expected:
            try:
                found += len(unpacker.decompress(block, MIB))
            except zlib.error as error:
                raise DataError(f"{path}: damaged packed data ({error}). Copy or export the file again.") from error
            block = unpacker.unconsumed_tail or stream.read(MIB)
        surplus = bool(unpacker.unused_data or block)
    if found != expected or not unpacker.eof or surplus:
        raise DataError(
            f"{path}: {found} bytes of voxels{' and more' if surplus else ''} where the header announces {expected}. "
            "The file is truncated or damaged; copy or export it again."
        )


def _nrrd(path: Path) -> _Payload:
    head = first_bytes(path, _HEADER_BYTES)
    end = re.search(rb"\r?\n\r?\n", head)
    fields = _fields(head[: end.start()] if end else head, b":")
    if "data file" in fields or "datafile" in fields or end is None:
        raise DataError(f"{path}: a NRRD header without its data. Expected both in one .nrrd file.")
    packing = {"gz": "gzip"}.get(fields.get("encoding", ""), fields.get("encoding", ""))
    if packing not in ("raw", "gzip"):
        raise DataError(f"{path}: NRRD encoding '{packing}' is not read here. Expected raw or gzip; save it again.")
    return _Payload(path, end.end(), packing)


def _metaimage(path: Path) -> _Payload:
    head = first_bytes(path, _HEADER_BYTES)
    last = re.search(rb"^ElementDataFile\s*=\s*(.*?)\s*?\r?\n", head + b"\n", re.MULTILINE)
    if last is None:
        raise DataError(f"{path}: a MetaImage without ElementDataFile. Export the image again.")
    fields = _fields(head[: last.start()], b"=")
    if fields.get("binarydata", "true") != "true":
        raise DataError(f"{path}: MetaImage with voxels as text is not read here. Save it again as binary.")
    packing = "zlib" if fields.get("compresseddata") == "true" else "raw"
    name = last.group(1).decode("utf-8", "replace")
    if name.lower() == "local":
        return _Payload(path, last.end(), packing)
    if re.search(r"[/\\%\s]|^LIST", name):
        raise DataError(f"{path}: its voxels are in '{name}'. Expected one data file in the same folder.")
    return _Payload(path.with_name(name), 0, packing)


def _fields(head: bytes, separator: bytes) -> dict[str, str]:
    """Parse the lines `key separator value` of a text header; keys and values in lower case."""
    pairs = (line.split(separator, 1) for line in head.splitlines() if separator in line)
    return {key.strip().lower().decode("latin-1"): value.strip().lower().decode("latin-1") for key, value in pairs}
