"""Where the edges of a label map are: the target of an edge predictor, and how near every pixel is to one.

The default rule is morphological and needs no threshold: an edge pixel is one that has a 4-neighbour of another class,
which gives a band two pixels wide. Canny: Canny 1986, doi:10.1109/TPAMI.1986.4767851, as OpenCV implements it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import edt
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medmargin.errors import ConfigError
from medmargin.losses.precision import full_precision

REFERENCE_SIDE = 256  # lengths in pixels are told for images of this height and grow with it
_CANNY_THRESHOLDS = (100, 200)  # far below the gradient of a mask of 0 and 255: every border is found


@dataclass(frozen=True)
class Edges:
    """The edges of a batch of label maps.

    Attributes:
        target: [B, H, W] float32, what an edge predictor should say: 0 or 1, between them for "soft".
        proximity: [B, H, W] float32, 1 on the nearest edge, falling to 0 far away; all 0 where there is no edge.
    """

    target: Tensor
    proximity: Tensor


class EdgeTargets:
    """Make edge targets from label maps.

    Args:
        kind: "labels" (a 4-neighbour differs), "sobel" (the 8 neighbours make a gradient: a fuller band, hollow where a
            structure is one pixel wide), "canny" (one pixel wide), "band" (within `radius` of a "labels" edge) or
            "soft" (a Gaussian of the distance to it).
        radius: of "band", or the standard deviation of "soft", in pixels of an image 256 pixels high.
        sigma: standard deviation of the proximity, in pixels of an image 256 pixels high.

    Raises:
        ConfigError: an unknown kind, or a length that is not positive.
    """

    def __init__(self, kind: str = "labels", *, radius: float = 2.0, sigma: float = 5.0) -> None:
        if kind not in EDGE_KINDS:
            raise ConfigError(f"edge target is '{kind}': expected one of {', '.join(EDGE_KINDS)}.")
        for name, length in (("radius", radius), ("sigma", sigma)):
            if not 0 < length < math.inf:
                raise ConfigError(f"{name} of the edges is {length}: expected a positive number of pixels.")
        self.kind, self.radius, self.sigma = kind, radius, sigma

    def __call__(self, labels: Tensor) -> Edges:
        """Find the edges of labels [B, H, W] (integers); one distance transform per image, on the CPU."""
        scale = labels.shape[-2] / REFERENCE_SIDE
        thin = _DETECTORS.get(self.kind, label_edges)(labels)  # [B, H, W] bool
        distance = edge_distance(thin)
        proximity = edge_proximity(distance, self.sigma * scale)
        if self.kind == "band":
            return Edges((distance <= self.radius * scale).float(), proximity)
        if self.kind == "soft":
            return Edges(edge_proximity(distance, self.radius * scale), proximity)
        return Edges(thin.float(), proximity)


def label_edges(labels: Tensor) -> Tensor:
    """Return [B, H, W] bool, True where one of the 4 neighbours inside the image has another label.

    Args:
        labels: [B, H, W] integers.
    """
    edges = torch.zeros_like(labels, dtype=torch.bool)
    rows = labels[:, 1:] != labels[:, :-1]
    columns = labels[:, :, 1:] != labels[:, :, :-1]
    edges[:, 1:] |= rows
    edges[:, :-1] |= rows
    edges[:, :, 1:] |= columns
    edges[:, :, :-1] |= columns
    return edges


def edge_distance(edges: Tensor) -> Tensor:
    """Return the Euclidean distance to the nearest edge pixel, [B, H, W] float32, in pixels; infinite without any.

    Args:
        edges: [B, H, W] bool.
    """
    away = ~edges.cpu().numpy()
    # edt answers inf for an image without an edge, and so do we
    distance = np.stack([edt.edt(np.ascontiguousarray(image), parallel=1) for image in away])
    return torch.from_numpy(distance).to(edges.device)


def edge_proximity(distance: Tensor, sigma: float) -> Tensor:
    """Return exp(-d^2 / (2 sigma^2)), 1 on an edge and 0 where the distance is infinite.

    Args:
        distance: any shape, pixels. sigma: pixels.
    """
    return (-distance.square() / (2 * sigma**2)).exp()


def edge_balance(target: Tensor, *, largest: float = 20.0) -> Tensor:
    """Return the weight of every pixel that gives edge and no edge the same say, [B, *spatial].

    Args:
        target: [B, *spatial] in [0, 1].
        largest: limit of the weight, reached where edges are few.

    Equation: c = min(largest, N / (2 N+)) on an edge and min(largest, N / (2 N-)) elsewhere, with N+ + N- = N pixels of
    the image; in between for a soft target.
    """
    target = full_precision(target)
    share = target.flatten(1).mean(1).view(-1, *[1] * (target.ndim - 1))
    on_edge, elsewhere = (0.5 / part.clamp(min=0.5 / largest) for part in (share, 1 - share))
    return elsewhere + target * (on_edge - elsewhere)


def pooled(edges: Tensor, size: tuple[int, int]) -> Tensor:
    """Return [B, h, w]: the highest value in each cell of a coarser grid, for averaging would erase thin edges.

    Args:
        edges: [B, H, W] float, target or proximity. size: (h, w).
    """
    return F.adaptive_max_pool2d(edges[:, None], size)[:, 0]


def _sobel_edges(labels: Tensor) -> Tensor:
    return _of_each_structure(labels, _has_gradient)


def _has_gradient(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    rows, columns = (
        cv2.Sobel(mask, cv2.CV_32F, dx, dy, borderType=cv2.BORDER_REPLICATE) for dx, dy in ((0, 1), (1, 0))
    )
    return (rows != 0) | (columns != 0)


def _canny_edges(labels: Tensor) -> Tensor:
    return _of_each_structure(labels, lambda mask: cv2.Canny(mask, *_CANNY_THRESHOLDS, L2gradient=True) > 0)


def _of_each_structure(labels: Tensor, detect: Callable[[NDArray[np.uint8]], NDArray[np.bool_]]) -> Tensor:
    """Unite the edges of every class that is present; detecting on the labels themselves would rank the classes."""
    edges = np.zeros(tuple(labels.shape), bool)
    for found, image in zip(edges, labels.cpu().numpy(), strict=True):
        for label in np.unique(image)[1:]:  # the lowest class has no edge that another has not
            found |= detect(np.where(image == label, np.uint8(255), np.uint8(0)))
    return torch.from_numpy(edges).to(labels.device)


_DETECTORS: dict[str, Callable[[Tensor], Tensor]] = {
    "labels": label_edges,
    "sobel": _sobel_edges,
    "canny": _canny_edges,
}
EDGE_KINDS = (*_DETECTORS, "band", "soft")
