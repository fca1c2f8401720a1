"""DICOM in (extra `dicom`): a series of slices, an enhanced multi-frame file, or a single picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import DataError
from medmargin.imaging.decoding import decoding, load_extra
from medmargin.imaging.dicom_geometry import stack_slices
from medmargin.imaging.dicom_pixels import pixel_values, read_dataset
from medmargin.imaging.dicom_series import SliceFacts, choose_series, slice_facts
from medmargin.imaging.volume import LPS_TO_RAS, Volume, checked_grid

_NEVER_INVERTED = ("CT", "PT", "NM")  # their numbers are physical, whatever the display tag says


def read_series(folder: Path, *, series: str | None = None) -> Volume:
    """Read one series out of a folder, searched recursively.

    Args:
        folder: folder with DICOM files, in any order and under any names.
        series: UID, number, description or folder name; needed where there are several.

    Returns:
        voxels [C, I, J, K]: I along a row, J along a column, K along the normal; modality values; grid in mm.
        `header` holds the data sets in slice order, without pixels.

    Raises:
        DataError: no or several series, damaged files, a transfer syntax without codec.
        GeometryError: slices that form no regular stack.
        MissingExtraError: pydicom is not installed.
    """
    info = choose_series(folder, series)
    if len(info.slices) == 1:
        return read_file(info.slices[0].path)
    return _read_stack(folder, info.slices)


def read_file(path: Path, *, frame: int | None = None) -> Volume:
    """Read a single file: a slice with its place in space, an enhanced multi-frame volume, or a picture.

    Args:
        frame: which frame of a film without places in space (ultrasound, angiography).

    Raises:
        as `read_series`; DataError also for a film when no frame was chosen.
    """
    load_extra("pydicom", extra="dicom", purpose="reading DICOM")
    dataset = read_dataset(path)
    facts = slice_facts(path, dataset)
    with decoding(path, "DICOM header"):
        is_placed = "PerFrameFunctionalGroupsSequence" in dataset and facts.frames > 1
    if is_placed:
        return _read_enhanced(path, dataset)
    if facts.position is not None and facts.frames == 1:
        return _read_stack(path, (facts,))
    return _read_picture(path, dataset, facts, frame)


def _read_stack(source: Path, slices: tuple[SliceFacts, ...]) -> Volume:
    stack = stack_slices(source, slices)
    datasets: list[Any] = []
    planes: list[NDArray[Any]] = []
    for index in stack.order:
        facts = slices[index]
        dataset = read_dataset(facts.path)
        plane = pixel_values(facts.path, dataset)
        size = facts.rows, facts.columns
        if plane.shape not in (size, (*size, 3)) or plane.ndim != (planes[0] if planes else plane).ndim:
            raise DataError(
                f"{facts.path}: pixels of shape {plane.shape}. Expected one slice of {size} like the others."
            )
        planes.append(plane)
        datasets.append(_without_pixels(dataset))
    pixels = np.stack(planes)  # (K, J, I) or (K, J, I, 3)
    return _volume(source, pixels, stack.affine, datasets, stack.warnings, dims=3, unit="mm")


def _read_enhanced(path: Path, dataset: Any) -> Volume:
    """Read a multi-frame file with a place for each frame; highdicom checks that they form a regular stack."""
    highdicom = load_extra("highdicom", extra="dicom", purpose="reading multi-frame DICOM")
    with decoding(path, "multi-frame DICOM"):
        image = highdicom.Image.from_dataset(dataset, copy=False)
        found = image.get_volume(apply_presentation_lut=False, apply_voi_transform=False, dtype=np.float32)
        affine = found.affine[:, [2, 1, 0, 3]]  # highdicom indexes (k, j, i)
        return _volume(path, found.array, LPS_TO_RAS @ affine, [_without_pixels(dataset)], (), dims=3, unit="mm")


def _read_picture(path: Path, dataset: Any, facts: SliceFacts, frame: int | None) -> Volume:
    """Read a radiograph, photograph or film frame: a plane that has a pixel size at most."""
    pixels = pixel_values(path, dataset)
    if facts.frames > 1:
        if frame is None or not 0 <= frame < facts.frames:
            raise DataError(
                f"{path}: a film of {facts.frames} frames. Expected one: choose with --volume-index (volume_index=...)."
            )
        pixels = pixels[frame]
    affine, unit = np.eye(4), "px"
    if facts.pixel_spacing is not None:
        affine, unit = np.diag([facts.pixel_spacing[1], facts.pixel_spacing[0], 1.0, 1.0]), "mm"
    return _volume(path, pixels[None], affine, [_without_pixels(dataset)], (), dims=2, unit=unit)


def _volume(
    source: Path, pixels: NDArray[Any], affine: NDArray[np.float64], datasets: list[Any], warnings: tuple[str, ...],
    *, dims: int, unit: str,
) -> Volume:  # fmt: skip
    """Put (K, J, I[, 3]) on its grid."""
    voxels = pixels.transpose(2, 1, 0)[None] if pixels.ndim == 3 else pixels.transpose(3, 2, 1, 0)
    if voxels.dtype.kind == "f":
        voxels = voxels.astype(np.float32)
    if voxels.dtype == np.int32 and np.abs(voxels).max(initial=0) < 2**15:
        voxels = voxels.astype(np.int16)
    first = datasets[0]
    if first.get("PhotometricInterpretation") == "MONOCHROME1" and first.get("Modality") not in _NEVER_INVERTED:
        voxels = voxels.max() - (voxels - voxels.min())
        warnings = (*warnings, f"{source}: stored with white as the lowest value (MONOCHROME1); inverted")
    grid = checked_grid(voxels.shape[1:], affine, unit=unit, source=source)
    return Volume(voxels, grid, dims, source, "dicom", tuple(datasets), warnings)


def _without_pixels(dataset: Any) -> Any:
    if "PixelData" in dataset:
        del dataset.PixelData
    return dataset
