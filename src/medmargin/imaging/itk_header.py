"""The text headers of NRRD and MetaImage files, checked before ITK sees them: ITK crashes on some damaged ones.

Formats: https://teem.sourceforge.net/nrrd/format.html and https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

from medmargin.errors import DataError
from medmargin.imaging.content import first_bytes

_HEADER_BYTES = 1 << 20
_MOST_AXES = 5
_BYTES_OF_NRRD = {
    1: {"signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"},
    2: {"short", "short int", "signed short", "signed short int", "int16", "int16_t"}
    | {"ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"},
    4: {"int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"},
    8: {"longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"}
    | {"ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double"},
}
_BYTES_OF_METAIMAGE = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip
_PER_AXIS = ("DimSize", "ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "CenterOfRotation")
_PER_PAIR_OF_AXES = ("TransformMatrix", "Orientation", "Rotation")


@dataclass(frozen=True)
class Header:
    """What a header claims.

    Attributes:
        sizes: length of every axis.
        payload_bytes: bytes of all voxels, unpacked.
        file: where the voxels are, from byte `offset` on.
        packing: "raw", "gzip" or "zlib".
        packed_bytes: bytes of the packed voxels, where the header tells; ITK returns zeros when they are wrong.
    """

    sizes: tuple[int, ...]
    payload_bytes: int
    file: Path
    offset: int
    packing: str
    packed_bytes: int | None = None


def read_header(path: Path) -> Header:
    """Read the header of a .nrrd, .mha or .mhd file.

    Raises:
        DataError: damaged, or a kind of file that is not read here.
    """
    head = first_bytes(path, _HEADER_BYTES)
    return _nrrd(path, head) if head.startswith(b"NRRD") else _metaimage(path, head)


def _nrrd(path: Path, head: bytes) -> Header:
    end = re.search(rb"\r?\n\r?\n", head)
    cased = _fields(path, head[: end.start()] if end else head, ":")
    fields = {key.lower(): value.lower() for key, value in cased.items()}
    if end is None or {"data file", "datafile"} & fields.keys():
        raise DataError(f"{path}: a NRRD header without its data. Expected both in one .nrrd file.")
    packing = {"gz": "gzip"}.get(fields.get("encoding", ""), fields.get("encoding", ""))
    if packing not in ("raw", "gzip"):
        raise DataError(f"{path}: NRRD encoding '{packing}' is not read here. Expected raw or gzip; save it again.")
    kind = fields.get("type", "missing")
    size = next((size for size, names in _BYTES_OF_NRRD.items() if kind in names), None)
    axes = _whole_numbers(path, fields, "dimension", 1)[0]
    sizes = _whole_numbers(path, fields, "sizes", axes)
    if size is None:
        raise DataError(f"{path}: voxels of type '{kind}' are not supported. Expected whole or real numbers.")
    return Header(sizes, prod(sizes) * size, path, end.end(), packing)


def _metaimage(path: Path, head: bytes) -> Header:
    last = re.search(rb"^ElementDataFile\s*=[ \t]*([^\r\n]*?)[ \t]*\r?$\n?", head, re.MULTILINE)
    if last is None:
        raise DataError(f"{path}: a MetaImage without ElementDataFile. Export the image again.")
    fields = _fields(path, head[: last.start()], "=")
    if fields.get("BinaryData", "True") != "True" or fields.get("HeaderSize", "0") != "0":
        raise DataError(f"{path}: voxels as text, or after a foreign header, are not read here. Save it again as .mha.")
    kind = fields.get("ElementType", "missing")
    if kind not in _BYTES_OF_METAIMAGE:
        raise DataError(f"{path}: voxels of type '{kind}' are not supported. Expected whole or real numbers.")
    axes = _whole_numbers(path, fields, "NDims", 1)[0]
    sizes = _whole_numbers(path, fields, "DimSize", axes)
    for names, count in ((_PER_AXIS, axes), (_PER_PAIR_OF_AXES, axes * axes)):
        for name in fields.keys() & set(names):
            _check_numbers(path, name, fields[name], count)
    channels = (
        _whole_numbers(path, fields, "ElementNumberOfChannels", 1)[0] if "ElementNumberOfChannels" in fields else 1
    )
    packing = "zlib" if fields.get("CompressedData") == "True" else "raw"
    size = prod(sizes) * channels * _BYTES_OF_METAIMAGE[kind]
    packed = _whole_numbers(path, fields, "CompressedDataSize", 1)[0] if packing == "zlib" else None
    name = last.group(1).decode("utf-8", "replace")
    if name.lower() == "local":
        return Header(sizes, size, path, last.end(), packing, packed)
    if not re.fullmatch(r"[\w.-][\w. -]*", name) or name.startswith("LIST"):
        raise DataError(f"{path}: its voxels are in '{name}'. Expected one data file in the same folder.")
    return Header(sizes, size, path.with_name(name), 0, packing, packed)


def _fields(path: Path, head: bytes, separator: str) -> dict[str, str]:
    """Parse the lines `key separator value` of a text header, as strictly as ITK needs but does not itself."""
    fields: dict[str, str] = {}
    for line in head.decode("latin-1").splitlines():
        key, found, value = line.partition(separator)
        key = key.strip()
        if key in fields or len(line) > 4096 or not (key.isascii() and key.isprintable()):
            raise DataError(f"{path}: damaged header (field '{key[:40]}'). Export or copy the file again.")
        if found and not key.startswith("#"):
            fields[key] = value.strip()
    return fields


def _whole_numbers(path: Path, fields: dict[str, str], name: str, count: int) -> tuple[int, ...]:
    words = fields.get(name, "").split()
    if (
        len(words) != count
        or not 1 <= count <= _MOST_AXES
        or not all(re.fullmatch(r"[1-9]\d{0,8}", word) for word in words)
    ):
        raise DataError(
            f"{path}: '{name}' is '{fields.get(name, '')[:40]}' in the header. Expected {count} whole numbers."
        )
    return tuple(int(word) for word in words)


def _check_numbers(path: Path, name: str, value: str, count: int) -> None:
    words = value.split()
    if len(words) != count or not all(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", word) for word in words):
        raise DataError(f"{path}: '{name}' is '{value[:40]}' in the header. Expected {count} numbers.")
