"""How far a packed file may expand: the one guard against decompression bombs and impossible header claims."""

from __future__ import annotations

from medmargin.errors import DataError

MIB = 1 << 20
HARMLESS_BYTES = 256 * MIB
LARGEST_RATIO = 200
LARGEST_BYTES = 16 * 1024 * MIB
DEFLATE_RATIO = 1032  # no deflate stream (gzip, zip, PNG) can expand further


def refuse_bomb(source: object, *, packed: int, expanded: int, largest: int = LARGEST_BYTES) -> None:
    """Refuse an expansion before memory or disk is spent on it.

    Args:
        source: what the error message names.
        packed: bytes on disk.
        expanded: bytes after expansion, as claimed or as counted so far.
        largest: bytes nothing may exceed.

    Raises:
        DataError: `expanded` exceeds `largest`, or both 256 MiB and 200 times `packed`.
    """
    if expanded > largest:
        raise DataError(
            f"{source}: would take {expanded / MIB:.0f} MiB, more than the {largest / MIB:.0f} MiB allowed. "
            "Check that the file is what it claims to be, or split it."
        )
    if expanded > HARMLESS_BYTES and expanded > LARGEST_RATIO * packed:
        raise DataError(
            f"{source}: {packed} bytes would expand to {expanded / MIB:.0f} MiB ({expanded / max(packed, 1):.0f} "
            "times), as a decompression bomb does. If you trust the file, unpack it yourself and give the unpacked "
            "one."
        )
