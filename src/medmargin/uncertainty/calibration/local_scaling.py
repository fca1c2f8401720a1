"""Local temperature scaling, fitted on patches of calibration cases and stored as a rescaling.

Ding et al. 2021, arXiv:2008.05105; the network is `uncertainty.local_temperature`, here on 2-D slices. Like every
rescaling it takes log-probabilities for logits (below 1e-12 counts as 1e-12).

Deviations: the temperature starts at the best common one instead of 2 (by the biases), and the best state of the fit is
kept, by the likelihood of all patches; where none is better than leaving the probabilities alone, nothing is stored.
"""

from __future__ import annotations

import base64
import functools
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from medmargin.errors import DataError
from medmargin.uncertainty.calibration.classes import SMALLEST
from medmargin.uncertainty.calibration.temperature import Block, Fitted, Temperature, Unchanged, fit_temperature
from medmargin.uncertainty.calibration.voxel_sample import Voxels

if TYPE_CHECKING:
    from torch import Tensor

    from medmargin.uncertainty.local_temperature import LocalTemperature

_LEAST_SIDE = 5  # the network mirrors 4 pixels at the border


class LocalScaling(BaseModel):
    """softmax(log p / T(x)) with a temperature for every pixel of a slice; the largest class stays the largest.

    Attributes:
        classes: K. channels: of the image. weights: of the network, a safetensors file in base64.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["local temperature"] = "local temperature"
    classes: int = Field(ge=2)
    channels: int = Field(ge=1)
    weights: str

    @model_validator(mode="after")
    def _readable(self) -> LocalScaling:
        try:
            _network(self.weights, self.classes, self.channels)
        except Exception as error:  # base64, safetensors and torch each raise their own
            raise ValueError(f"weights do not fit a local temperature network ({type(error).__name__})") from error
        return self

    def scale(self, block: Block, vacuity: Block | None = None, image: Block | None = None) -> None:
        """Rescale probabilities in place, slice by slice.

        Args:
            block: [K, H, W], or [K, slices, H, W]; H and W are at least 5.
            vacuity: not used.
            image: [C, H, W] or [C, slices, H, W], normalised as in the fit.

        Raises:
            DataError: no image, or one that does not fit.
        """
        import torch

        if image is None or image.shape[1:] != block.shape[1:] or len(image) != self.channels:
            found = "none" if image is None else str(image.shape)
            raise DataError(f"a local temperature needs an image [{self.channels}, *{block.shape[1:]}]; found {found}")
        network = _network(self.weights, self.classes, self.channels)
        as_slices = block if block.ndim == 4 else block[:, None]
        pictures = image if image.ndim == 4 else image[:, None]
        with torch.no_grad():
            for index in range(as_slices.shape[1]):
                logits = torch.from_numpy(np.log(np.maximum(as_slices[:, index], SMALLEST)))[None]
                picture = torch.from_numpy(np.ascontiguousarray(pictures[:, index], np.float32))[None]
                as_slices[:, index] = network(logits, picture).softmax(1)[0].numpy()


class Patch(NamedTuple):
    """A piece of a slice: log-probabilities [K, h, w], image [C, h, w], true classes [h, w], counted [h, w]."""

    logits: NDArray[np.float32]
    image: NDArray[np.float32]
    labels: NDArray[np.int64]
    counted: NDArray[np.bool_]


class PatchSample:
    """Keeps a bounded random choice of patches of cases that arrive one by one (reservoir sampling, Vitter 1985).

    Args:
        at_most: patches to keep. side: of a patch, in pixels. band_only: count the band's pixels only.
        seed: of the choice.
    """

    def __init__(self, *, at_most: int = 64, side: int = 96, band_only: bool = False, seed: int = 0) -> None:
        self.at_most, self.side, self.band_only = at_most, side, band_only
        self._rng = np.random.default_rng(seed)
        self._patches: list[Patch] = []
        self._offered = 0

    def add(
        self,
        case: str,
        probabilities: NDArray[np.floating],
        image: NDArray[np.floating],
        labels: NDArray[np.integer],
        near: NDArray[np.bool_],
    ) -> None:
        """Offer one slice that holds a border; its patch is centred on a random pixel of the band.

        Args:
            case: name, for messages.
            probabilities: [K, H, W], background first. image: [C, H, W] normalised. labels: [H, W] true class.
            near: [H, W] the band around structures; a slice without any is passed over.

        Raises:
            DataError: a slice of fewer than 5 pixels along a side.
        """
        if min(labels.shape) < _LEAST_SIDE:
            raise DataError(f"{case}: a slice of {labels.shape} pixels; a local temperature needs 5 along each side")
        band = np.argwhere(near)
        if not len(band):
            return
        self._offered += 1
        slot = len(self._patches) if len(self._patches) < self.at_most else int(self._rng.integers(self._offered))
        centre = band[self._rng.integers(len(band))]
        if slot >= self.at_most:
            return
        piece = tuple(_around(int(at), self.side, size) for at, size in zip(centre, labels.shape, strict=True))
        patch = Patch(
            np.log(np.maximum(probabilities[:, *piece], SMALLEST)).astype(np.float32),
            np.array(image[:, *piece], np.float32),
            labels[piece].astype(np.int64),
            near[piece].copy() if self.band_only else np.ones_like(near[piece]),
        )
        self._patches[slot : slot + 1] = [patch]

    @property
    def patches(self) -> tuple[Patch, ...]:
        """The patches kept so far."""
        return tuple(self._patches)


def fit_local_scaling(
    patches: tuple[Patch, ...], *, steps: int = 200, rate: float = 1e-3, seed: int = 0
) -> Fitted[LocalScaling | Unchanged]:
    """Fit the network by the likelihood of the counted pixels (Adam, one patch a step).

    Args:
        patches: of `PatchSample`.
        steps: of the optimiser. rate: its learning rate.
        seed: of the order of the patches.

    Returns:
        A `LocalScaling`, or `Unchanged` where it is not better than leaving the probabilities alone.

    Raises:
        DataError: no patches.
    """
    import torch

    from medmargin.uncertainty.local_temperature import LocalTemperature

    if not patches:
        raise DataError("no slice with a border: there is nothing to fit a local temperature on")
    classes, channels = len(patches[0].logits), len(patches[0].image)
    network, rng = LocalTemperature(classes, channels), np.random.default_rng(seed)
    _start_at(network, _common_temperature(patches))
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    before = _mean_loss(None, patches)
    best, weights = before, None
    for step in range(steps + 1):
        if step % max(1, steps // 10) == 0 and (reached := _mean_loss(network, patches)) < best:
            best, weights = reached, {name: value.clone() for name, value in network.state_dict().items()}
        optimiser.zero_grad()
        loss, _ = _loss(network, patches[int(rng.integers(len(patches)))])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)  # a temperature near 0 has no bounded gradient
        optimiser.step()
    if weights is None:
        return Fitted(Unchanged(), before, before)
    return Fitted(LocalScaling(classes=classes, channels=channels, weights=_packed(weights)), before, best)


def _common_temperature(patches: tuple[Patch, ...]) -> float:
    counted = [patch.counted for patch in patches]
    logits = np.concatenate([patch.logits[:, at] for patch, at in zip(patches, counted, strict=True)], axis=1)
    labels = np.concatenate([patch.labels[at] for patch, at in zip(patches, counted, strict=True)])
    voxels = Voxels(np.exp(logits), labels, np.ones(labels.size), np.ones(labels.size, bool), None)
    fitted = fit_temperature(voxels).rescaling
    return fitted.temperature if isinstance(fitted, Temperature) else 1.0


def _start_at(network: LocalTemperature, temperature: float) -> None:
    """Set the biases of all temperature maps, so that the network gives this temperature everywhere."""
    for name, parameter in network.named_parameters():
        if "_conv" in name and name.endswith("bias"):
            parameter.data.fill_(temperature - 2)  # T = ReLU(bias + 1 + 1)


def _around(centre: int, side: int, size: int) -> slice:
    start = min(max(0, centre - side // 2), max(0, size - side))
    return slice(start, min(start + side, size))


def _loss(network: LocalTemperature | None, patch: Patch) -> tuple[Tensor, int]:
    """Mean cross-entropy of the counted pixels, and their number; without a network, of the probabilities as given."""
    import torch
    from torch.nn.functional import cross_entropy

    logits = torch.from_numpy(patch.logits)[None]
    if network is not None:
        logits = network(logits, torch.from_numpy(patch.image)[None])
    counted = torch.from_numpy(patch.counted)
    return cross_entropy(logits[0, :, counted].T, torch.from_numpy(patch.labels)[counted]), int(counted.sum())


def _mean_loss(network: LocalTemperature | None, patches: tuple[Patch, ...]) -> float:
    import torch

    with torch.no_grad():
        losses = [_loss(network, patch) for patch in patches]
    return float(np.average([loss.item() for loss, _ in losses], weights=[count for _, count in losses]))


def _packed(weights: dict[str, Tensor]) -> str:
    from safetensors.torch import save

    return base64.b64encode(save(weights)).decode("ascii")


@functools.lru_cache(maxsize=2)
def _network(weights: str, classes: int, channels: int) -> LocalTemperature:
    from safetensors.torch import load

    from medmargin.uncertainty.local_temperature import LocalTemperature

    network = LocalTemperature(classes, channels)
    network.load_state_dict(load(base64.b64decode(weights, validate=True)))
    return network.eval()
