"""The voxel bytes of NRRD and MetaImage files, verified before ITK allocates by what the header claims.

ITK checks neither the checksum of packed data nor what follows them.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from medmargin.errors import DataError
from medmargin.imaging.expansion import DEFLATE_RATIO, MIB, refuse_bomb
from medmargin.imaging.itk_header import Header

_WINDOW_BITS = {"gzip": 31, "zlib": 15}


def check_payload(path: Path, header: Header) -> None:
    """Verify that the file holds exactly the voxels its header announces.

    Raises:
        DataError: too few or too many bytes, a wrong checksum, or a bomb.
    """
    try:
        packed = header.file.stat().st_size - header.offset
    except OSError as error:
        raise DataError(f"{path}: its data file {header.file.name} cannot be read ({error.strerror}).") from error
    expected = header.payload_bytes
    is_raw = header.packing == "raw"
    least, most = (packed, packed) if is_raw else (0, packed * DEFLATE_RATIO)
    if not least <= expected <= most or header.packed_bytes not in (None, packed):
        raise DataError(
            f"{path}: the header claims {header.sizes} voxels ({expected} bytes), the file holds {packed} bytes of "
            "them. It is truncated or damaged; copy or export it again."
        )
    refuse_bomb(path, packed=packed, expanded=expected)
    if not is_raw:
        _verify_packed(path, header)


def _verify_packed(path: Path, header: Header) -> None:
    unpacker = zlib.decompressobj(wbits=_WINDOW_BITS[header.packing])
    found = 0
    with open(header.file, "rb") as stream:
        stream.seek(header.offset)
        block = stream.read(MIB)
        while block and not unpacker.eof and found <= header.payload_bytes:
            try:
                found += len(unpacker.decompress(block, MIB))
            except zlib.error as error:
                raise DataError(f"{path}: damaged packed data ({error}). Copy or export the file again.") from error
            block = unpacker.unconsumed_tail or stream.read(MIB)
        surplus = bool(unpacker.unused_data or block)
    if found != header.payload_bytes or not unpacker.eof or surplus:
        raise DataError(
            f"{path}: {found} bytes of voxels{' and more' if surplus else ''} where the header announces "
            f"{header.payload_bytes}. The file is truncated or damaged; copy or export it again."
        )
