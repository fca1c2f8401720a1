"""From the canvas in the stack's orientation to a `Segmentation` on the image's own grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import ConfigError
from medmargin.imaging import Volume
from medmargin.inference.margins import Reached
from medmargin.inference.segmentation import Segmentation, StructureResult
from medmargin.uncertainty.volumes import VolumeSamples, expected_dice, volume_interval


class Drawn(Protocol):
    """A finished canvas: maps [slices, height, width] and the volumes of its structures."""

    labels: NDArray[np.signedinteger]  # index of the structure, -1 background
    total: NDArray[np.float32]
    aleatoric: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None
    samples: VolumeSamples

    def probability_inside(self, structure: int) -> tuple[int, float]:
        """Count the voxels a structure has, and sum its probability over them."""
        ...


class Origin(Protocol):
    """Knows the way from the canvas back to the image's own grid: `SliceStack`, or `Preparation`."""

    def restore_labels(self, labels: NDArray[Any], /) -> NDArray[Any]:
        """Bring labels [slices, height, width] to [I, J, K]."""
        ...

    def restore_map(self, values: NDArray[Any], /) -> NDArray[Any]:
        """Bring values [slices, height, width] to [I, J, K]."""
        ...


def label_values(structures: Sequence[str], labels: Mapping[str, int] | None) -> dict[str, int]:
    """Give each structure its value in label maps: that of `labels`, or 1, 2, ... without any.

    Raises:
        ConfigError: a structure has none.
    """
    if labels is None:
        return {name: index for index, name in enumerate(structures, start=1)}
    missing = [name for name in structures if name not in labels]
    if missing:
        raise ConfigError(f"structure '{missing[0]}' has no label value: labels name {', '.join(labels)}")
    return {name: int(labels[name]) for name in structures}


def segmentation_of(
    canvas: Drawn,
    *,
    stack: Origin,
    image: Volume,
    structures: Mapping[str, int],
    level: float,
    prompts_source: str,
    uncertainty_source: str,
    forward_passes: int,
    warnings: tuple[str, ...],
    is_split: bool | None = None,
    maps: Mapping[str, NDArray[np.float32]] | None = None,
    flag_threshold: float | None = None,
    reached: Reached | None = None,
    calibrated: bool = False,
    contained: Sequence[Sequence[int]] | None = None,
) -> Segmentation:
    """Bring everything on the canvas to the grid of `image` and measure its structures.

    Args:
        structures: name -> label value, in the order of the canvas.
        level: of the volume intervals.
        forward_passes: answers averaged per object.
        is_split: whether the canvas holds an aleatoric part; None says so where several answers were averaged.
        maps: name -> further map in [0, 1] in the stack's orientation. flag_threshold: of the vacuity, see
            `Segmentation`.
        reached: thresholds that structures reach, in the stack's orientation. calibrated: whether the canvas was drawn
            with rescaled probabilities.
        contained: index of each structure -> indices of those whose voxels count as its own; None: only itself.
    """
    labels = stack.restore_labels(_with_values(canvas.labels, list(structures.values())))
    total = stack.restore_map(canvas.total)
    uncertainty = {"total": total}
    if forward_passes > 1 if is_split is None else is_split:
        aleatoric = stack.restore_map(canvas.aleatoric)
        np.minimum(aleatoric, total, out=aleatoric)
        uncertainty |= {"aleatoric": aleatoric, "epistemic": total - aleatoric}
    probabilities = None
    if canvas.probabilities is not None:
        probabilities = np.stack([stack.restore_map(values) for values in canvas.probabilities])
    values, counts = list(structures.values()), _counts(labels)
    own = contained or [(index,) for index in range(len(values))]
    found = [
        _measured(
            canvas, index, name, label, sum(counts.get(values[inner], 0) for inner in own[index]),
            image=image, level=level,
        )
        for index, (name, label) in enumerate(structures.items())
    ]  # fmt: skip
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
        maps={name: stack.restore_map(values) for name, values in (maps or {}).items()},
        flag_threshold=flag_threshold,
        calibrated=calibrated,
        margins=None if reached is None else reached.restored(stack.restore_labels),
        members={}
        if contained is None
        else {name: tuple(values[inner] for inner in own[index]) for index, name in enumerate(structures)},
    )


def _with_values(labels: NDArray[np.signedinteger], values: Sequence[int]) -> NDArray[np.unsignedinteger]:
    """Turn indices into label values, slice by slice: numpy would turn all indices into 8 bytes each at once."""
    table = np.array([*values, 0])  # index -1 is the background
    written = np.empty(labels.shape, np.min_scalar_type(int(table.max())))
    for layer, indices in zip(written, labels, strict=True):
        layer[...] = table[indices]
    return written


def _counts(labels: NDArray[np.unsignedinteger]) -> dict[int, int]:
    """Count the voxels of every label value, slice by slice."""
    counts: Counter[int] = Counter()
    layers = labels.transpose(np.argsort(np.abs(labels.strides))[::-1])  # in the order of memory
    for layer in layers:
        found, times = np.unique(layer, return_counts=True)
        counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
    return counts


def _measured(
    canvas: Drawn, index: int, name: str, label: int, voxels: int, *, image: Volume, level: float
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
