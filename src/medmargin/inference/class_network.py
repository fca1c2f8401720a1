"""Networks that answer all classes of a picture at once, run pass by pass on a batch of slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from medmargin.errors import CheckpointError
from medmargin.inference.mirrors import mirror_box, mirror_map, mirror_points
from medmargin.inference.network import Ask, device_of
from medmargin.networks.prediction import Prediction
from medmargin.transforms.frame import Frame
from medmargin.uncertainty.estimators import Mirror, Pass


class AnyNetwork(Protocol):
    """What passes need to know of a torch module, whatever it segments."""

    @property
    def evidence(self) -> str | None:
        """How its logits become evidence (`networks.evidence`); None without."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """List all layers."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """List all weights."""
        ...


class ClassNetwork(AnyNetwork, Protocol):
    """A torch module that segments pictures into classes."""

    @property
    def image_size(self) -> int:
        """Side S of its input in pixels."""
        ...

    @property
    def classes(self) -> int:
        """K, with the background, which comes first."""
        ...

    def __call__(
        self,
        image: Tensor,
        *,
        boxes: Tensor | None = None,
        points: Tensor | None = None,
        point_labels: Tensor | None = None,
    ) -> Prediction:
        """Answer pictures [B, 3, S, S] in [0, 1] with logits [B, K, Q, Q] and, where it finds them, edges."""
        ...

    def eval(self) -> nn.Module:
        """Leave training mode."""
        ...


class ClassLogits(NamedTuple):
    """Logits [K, S, S], and edge logits [2, S, S] or None, on the grid of the network input, not mirrored."""

    classes: NDArray[np.float32]
    edges: NDArray[np.float32] | None


def dropouts(network: AnyNetwork) -> list[nn.Module]:
    """List the dropout layers that do something."""
    return [
        module for module in network.modules() if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
    ]


def answers(
    network: ClassNetwork, images: Sequence[NDArray[np.float32]], asks: Sequence[Ask], how: Pass, frame: Frame
) -> Iterator[ClassLogits]:
    """Ask about pictures.

    Args:
        network: in eval mode.
        images: [3, S, S] in [0, 1]. asks: one per image, all of one kind.
        how: mirror, and whether dropout is active. Then pictures go one by one, each with the pass's seed: the pass is
            one thinned network for all slices, whatever the batch.
        frame: of every picture.

    Yields:
        One answer per image.

    Raises:
        CheckpointError: the answer is not finite.
    """
    step = 1 if how.sampling else len(images)
    for start in range(0, len(images), step):
        seen = [mirror_map(image, how.flip, frame.resized) for image in images[start : start + step]]
        told = [_mirrored(ask, how.flip, frame) for ask in asks[start : start + step]]
        if how.sampling:
            with sampling_from(network, how.seed):
                logits, edges = _forward(network, seen, told)
        else:
            logits, edges = _forward(network, seen, told)
        for index, values in enumerate(logits):
            edge = None if edges is None else mirror_map(edges[index], how.flip, frame.resized)
            yield ClassLogits(mirror_map(values, how.flip, frame.resized), edge)


def _forward(
    network: ClassNetwork, images: Sequence[NDArray[np.float32]], asks: Sequence[Ask]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Run one batch: logits [B, K, S, S] and edge logits [B, 2, S, S] or None."""
    device = device_of(network)
    has_box, points, _ = asks[0].kind

    def batch(arrays: Sequence[NDArray | None]) -> Tensor:
        return torch.from_numpy(np.stack([array for array in arrays if array is not None])).to(device)

    prediction = network(
        batch(images),
        boxes=batch([ask.box for ask in asks]) if has_box else None,
        points=batch([ask.points for ask in asks]) if points else None,
        point_labels=batch([ask.positive for ask in asks]).long() if points else None,
    )
    side = images[0].shape[-1]
    return _full(prediction.logits, side), None if prediction.edges is None else _full(prediction.edges, side)


def _full(logits: Tensor, side: int) -> NDArray[np.float32]:
    """Bring logits [B, C, Q, Q] to the network input's grid [B, C, side, side]."""
    logits = logits.float()
    if logits.shape[-1] != side:
        logits = F.interpolate(logits, size=(side, side), mode="bilinear", align_corners=False)
    if not bool(torch.isfinite(logits).all()):
        raise CheckpointError("the network answers with values that are not finite: its weights are unusable")
    return logits.cpu().numpy()


def _mirrored(ask: Ask, flip: Mirror, frame: Frame) -> Ask:
    box = None if ask.box is None else mirror_box(ask.box, flip, frame.resized)
    return replace(ask, box=box, points=mirror_points(ask.points, flip, frame.resized))


@contextmanager
def sampling_from(network: AnyNetwork, seed: int) -> Iterator[None]:
    """Switch dropout on with draws of its own, and nothing else."""
    layers, device = dropouts(network), device_of(network)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for layer in layers:
            layer.train()
        try:
            yield
        finally:
            for layer in layers:
                layer.eval()
