"""Prompts and floors read off a true label map, on the slices a model looks at. For evaluation only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from medmargin.datasets.task import Task
from medmargin.errors import ConfigError
from medmargin.imaging import Volume, to_working
from medmargin.imaging.working import Working
from medmargin.prompts.from_labels import box_floor, boxes_from_labels, ellipse_floor
from medmargin.prompts.types import Box, Prompt


def require_boxes(task: Task, *, to: str) -> None:
    """Refuse structures that a box of each object cannot stand for.

    Args:
        to: what was wanted: "evaluate" or "calibrate".

    Raises:
        ConfigError: the structures are overlapping regions.
    """
    if task.regions:
        raise ConfigError(
            f"the structures of '{task.name}' are overlapping regions, which have no boxes of their own: {to} a run of "
            "'plain-unet' or 'residual-unet', without prompts"
        )


def prompts_of_labels(label: Volume, structures: Mapping[str, int], *, dims: int) -> list[Prompt]:
    """Draw the true box of every object, per slice of the working grid, in voxels of the file's own grid.

    Args:
        label: [1, I, J, K]. structures: name -> label value; empty: one per value found, "object 1", ...
        dims: 2 or 3.

    Returns:
        Prompts in the order of `structures`; none where nothing is labelled.
    """
    working = to_working(label, nearest=True)
    names = structures or {f"object {value}": int(value) for value in np.unique(label.voxels) if value}
    found = boxes_from_labels(working.volume.voxels[0], names, dims=dims)
    return [replace(prompt, box=_on_file_grid(prompt.box, working)) for prompt in found if prompt.box is not None]


def floors_of_labels(
    label: Volume, structures: Mapping[str, int], *, dims: int
) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Fill the boxes of `prompts_of_labels`, and their ellipses: what the prompts alone give away.

    Returns:
        {"box" and "ellipse": {structure: [I, J, K] mask on the file's own grid}}.
    """
    working = to_working(label, nearest=True)
    prompts = boxes_from_labels(working.volume.voxels[0], structures, dims=dims)
    shape = working.volume.grid.shape
    return {
        name: {
            structure: working.restore_labels(mask.astype(np.uint8)) > 0
            for structure, mask in floor(prompts, shape=shape, structures=structures).items()
        }
        for name, floor in (("box", box_floor), ("ellipse", ellipse_floor))
    }


def _on_file_grid(box: Box, working: Working) -> Box:
    corners = working.point_from_working(list(product(*zip(box.minimum, box.maximum, strict=True))))
    corners = np.round(corners, 6) + 0.0
    return Box(tuple(corners.min(axis=0).tolist()), tuple(corners.max(axis=0).tolist()))
