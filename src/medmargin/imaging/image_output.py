"""Images out, voxel values unchanged: for data sets that are converted or repaired, not for results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medmargin.errors import ConfigError, DataError
from medmargin.imaging import challenge_npz, itk, nifti_output, picture_output
from medmargin.imaging.content import format_of_name
from medmargin.imaging.volume import Volume
from medmargin.storage import atomic_path


def write_image(path: Path | str, volume: Volume, *, is_label: bool = False) -> None:
    """Write all channels of a volume in its own dtype; the suffix chooses the format.

    Args:
        path: .nii.gz or .nii (channels along the fourth axis), .nrrd or .mha (one channel), .npz (`imgs`), or .png for
            pictures of one channel, or of three (RGB).
        volume: [C, I, J, K]; channels of a PNG are whole numbers of 8 bits, or 16 where there is one channel.
        is_label: mark a NIfTI as label map.

    Raises:
        ConfigError: a suffix that cannot hold this image.
        DataError: values that would change in this format.
    """
    target = Path(path)
    kind = format_of_name(target)
    if kind == "nifti":
        values = volume.voxels[0] if volume.channels == 1 else np.moveaxis(volume.voxels, 0, -1)
        nifti_output.write(target, values, volume, intent="label" if is_label else "none")
    elif kind == "itk" and volume.channels == 1:
        itk.write(target, volume.voxels[0], volume, description="")
    elif kind == "npz":
        challenge_npz.write(target, volume)
    elif target.suffix.lower() == ".png" and volume.dims == 2 and volume.channels in (1, 3):
        _write_png(target, volume)
    else:
        raise ConfigError(
            f"{target}: cannot hold {volume.channels} channels in {volume.dims}-D. Expected .nii.gz, .npz, .nrrd or "
            ".mha (one channel), or .png (pictures of one or three channels)."
        )


def _write_png(target: Path, volume: Volume) -> None:
    voxels = _unsigned(target, volume.voxels)
    if volume.channels == 1:
        picture_output.write(target, voxels[0])
        return
    if voxels.dtype != np.uint8:
        raise DataError(f"{target}: colours of more than 8 bits are not written as PNG. Expected values from 0 to 255.")
    with atomic_path(target) as temporary:
        Image.fromarray(np.ascontiguousarray(voxels[..., 0].transpose(2, 1, 0))).save(temporary, format="PNG")


def _unsigned(target: Path, voxels: NDArray[Any]) -> NDArray[Any]:
    """Store whole numbers in 8 or 16 bits, without changing any."""
    if voxels.dtype in (np.uint8, np.uint16):
        return voxels
    whole = np.rint(voxels)
    if not (whole == voxels).all() or whole.min() < 0 or whole.max() > np.iinfo(np.uint16).max:
        raise DataError(
            f"{target}: values from {voxels.min():g} to {voxels.max():g} do not fit into a PNG unchanged. Expected "
            "whole numbers from 0 to 65535; choose a format that holds real numbers."
        )
    return whole.astype(np.min_scalar_type(int(whole.max())))
