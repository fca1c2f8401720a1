"""The file protocol of the CVPR 2024 challenge "Segment Anything in Medical Images on Laptop" (branch LiteMedSAM of
bowang-lab/MedSAM): one NumPy archive per case, in and out.

| key | 2-D | 3-D |
|---|---|---|
| `imgs` | (H, W) or (H, W, 3) | (D, H, W) |
| `gts`, `segs` | (H, W), value = object | (D, H, W) |
| `boxes` | (N, 4): x_min, y_min, x_max, y_max | (N, 6): x_min, y_min, z_min, x_max, y_max, z_max |
| `spacing` | - | (3,) in mm, order x, y, z as SimpleITK gives it |

The archive says nothing about orientation: x, y, z become i, j, k, and the affine holds the spacing alone.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.imaging.arrays import rows_to_voxels
from medmargin.imaging.decoding import decoding
from medmargin.imaging.expansion import refuse_bomb
from medmargin.imaging.volume import Volume, checked_grid
from medmargin.storage import atomic_path

_MAP_SLOPE = "map_slope"


@dataclass(frozen=True, eq=False)
class ChallengeCase:
    """What one file of the challenge holds.

    Attributes:
        image: voxels [C, I, J, K], or None in a result file.
        labels: `gts`, or else `segs`, as [1, I, J, K], or None.
        boxes: [N, 4] or [N, 6] in voxels (x, y(, z) minimum, then maximum), or None.
    """

    image: Volume | None
    labels: Volume | None
    boxes: NDArray[Any] | None


def read(path: Path) -> ChallengeCase:
    """Read a challenge file.

    Raises:
        DataError: no such archive, pickled content, a decompression bomb, or arrays of a shape the protocol lacks.
        GeometryError: an impossible spacing.
    """
    arrays = _load(path, ("imgs", "gts", "segs", "boxes", "spacing"))
    labels = arrays.get("gts", arrays.get("segs"))
    boxes = arrays.get("boxes")
    if boxes is not None and (boxes.ndim != 2 or boxes.shape[1] not in (4, 6) or boxes.dtype.kind not in "uif"):
        raise DataError(
            f"{path}: 'boxes' has the shape {boxes.shape} and type {boxes.dtype}. Expected (N, 4) or (N, 6) numbers."
        )
    is_volume = _is_volume(arrays)
    return ChallengeCase(
        _volume(path, arrays["imgs"], arrays.get("spacing"), is_volume=is_volume) if "imgs" in arrays else None,
        None if labels is None else _volume(path, labels, arrays.get("spacing"), is_volume=labels.ndim == 3),
        boxes,
    )


def read_image(path: Path) -> Volume:
    """Read `imgs`, or the `map` that `write_map` wrote: [C, I, J, K].

    Raises:
        DataError: the archive holds neither.
    """
    arrays = _load(path, ("map", _MAP_SLOPE, "spacing"))
    if "map" in arrays:
        values = arrays["map"] * np.float32(arrays.get(_MAP_SLOPE, np.float32(1)))
        return _volume(path, values, arrays.get("spacing"), is_volume=values.ndim == 3)
    image = read(path).image
    if image is None:
        raise DataError(f"{path}: holds no 'imgs'. Expected a challenge file (imgs, gts, boxes, spacing).")
    return image


def array_names(path: Path) -> frozenset[str]:
    """Tell which arrays a file holds ("imgs", "gts", ...) without unpacking any.

    Raises:
        DataError: no such archive.
    """
    with decoding(path, "NumPy archive"), zipfile.ZipFile(path) as archive:
        return frozenset(name.removesuffix(".npy") for name in archive.namelist())


def read_labels(path: Path) -> Volume:
    """Read `gts`, or else `segs`: [1, I, J, K].

    Raises:
        DataError: the archive holds neither.
    """
    labels = read(path).labels
    if labels is None:
        raise DataError(f"{path}: holds neither 'gts' nor 'segs'. Expected a challenge file with labels.")
    return labels


def write(path: Path, image: Volume, *, labels: NDArray[Any] | None = None, boxes: NDArray[Any] | None = None) -> None:
    """Write a case: `imgs`, with `gts` [I, J, K] and `boxes` [N, 4 | 6] where given, and `spacing` where it is known.

    Raises:
        DataError: an image with another number of channels than 1, or 3 in 2-D.
    """
    allowed = (1, 3) if image.dims == 2 else (1,)
    if image.channels not in allowed:
        raise DataError(f"{image.source or 'array'}: {image.channels} channels. The challenge format holds {allowed}.")
    rows = [_rows(channel, image) for channel in image.voxels]
    arrays = {"imgs": rows[0] if len(rows) == 1 else np.stack(rows, axis=-1), **_spacing(image)}
    if labels is not None:
        arrays["gts"] = _rows(labels, image)
    if boxes is not None:
        arrays["boxes"] = np.asarray(boxes)
    _save(path, arrays)


def write_segmentation(path: Path, labels: NDArray[Any], like: Volume) -> None:
    """Write a result: `segs`, labels [I, J, K] in the layout of the image it belongs to."""
    _save(path, {"segs": _rows(labels, like), **_spacing(like)})


def write_map(path: Path, values: NDArray[Any], like: Volume, *, slope: float | None) -> None:
    """Write a map [I, J, K] as `map`; readers multiply it by `map_slope` where that is present."""
    scale = {} if slope is None else {_MAP_SLOPE: np.float64(slope)}
    _save(path, {"map": _rows(values, like), **scale, **_spacing(like)})


def _is_volume(arrays: dict[str, NDArray[Any]]) -> bool:
    """Tell (D, H, W) from (H, W, 3), which differ only in meaning."""
    image = arrays.get("imgs")
    if image is None or image.ndim != 3 or image.shape[2] != 3:
        return image is not None and image.ndim == 3
    labels = arrays.get("gts", arrays.get("segs"))
    boxes = arrays.get("boxes")
    if labels is not None:
        return labels.ndim == 3
    return "spacing" in arrays or (boxes is not None and boxes.shape[1] == 6)


def _volume(path: Path, array: NDArray[Any], spacing: NDArray[Any] | None, *, is_volume: bool) -> Volume:
    if array.ndim not in (2, 3) or array.dtype.kind not in "uifb" or not array.size:
        raise DataError(
            f"{path}: an array of shape {array.shape} and type {array.dtype}. Expected numbers as (H, W), (H, W, 3) or "
            "(D, H, W)."
        )
    voxels = array.transpose(2, 1, 0)[None] if is_volume else rows_to_voxels(array)
    unit, affine = "px", np.eye(4)
    if is_volume and spacing is not None:
        if spacing.shape != (3,) or spacing.dtype.kind not in "uif" or not (spacing > 0).all():
            raise DataError(
                f"{path}: 'spacing' is {spacing.tolist()}. Expected three positive numbers in mm (x, y, z)."
            )
        unit, affine = "mm", np.diag([*spacing.astype(np.float64), 1.0])
    grid = checked_grid(voxels.shape[1:], affine, unit=unit, source=path)
    voxels = voxels.astype(np.uint8) if voxels.dtype == bool else voxels
    return Volume(voxels, grid, 3 if is_volume else 2, path, "npz")


def _rows(values: NDArray[Any], like: Volume) -> NDArray[Any]:
    """Turn [I, J, K] into the protocol's (D, H, W), or (H, W) of a picture."""
    rows = values.transpose(2, 1, 0)
    return np.ascontiguousarray(rows[0] if like.dims == 2 else rows)


