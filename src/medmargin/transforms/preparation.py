"""`Preparation`: an image as a planned network sees it, and the way back to the image's own grid.

Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z), "image preprocessing", in the sequence of nnU-Net 2: axes in
network order, crop to the box of the non-zero voxels, normalise each channel, resample.

Deviations: a z-score within the mask sees the filled non-zero region alone; nnU-Net 2 adds labelled voxels outside of
it while it trains, which it cannot when it predicts.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medmargin.errors import ConfigError, DataError, GeometryError
from medmargin.imaging import Volume, finite_image, require_signal, to_working
from medmargin.imaging.working import Working
from medmargin.transforms.regridding import Shape, Spacing, resampled, resampled_labels, resampled_shape, slice_axis

if TYPE_CHECKING:
    from medmargin.datasets.planning import Configuration, Normalisation, Plan

_SMALLEST_DEVIATION = 1e-8
_LARGEST_LABEL = np.iinfo(np.int16).max - 1


class Preparation:
    """One image on a network's grid.

    Args:
        volume: [C, I, J, K] as read.
        plan, configuration: of the network. A 2-D configuration keeps the slices as they are along D.

    Attributes:
        voxels: [C, D', H', W'] float32, normalised, at the configuration's spacing.
        spacing: (D, H, W) of the working image, in the plan's unit; 1 where that is pixels.
        shape: (D, H, W) of the cropped image at that spacing.
        full_shape: (D, H, W) of the whole working image. box: where the crop lies in it.
        through: how answers are interpolated between slices on the way back, for `to_slices`.
        warnings: what had to be decided, one sentence each.

    Raises:
        DataError: another number of channels than planned, a picture for a 3-D network, too many values that are not
            finite, or no signal at all.
    """

    def __init__(self, volume: Volume, plan: Plan, configuration: Configuration) -> None:
        _require_planned(volume, plan, configuration)
        require_signal(volume)
        working = to_working(finite_image(volume))
        image = working.volume.voxels.transpose(0, *(axis + 1 for axis in plan.axis_order))  # [C, D, H, W], a view
        self._order = plan.axis_order
        self._working = _without_voxels(working)
        self._resampling = plan.resampling
        self.warnings = working.volume.warnings
        self.spacing = self._own_spacing(working.volume, plan)
        target = _spacing_3d(configuration, self.spacing)
        occupied = _occupied(image) if plan.crop or any(one.within_mask for one in plan.normalisation) else None
        self.full_shape: Shape = _shape_of(image)
        self.box = _box_of(occupied) if plan.crop and occupied is not None else tuple(map(slice, self.full_shape))
        image = image[:, *self.box]
        self.shape: Shape = _shape_of(image)
        self._target = resampled_shape(self.shape, self.spacing, target)
        self._slice_axis = slice_axis(self.spacing, target, beyond=plan.resampling.slicewise_beyond)
        self.voxels = self._prepared(image, None if occupied is None else occupied[self.box], plan.normalisation)

    @property
    def through(self) -> Literal["linear", "nearest"]:
        return "nearest" if self._slice_axis == 0 and self._resampling.through_order == 0 else "linear"

    def label(self, label: Volume) -> NDArray[np.int16]:
        """Bring a label map to the grid of `voxels`; whatever values it has, an ignored one too, are kept.

        Args:
            label: [1, I, J, K] on the image's own grid, whole numbers.

        Returns:
            [D', H', W'].

        Raises:
            GeometryError: it lies on another grid. DataError: a value below 0 or above 32766.
        """
        if difference := self._working.original.difference(label.grid):
            raise GeometryError(
                f"{label.source or 'the label'}: the label's grid differs from the image's: {difference}. "
                "Resample it with 'medmargin data fix --resample-labels', or exclude the case"
            )
        values = label.voxels[0]
        if values.size and not 0 <= int(values.min()) <= int(values.max()) <= _LARGEST_LABEL:
            raise DataError(
                f"{label.source or 'the label'}: label values {values.min()} to {values.max()}; expected 0 to "
                f"{_LARGEST_LABEL}. Map them with 'medmargin data fix --map-label FOUND=WANTED'"
            )
        whole = self.working_map(values)[self.box].astype(np.int16, order="C")
        rules = self._resampling
        return resampled_labels(
            whole, self._target, order=rules.label_order, through=self._slice_axis,
            through_order=rules.through_order,
        )  # fmt: skip

    def working_map(self, values: NDArray[Any]) -> NDArray[Any]:
        """Bring a mask or label map [I, J, K] of the image's own grid to the working image, [D, H, W] of `full_shape`.

        A view where axes are only swapped or flipped; nearest where the grid was sheared.
        """
        volume = Volume(values[None], self._working.original, self._working.volume.dims)
        return to_working(volume, nearest=True).volume.voxels[0].transpose(self._order)

    def restore_labels(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Bring labels [D, H, W] of `full_shape` to the image's own grid [I, J, K]; a view unless it was sheared."""
        return self._working.restore_labels(self._natural(labels))

    def restore_map(self, values: NDArray[Any]) -> NDArray[Any]:
        """Bring values [D, H, W] of `full_shape` to the image's own grid [I, J, K]; 0 where they do not reach.

        A view where axes are only swapped or flipped; linear where the grid was sheared.
        """
        return self._working.restore_map(self._natural(values), fill=0)

    def _natural(self, values: NDArray[Any]) -> NDArray[Any]:
        if values.shape != self.full_shape:
            raise GeometryError(f"an array of shape {values.shape} is not on the working image {self.full_shape}")
        return values.transpose(np.argsort(self._order))

    def _own_spacing(self, working: Volume, plan: Plan) -> Spacing:
        """Give the spacing along (D, H, W) in the plan's unit, with a warning where the image does not know it."""
        if plan.unit == "px":
            return 1.0, 1.0, 1.0
        if working.grid.unit == "px":
            source = working.source or "array"
            self.warnings += (f"{source}: the voxel size is unknown; taken as 1 x 1 x 1 {plan.unit} for the network",)
            return 1.0, 1.0, 1.0
        d, h, w = (working.spacing[axis] for axis in self._order)
        return d, h, w

    def _prepared(
        self, image: NDArray, occupied: NDArray[np.bool_] | None, schemes: tuple[Normalisation, ...]
    ) -> NDArray[np.float32]:
        """Normalise and resample [C, D, H, W] channel by channel, so that one more channel is held at most."""
        mask = _filled(occupied) if occupied is not None and any(one.within_mask for one in schemes) else None
        voxels = np.empty((len(image), *self._target), np.float32)
        for prepared, channel, scheme in zip(voxels, image, schemes, strict=True):
            values = prepared if self.shape == self._target else np.empty(self.shape, np.float32)
            np.copyto(values, channel, casting="unsafe")
            normalise_channel(values, scheme, mask)
            if values is not prepared:
                rules = self._resampling
                prepared[...] = resampled(
                    values, self._target, order=rules.image_order, through=self._slice_axis,
                    through_order=rules.through_order,
                )  # fmt: skip
        return voxels


def normalise_channel(
    values: NDArray[np.float32], scheme: Normalisation, mask: NDArray[np.bool_] | None = None
) -> None:
    """Normalise one channel, in place, as the plan says.

    Equation: (v - mean) / max(deviation, 1e-8); "ct": after clipping, with the data set's figures; "zscore": with the
    image's own, within the mask alone and 0 outside where the scheme says so; "none": as it is.

    Args:
        values: [D, H, W], in the file's unit.
        mask: of the same shape, the non-zero region of all channels; needed by schemes within the mask.

    Raises:
        ConfigError: an unknown scheme, or one without what it needs: "ct" the data set's figures, the other its mask.
    """
    if scheme.scheme == "ct":
        figures = (scheme.low, scheme.high, scheme.mean, scheme.standard_deviation)
        if None in figures:
            raise ConfigError(
                f"plan: normalisation of '{scheme.channel}' by 'ct' lacks the data set's figures; plan again"
            )
        low, high, mean, deviation = (float(figure) for figure in figures if figure is not None)
        np.clip(values, low, high, out=values)
        _standardise(values, mean, deviation)
    elif scheme.scheme == "zscore" and scheme.within_mask:
        if mask is None:
            raise ConfigError(f"plan: normalisation of '{scheme.channel}' within the mask, but there is no mask")
        inside = values[mask]
        _standardise(inside, *_moments(inside))
        values.fill(0)
        values[mask] = inside
    elif scheme.scheme == "zscore":
        _standardise(values, *_moments(values))
    elif scheme.scheme != "none":
        raise ConfigError(
            f"plan: normalisation of '{scheme.channel}' by '{scheme.scheme}'; expected ct, zscore or none"
        )


def _standardise(values: NDArray[np.float32], mean: float, deviation: float) -> None:
    values -= np.float32(mean)
    values /= np.float32(max(deviation, _SMALLEST_DEVIATION))


def _moments(values: NDArray[np.float32]) -> tuple[float, float]:
    """Compute mean and standard deviation in double precision, slice by slice: no second array of that size."""
    mean = float(values.mean(dtype=np.float64))
    parts = np.array_split(values, max(1, values.size // 2**20))
    squares = sum(float(np.square(part - mean, dtype=np.float64).sum()) for part in parts)
    return mean, float(np.sqrt(squares / values.size))


def _require_planned(volume: Volume, plan: Plan, configuration: Configuration) -> None:
    name = volume.source or "the image"
    expected = [one.channel for one in plan.normalisation]
    if volume.channels != len(expected):
        raise DataError(
            f"{name}: {volume.channels} channels, but '{plan.dataset}' is planned for {len(expected)} "
            f"({', '.join(expected)}). Give these channels, in this order."
        )
    if volume.dims == 2 and configuration.dims == 3:
        raise DataError(
            f"{name}: a picture (2-D), but the configuration '{configuration.name}' of '{plan.dataset}' is 3-D. Give a "
            "volume, or use a 2-D configuration."
        )


def _without_voxels(working: Working) -> Working:
    """Keep the geometry alone, so that the image as read can be let go."""
    nothing = np.broadcast_to(np.uint8(0), (1, *working.volume.grid.shape))
    return replace(working, volume=replace(working.volume, voxels=nothing, header=None))


def _spacing_3d(configuration: Configuration, own: Spacing) -> Spacing:
    """Complete a 2-D configuration's spacing by the image's own between slices."""
    d, h, w = (own[0], *configuration.spacing) if configuration.dims == 2 else configuration.spacing
    return d, h, w


def _occupied(image: NDArray) -> NDArray[np.bool_]:
    """Find the voxels of [C, D, H, W] that are not 0 in every channel."""
    occupied = image[0] != 0
    for channel in image[1:]:
        occupied |= channel != 0
    return occupied


def _box_of(occupied: NDArray[np.bool_]) -> tuple[slice, ...]:
    from scipy import ndimage  # slow to import

    box: tuple[slice, ...] = ndimage.find_objects(occupied.view(np.uint8))[0]
    return box


def _filled(occupied: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage  # slow to import

    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(occupied)
    return filled


def _shape_of(image: NDArray) -> Shape:
    d, h, w = image.shape[1:]
    return d, h, w
