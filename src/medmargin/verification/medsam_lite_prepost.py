"""LiteMedSAM's way from a picture to the network and from a mask to the next box: integers exactly, floats to 1e-6."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from medmargin.prompts.propagation import mask_in_frame, next_box
from medmargin.transforms.frame import Frame
from medmargin.verification.reference import Reference

TOLERANCE = 1e-6
_SIZE = 256  # of the network input; it stands in the names of the outputs


def recompute(reference: Reference) -> dict[str, NDArray[Any]]:
    """Recompute, for every picture of the file, its resized and network form, its box, its mask and the next box."""
    cases = sorted(name.removesuffix(".image") for name in reference.inputs if name.endswith(".image"))
    return {
        f"{case}.{name}": values
        for case in cases
        for name, values in _case(
            *(reference.inputs[f"{case}.{part}"].numpy() for part in ("image", "mask", "box"))
        ).items()
    }


def _case(picture: NDArray[Any], mask: NDArray[Any], box: NDArray[Any]) -> dict[str, NDArray[Any]]:
    height, width = picture.shape[:2]
    frame = Frame.whole(height, width, _SIZE)
    following = next_box(mask, frame)
    return {
        "new_size": np.array(frame.resized),
        "resized_uint8": cv2.resize(picture, frame.resized[::-1], interpolation=cv2.INTER_AREA),
        "network_input_channel0": frame.image(picture)[0],
        "box256": np.array([int(side * frame.scale) for side in box.tolist()]),
        "mask256_padded": mask_in_frame(mask, frame),
        "bbox256_shift3": np.full(4, np.nan) if following is None else following,
    }