def _spacing(like: Volume) -> dict[str, NDArray[Any]]:
    return {"spacing": np.asarray(like.spacing)} if like.dims == 3 and like.grid.unit == "mm" else {}


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def _load(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Load those of the named arrays that the archive holds, each checked before it is unpacked."""
    with decoding(path, "NumPy archive"), zipfile.ZipFile(path) as archive:
        present = {info.filename: info for info in archive.infolist()}
        packed = path.stat().st_size
        refuse_bomb(path, packed=packed, expanded=sum(info.file_size for info in present.values()))
        return {name: _array(path, archive, present[f"{name}.npy"]) for name in names if f"{name}.npy" in present}


def _array(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """Load one array; its header's claim must fit the member, because NumPy allocates by it."""
    with archive.open(member) as stream:
        version = npy.read_magic(stream)
        shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
        if dtype.hasobject:
            raise DataError(
                f"{path}: '{member.filename}' holds pickled Python objects, which are never loaded. Expected numbers."
            )
        if stream.tell() + prod(shape) * dtype.itemsize != member.file_size:
            raise DataError(f"{path}: '{member.filename}' claims {shape} of {dtype}, but has {member.file_size} bytes.")
    with archive.open(member) as stream:
        return npy.read_array(stream, allow_pickle=False)
