"""What a file is, told by its first bytes rather than by its name."""

from __future__ import annotations

import zlib
from pathlib import Path

from medmargin.errors import DataError

GZIP_MARK = b"\x1f\x8b"
_HEAD_BYTES = 4096
_TITLES = {
    "nifti": "NIfTI (.nii, .nii.gz)",
    "itk": "NRRD or MetaImage (.nrrd, .mha, .mhd)",
    "dicom": "DICOM (.dcm)",
    "picture": "a picture (.png, .tif, .jpg)",
    "npz": "a NumPy archive (.npz)",
}
_SUFFIXES = {
    ".nii": "nifti", ".nii.gz": "nifti",
    ".nrrd": "itk", ".mha": "itk", ".mhd": "itk",
    ".dcm": "dicom", ".ima": "dicom",
    ".png": "picture", ".jpg": "picture", ".jpeg": "picture", ".tif": "picture", ".tiff": "picture",
    ".npz": "npz",
}  # fmt: skip
_MARKS = {
    b"\x89PNG\r\n\x1a\n": "picture", b"\xff\xd8\xff": "picture",
    b"II*\0": "picture", b"MM\0*": "picture", b"II+\0": "picture", b"MM\0+": "picture",
    b"PK\x03\x04": "npz",
    b"NRRD": "itk",
}  # fmt: skip


def format_of_name(path: Path) -> str | None:
    """Tell the format a file name promises ("nifti", "itk", "dicom", "picture", "npz"), or None."""
    name = path.name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def identify(path: Path) -> str:
    """Tell the format of a file by its content: "nifti", "itk", "dicom", "picture" or "npz".

    Raises:
        DataError: no such file, a folder, an empty file, an unknown content, or a content its name contradicts.
    """
    head = first_bytes(path, _HEAD_BYTES)
    if not head:
        raise DataError(f"{path}: the file is empty (0 bytes). Copy or export it again.")
    found, promised = _format_of_content(_unpacked(path, head)), format_of_name(path)
    if found is None:
        expected = _TITLES[promised] if promised else "one of " + ", ".join(_TITLES.values())
        raise DataError(f"{path}: the content is {_described(head)}. Expected {expected}.")
    if promised and found != promised:
        raise DataError(
            f"{path}: the name promises {_TITLES[promised]}, but the content is {_TITLES[found]}. Give the file its "
            "right name."
        )
    return found


def first_bytes(path: Path, count: int) -> bytes:
    """Read the first `count` bytes of a file.

    Raises:
        DataError: the path is missing, a folder, or not readable.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read(count)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Check the path.") from error
    except IsADirectoryError as error:
        raise DataError(f"{path}: is a folder. Expected an image file.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Check its name and permissions.") from error


def is_nifti(head: bytes) -> bool:
    """Tell whether unpacked bytes start a NIfTI-1 or NIfTI-2 file (also the header of a .hdr/.img pair)."""
    return head[344:348] in (b"n+1\0", b"ni1\0") or head[4:7] in (b"n+2", b"ni2")


def _unpacked(path: Path, head: bytes) -> bytes:
    if not head.startswith(GZIP_MARK):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _HEAD_BYTES)
    except zlib.error as error:
        raise DataError(f"{path}: damaged gzip data ({error}). Copy or export the file again.") from error


def _format_of_content(head: bytes) -> str | None:
    if is_nifti(head):
        return "nifti"
    if head[128:132] == b"DICM":
        return "dicom"
    if b"ElementDataFile" in head and b"NDims" in head:
        return "itk"
    return next((kind for mark, kind in _MARKS.items() if head.startswith(mark)), None)


def _described(head: bytes) -> str:
    if head.startswith(GZIP_MARK):
        return "gzip data of something that is no NIfTI image"
    try:
        return f"plain text ({head.decode()[:30]!r} ...)"
    except UnicodeDecodeError:
        return f"none that is known (first bytes {head[:8].hex(' ')})"
