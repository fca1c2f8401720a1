"""From the canvas in the stack's orientation to a `Segmentation` on the image's own grid."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from medmargin.imaging import Volume
from medmargin.inference.canvas import Canvas
from medmargin.inference.segmentation import Segmentation, StructureResult
from medmargin.inference.stack import SliceStack
from medmargin.uncertainty.volumes import expected_dice, volume_interval


def segmentation_of(
    canvas: Canvas,
    *,
    stack: SliceStack,
    image: Volume,
    structures: Mapping[str, int],
    level: float,
    prompts_source: str,
    uncertainty_source: str,
    forward_passes: int,
    warnings: tuple[str, ...],
) -> Segmentation:
    """Bring everything on the canvas to the grid of `image` and measure its structures.

    Args:
        structures: name -> label value, in the order of the canvas.
        level: of the volume intervals.
        forward_passes: answers averaged per object; the uncertainty of a single answer cannot be split.
    """
    values = np.array([*structures.values(), 0])  # index -1 is the background
    values = values.astype(np.min_scalar_type(int(values.max())))
    labels = stack.restore_labels(values[canvas.labels])
    total = stack.restore_map(canvas.total)
    uncertainty = {"total": total}
    if forward_passes > 1:
        aleatoric = np.minimum(stack.restore_map(canvas.aleatoric), total)
        uncertainty |= {"aleatoric": aleatoric, "epistemic": total - aleatoric}
    probabilities = None
    if canvas.probabilities is not None:
        probabilities = np.stack([stack.restore_map(values) for values in canvas.probabilities])
    found = [
        _measured(canvas, index, name, label, int((labels == label).sum()), image=image, level=level)
        for index, (name, label) in enumerate(structures.items())
    ]
    return Segmentation(
        labels,
        uncertainty,
        found,
        image,
        probabilities=probabilities,
        prompts_source=prompts_source,
        uncertainty_source=uncertainty_source,
        forward_passes=forward_passes,
        warnings=warnings,
    )


def _measured(
    canvas: Canvas, index: int, name: str, label: int, voxels: int, *, image: Volume, level: float
) -> StructureResult:
    samples = canvas.samples.voxels(index)  # orthogonal and original voxels are of one size
    low, high = volume_interval(samples, voxels, level=level)
    drawn, probability_inside = canvas.probability_inside(index)
    confidence = expected_dice(probability_inside, float(samples.mean()), drawn)
    each, reason = image.grid.voxel_volume_ml, ""
    if image.dims == 2:
        each, reason = None, "a picture has an area and no volume"
    elif each is None:
        reason = "the file does not say how large a voxel is"
    return StructureResult(
        name=name,
        label=label,
        voxels=voxels,
        low_voxels=low,
        high_voxels=high,
        volume_ml=None if each is None else voxels * each,
        low_ml=None if each is None else low * each,
        high_ml=None if each is None else high * each,
        level=level,
        confidence=confidence,
        reason=reason,
    )
